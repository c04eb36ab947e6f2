"""What an observation tells: weights are what the likelihood says, and intervals hold the truth."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from framework.errors import RunError, StudyError
from framework.inverse import calibration
from framework.inverse.calibration import (
    FALSE_ALARMS,
    FILE,
    Calibration,
    calibrate,
    moved,
    observe,
    patients,
)
from framework.inverse.index.index import Index
from framework.inverse.index.indexing import build
from framework.inverse.index.writer import IndexWriter
from framework.inverse.posterior import (
    _REACH,
    Particles,
    Posterior,
    _adjusted,
    around,
    fields,
    of_distances,
    of_masks,
)
from framework.inverse.search.field_query import FieldAnswer
from framework.inverse.search.kernels import moments
from framework.store.owner import Store
from framework.store.reader import StoreReader
from framework.study import versions
from framework.study.sections import StoreConfig
from solvers.base import Field, Grid, Order, Parameter, ParameterSpace, Quantity, Solver

SIDE, SPACING, STEPS, SIMULATIONS = 40, 2.0, 3, 200
THRESHOLDS = {"core": (0.5, 0.6, 0.8), "rim": (0.1, 0.2, 0.4)}
TEMPERATURE = 0.05


class Balls(Solver):
    """Discs that grow: c = 1 / (1 + exp((r - radius t) / width)) around a place."""

    parameters = ParameterSpace(
        Parameter("radius", 14, 26, "mm"),
        Parameter("width", 2, 5, "mm", "log_uniform"),
        Parameter("x", 24, 56, "mm"),
        Parameter("y", 24, 56, "mm"),
    )
    fields = (Field("cells"),)
    grid = Grid((SIDE, SIDE), (SPACING, SPACING), "mm")
    order = Order(1, 1)
    stored_steps = STEPS
    masks: Mapping[str, tuple[float, ...]] = THRESHOLDS

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.linspace(0, 1, STEPS)

    def solve(self, parameters: NDArray[np.float64], seed: int) -> Iterator[NDArray[np.float32]]:
        radius, width, x, y = parameters
        i, j = np.meshgrid(*2 * [(np.arange(SIDE) + 0.5) * SPACING], indexing="ij")
        for t in self.times(parameters):
            exponent = (np.hypot(i - x, j - y) - radius * t) / width
            yield (1 / (1 + np.exp(exponent)))[None].astype(np.float32)

    def observe(
        self, fields: NDArray[np.float32], **settings: float
    ) -> Mapping[str, NDArray[np.float32] | NDArray[np.bool_]]:
        return {name: fields[0] >= np.float32(settings.get(name, 0.5)) for name in THRESHOLDS}

    def identifiable(
        self, parameters: NDArray[np.float64], t: NDArray[np.float64]
    ) -> Mapping[str, Quantity]:
        radius, width, x, y = parameters.T
        return {
            "radius": Quantity(radius * t, "mm", positive=True),
            "width": Quantity(width, "mm", positive=True),
            "x": Quantity(x, "mm"),
            "y": Quantity(y, "mm"),
        }


class Late(Balls):
    """Whose growth begins at half of the time."""

    def identifiable(
        self, parameters: NDArray[np.float64], t: NDArray[np.float64]
    ) -> Mapping[str, Quantity]:
        return super().identifiable(parameters, np.maximum(t - 0.5, 0))


SOLVER = Balls()


def simulation(id: int) -> NDArray[np.float64]:
    """Parameters by number; those of the store are below SIMULATIONS."""
    return SOLVER.parameters.from_unit(np.random.default_rng([id, 1]).random(4))


def stored(path: Path, simulations: int, first: int = 0) -> str:
    """A store with simulations, or with these more."""
    identity = {
        "solver": {"name": f"{__name__}:Balls"},
        "fields": {"cells": "1"},
        "grid": {"shape": [SIDE, SIDE]},
        "seed": 0,
        "streams": versions.STREAMS,
        "design": {"bounds": {item.name: [item.low, item.high] for item in Balls.parameters.items}},
    }
    store = Store.open(str(path), StoreConfig(), identity, SOLVER, simulations)
    writer = store.writer()
    for id in range(first, simulations):
        for step, values in enumerate(SOLVER.solve(simulation(id), 0)):
            writer.append(id, step, values)
        writer.finish(id)
        store.commit(id, simulation(id))
    store.flush()
    store.close()
    return str(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = stored(tmp_path_factory.mktemp("posterior") / "balls.zarr", SIMULATIONS)
    build(path)
    return path


@pytest.fixture(scope="module")
def calibrated(store: str) -> Calibration:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "_PATIENTS", 90)
        patch.setattr(calibration, "_TEMPERATURES", (0.05, 0.1))
        return calibrate(store)


@pytest.fixture(scope="module")
def reader(store: str) -> StoreReader:
    return StoreReader(store)


@pytest.fixture(scope="module")
def index(reader: StoreReader) -> Index:
    return Index.open(reader)


def seen(parameters: NDArray[np.float64], step: int = STEPS - 1) -> dict[str, NDArray[np.bool_]]:
    """Masks without noise, at indexed thresholds."""
    values = list(SOLVER.solve(parameters, 0))[step]
    at = {"core": 0.6, "rim": 0.2}
    return {
        name: np.asarray(SOLVER.observe(values, **{name: value})[name])
        for name, value in at.items()
    }


def patient(id: int) -> tuple[NDArray[np.float64], dict[str, NDArray[np.bool_]]]:
    """A simulation that is not in the store, at its end, as a rater sees it; and its truth [q]."""
    parameters = simulation(SIMULATIONS + id)
    values = list(SOLVER.solve(parameters, 0))[-1]
    masks = observe(SOLVER, values, THRESHOLDS, np.random.default_rng(id))
    assert masks is not None
    found = SOLVER.identifiable(parameters[None], np.ones(1))
    return np.array([quantity.values[0] for quantity in found.values()]), dict(masks)


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    voxels = int(one.sum()) + int(other.sum())
    return 2.0 * int((one & other).sum()) / voxels if voxels else 1.0


def intervals(posterior: Posterior) -> NDArray[np.float64]:
    return np.array([estimate.interval_90 for estimate in posterior.quantities.values()])


@pytest.mark.parametrize("names", [("core", "rim"), ("rim",)])
def test_weights_are_likelihoods_over_thresholds_drawn_evenly(
    index: Index, reader: StoreReader, names: tuple[str, ...]
) -> None:
    _, masks = patient(0)
    observed = {name: masks[name] for name in names}
    posterior = of_masks(index, reader, SOLVER, observed, TEMPERATURE)
    # Thresholds between 0.5 and 0.8 are nearest to 0.5 up to 0.55, and to 0.6 up to 0.7.
    shares = {"core": (0.05, 0.15, 0.1), "rim": (0.05, 0.15, 0.1)}
    expected: dict[tuple[int, ...], float] = {}
    for id in range(SIMULATIONS):
        for step, values in enumerate(SOLVER.solve(simulation(id), 0)):
            if step == 0:
                continue  # of radius 0
            likelihood = 1.0
            for name in names:
                masks_at = [
                    np.asarray(SOLVER.observe(values, **{name: a})[name]) for a in THRESHOLDS[name]
                ]
                scores = [dice(observed[name], mask) / len(names) for mask in masks_at]
                likelihood *= np.exp(np.array(scores) / TEMPERATURE) @ shares[name]
            expected[id, step] = likelihood
    total = sum(expected.values())
    assert posterior.weights.sum() == pytest.approx(1)
    for key, weight in zip(posterior.keys.tolist(), posterior.weights, strict=True):
        assert weight == pytest.approx(expected[tuple(key)] / total, rel=0.05, abs=1e-4)
    best = max(expected, key=lambda key: expected[key])
    assert posterior.keys[posterior.weights.argmax()].tolist() == list(best)


def test_a_simulation_that_was_stored_is_found_again(index: Index, reader: StoreReader) -> None:
    posterior = of_masks(index, reader, SOLVER, seen(simulation(7)), 0.01)
    assert posterior.keys[posterior.weights.argmax()].tolist() == [7, STEPS - 1]
    left_out = Particles(index, reader, SOLVER, seen(simulation(7)), leave_out=7)
    assert left_out.best < 1
    assert 7 not in left_out.at(0.01).keys[:, 0]


def test_estimates_lie_nearer_the_truth_than_the_entries_do(
    index: Index, reader: StoreReader
) -> None:
    truths, adjusted, plain = [], [], []
    for id in range(30):
        truth, masks = patient(id)
        posterior = of_masks(index, reader, SOLVER, masks, TEMPERATURE)
        simulations, steps = posterior.keys.T
        of_entries = SOLVER.identifiable(reader.parameters[simulations], reader.t[0, steps])
        plain.append([posterior.weights @ quantity.values for quantity in of_entries.values()])
        adjusted.append([estimate.mean for estimate in posterior.quantities.values()])
        truths.append(truth)
    errors = [np.abs(np.subtract(values, truths)).mean(0) for values in (adjusted, plain)]
    assert (errors[0][2:] < 0.75 * errors[1][2:]).all()  # of the place
    assert errors[0][0] < errors[1][0]  # of the radius


def test_stretching_widens_intervals_about_their_median(index: Index, reader: StoreReader) -> None:
    _, masks = patient(1)
    particles = Particles(index, reader, SOLVER, masks)
    plain, stretched = (particles.at(TEMPERATURE, s) for s in (None, {"x": 3.0, "radius": 2.0}))
    low, high = np.diff(intervals(plain))[:, 0], np.diff(intervals(stretched))[:, 0]
    assert high[2] == pytest.approx(3 * low[2])
    assert high[0] > 1.5 * low[0]
    np.testing.assert_array_equal(low[[1, 3]], high[[1, 3]])
    np.testing.assert_array_equal(plain.weights, stretched.weights)
    assert particles.at(0.02).effective < particles.at(0.2).effective


def test_sizes_stay_positive(index: Index, reader: StoreReader) -> None:
    posterior = of_masks(index, reader, SOLVER, seen(simulation(3), 1), 0.1)
    assert (intervals(posterior)[:2] > 0).all()
    summary = posterior.summary()
    assert summary["radius"]["units"] == "mm"
    assert json.loads(json.dumps(summary)) == summary


def test_fields_are_the_weighted_mean_and_deviation(index: Index, reader: StoreReader) -> None:
    _, masks = patient(2)
    posterior = of_masks(index, reader, SOLVER, masks, TEMPERATURE)
    mean, deviation = fields(reader, posterior)
    every = np.stack(
        [list(SOLVER.solve(simulation(id), 0))[step] for id, step in posterior.keys.tolist()]
    ).astype(np.float64)
    expected = np.average(every, 0, posterior.weights)
    np.testing.assert_allclose(mean, expected, atol=1e-9)
    variance = np.average((every - expected) ** 2, 0, posterior.weights)
    np.testing.assert_allclose(deviation, np.sqrt(variance), atol=1e-6)


def test_distances_weigh_as_gaussian_noise_does(reader: StoreReader) -> None:
    keys = np.array([[id, 1] for id in range(40)])
    distances = np.linspace(9.0, 15.0, 40)
    answer = FieldAnswer((), 40, 40, 0.0, keys, distances)
    posterior = of_distances(reader, SOLVER, answer)
    weights = np.exp(-distances / 2) / np.exp(-distances / 2).sum()
    np.testing.assert_allclose(posterior.weights, weights)
    x = reader.parameters[:40, 2]
    estimate = posterior.quantities["x"]
    assert estimate.mean == pytest.approx(weights @ x)
    assert estimate.sd == pytest.approx(np.sqrt(weights @ (x - weights @ x) ** 2))
    low, high = estimate.interval_90
    assert 0.05 - weights.max() <= weights[x < low].sum() <= 0.05 + weights.max()
    assert 0.05 - weights.max() <= weights[x > high].sum() <= 0.05 + weights.max()


def test_new_simulations_lie_around_the_posterior(index: Index, reader: StoreReader) -> None:
    truth, masks = patient(4)
    posterior = of_masks(index, reader, SOLVER, masks, TEMPERATURE)
    points = around(posterior, reader, SOLVER, 50)
    space = SOLVER.parameters
    assert points.shape == (50, 4)
    assert ((points >= space.low) & (points <= space.high)).all()
    assert len(np.unique(points, axis=0)) == 50
    np.testing.assert_array_equal(points, around(posterior, reader, SOLVER, 50))
    # Places lie within a few mm of the truth, out of 32.
    assert (np.abs(points[:, 2:] - truth[2:]) < 12).all()
    assert (points[:, 2:].std(0) > 0.1).all()


def test_intervals_hold_the_truth_as_often_as_they_say(
    index: Index, reader: StoreReader, calibrated: Calibration
) -> None:
    """On simulations that are not in the store, as calibration was made on those that are."""
    held, widths = [], []
    for id in range(60):
        truth, masks = patient(id)
        found = intervals(
            of_masks(index, reader, SOLVER, masks, calibrated.temperature, calibrated.stretch)
        )
        held.append((found[:, 0] <= truth) & (truth <= found[:, 1]))
        widths.append(found[:, 1] - found[:, 0])
    assert (np.mean(held, 0) >= 0.8).all()
    assert calibrated.masks == tuple(THRESHOLDS)
    assert (np.median(widths, 0)[2:] < 32 * 0.9 / 3).all()
    assert all(0.75 <= share <= 1 for share in calibrated.coverage.values())
    assert calibrated.coverage.keys() == calibrated.width.keys() == {"radius", "width", "x", "y"}


def test_each_choice_of_masks_is_calibrated_for_itself(
    index: Index, reader: StoreReader, calibrated: Calibration
) -> None:
    rim = Calibration.read(index, ["rim"])
    assert rim.masks == ("rim",)
    assert rim.least_score != calibrated.least_score
    held, alarms = [], []
    for id in range(60):
        truth, masks = patient(id)
        particles = Particles(index, reader, SOLVER, {"rim": masks["rim"]})
        found = intervals(particles.at(rim.temperature, rim.stretch))
        held.append((found[:, 0] <= truth) & (truth <= found[:, 1]))
        alarms.append(not rim.fits(particles.best))
    assert (np.mean(held, 0) >= 0.8).all()
    assert np.mean(alarms) <= 3 * FALSE_ALARMS


def test_what_the_store_does_not_cover_does_not_fit(
    index: Index, reader: StoreReader, calibrated: Calibration
) -> None:
    scores = [Particles(index, reader, SOLVER, patient(id)[1]).best for id in range(60)]
    alarms = np.mean([not calibrated.fits(score) for score in scores])
    assert alarms <= 3 * FALSE_ALARMS
    cross = np.zeros((SIDE, SIDE), bool)
    cross[19:21], cross[:, 19:21] = True, True
    particles = Particles(index, reader, SOLVER, {"core": cross, "rim": cross})
    assert calibrated.fits(particles.best) is False


def test_a_store_of_one_simulation_is_too_small_to_calibrate(tmp_path: Path) -> None:
    path = stored(tmp_path / "balls.zarr", 1)
    build(path)
    made = calibrate(path)
    assert Calibration.read(Index.open(path)) == made
    assert made.fits(0.0) is None


def test_patients_of_few_simulations_say_nothing(tmp_path: Path) -> None:
    path = stored(tmp_path / "balls.zarr", 38)
    build(path)
    reader = StoreReader(path)
    made = list(patients(Index.open(reader), reader, SOLVER, 45, np.random.default_rng(0)))
    assert len(made) == 45  # of whom enough is seen
    assert calibrate(path).least_score is None


def test_what_has_not_grown_is_no_patient(index: Index, reader: StoreReader) -> None:
    """As the posterior leaves it out, it cannot be the truth."""
    made = patients(index, reader, Late(), 60, np.random.default_rng(0))
    assert {step for _, step, _ in made} == {2}
    made = patients(index, reader, SOLVER, 60, np.random.default_rng(0))
    assert {step for _, step, _ in made} == {1, 2}


def test_nothing_is_said_of_entries_in_which_nothing_has_grown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored(tmp_path / "balls.zarr", 3)
    build(path)
    reader = StoreReader(path)
    monkeypatch.setattr(reader, "t", 0 * reader.t)
    with pytest.raises(StudyError, match="in none of the 9 entries"):
        of_masks(Index.open(reader), reader, SOLVER, patient(0)[1], TEMPERATURE)


def test_what_is_the_same_in_all_the_store_is_told_with_no_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "_PATIENTS", 40)
    monkeypatch.setattr(Balls, "identifiable", lambda self, p, t: {"depth": Quantity(0 * t + 7)})
    path = stored(tmp_path / "balls.zarr", 45)
    build(path)
    made = calibrate(path)
    assert made.checked == 40
    assert made.width == {"depth": 0}


def test_what_is_simulated_meanwhile_does_not_keep_from_calibrating(tmp_path: Path) -> None:
    path = stored(tmp_path / "balls.zarr", 3)
    build(path)
    stored(tmp_path / "balls.zarr", 4, first=3)
    assert calibrate(path).entries == 3 * STEPS


def test_a_calibration_is_kept_and_is_of_one_state_of_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "_PATIENTS", 12)
    path = stored(tmp_path / "balls.zarr", 40)
    build(path)
    with pytest.raises(StudyError, match="is not calibrated: run millstream index"):
        Calibration.read(Index.open(path))
    made = calibrate(path)
    kept = Calibration.read(Index.open(path))
    assert kept == made == calibrate(path)
    file = Index.open(path).folder / FILE
    stored(tmp_path / "balls.zarr", 45, first=40)
    build(path)
    with pytest.raises(StudyError, match="is not calibrated"):
        Calibration.read(Index.open(path))
    assert calibrate(path).entries == 45 * STEPS
    text = file.read_text()
    file.write_text(text.replace('"temperature": 0.', '"temperature": 1.'))
    with pytest.raises(RunError, match="its checksum is wrong"):
        Calibration.read(Index.open(path))
    file.write_text(text[:50])
    with pytest.raises(RunError, match=r"calibration\.json is damaged"):
        Calibration.read(Index.open(path))


def test_too_few_patients_say_nothing_about_fit(tmp_path: Path) -> None:
    path = stored(tmp_path / "balls.zarr", 4)
    build(path)
    made = calibrate(path)
    assert made.least_score is None
    assert made.fits(0.1) is None
    assert made.coverage == {}


def test_raters_move_a_boundary_by_as_much_as_they_say() -> None:
    spacing, random = 0.5, np.random.default_rng(0)
    half = np.zeros((160, 160), bool)
    half[80:] = True
    edges = []
    for _ in range(40):
        mask = moved(half, (spacing, spacing), random)
        edges.append((80 - mask.sum(0)) * spacing)  # from where it was [160]
    away = np.array(edges)
    assert abs(away.mean()) < 0.2
    assert away.std() == pytest.approx(calibration.NOISE, rel=0.2)
    lag = round(calibration.CORRELATION / spacing)
    correlation = np.corrcoef(away[:, :-lag].ravel(), away[:, lag:].ravel())[0, 1]
    assert correlation == pytest.approx(np.exp(-0.5), abs=0.2)


@pytest.mark.parametrize("grid", [(17,), (19, 11), (18, 9, 13)])
def test_moments_are_those_of_the_voxels(tmp_path: Path, grid: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    masks = [random.random((2, *grid)) < share for share in (0.0, 0.02, 0.5, 1.0)]
    with IndexWriter(tmp_path / "some.index", "hash", grid, {"core": (0.5, 0.6)}) as writer:
        for number, pair in enumerate(masks):
            writer.add(number, 0, pair)
        writer.commit()
    index = Index(tmp_path / "some.index")
    whole = (1,) * (3 - len(grid)) + grid
    places = index.cubes.sides, index.cubes.across, whole
    sums = np.zeros((len(masks), 2, 7), np.int64)
    arrays = [np.array(place) for place in places]
    moments(index.voxels, index.ends, np.arange(2), np.arange(len(masks)), *arrays, sums)
    for pair, found in zip(masks, sums, strict=True):
        for mask, values in zip(pair, found, strict=True):
            where = np.argwhere(mask.reshape(whole))
            assert values.tolist() == [len(where), *where.sum(0), *(where**2).sum(0)]


def test_values_are_moved_no_further_than_where_entries_are() -> None:
    random = np.random.default_rng(0)
    differences = random.normal(0, 0.3, (500, 3))
    values = 5 + differences @ [[1.0], [2.0], [0.0]]
    weights = np.ones(500)
    # Differences of 0 are what was observed: within the cloud the line is followed to there.
    within = _adjusted(values + 1, np.add(differences, [0.3, 0, 0]), weights)
    np.testing.assert_allclose(within, 6 - 0.3, atol=0.05)
    # Far from it, no further than so many deviations, whatever the distance.
    far = [
        _adjusted(values, np.add(differences, [0, shift, 0]), weights).mean() for shift in (30, 300)
    ]
    np.testing.assert_allclose(far, 5 - 2 * 0.3 * _REACH, atol=0.2)
