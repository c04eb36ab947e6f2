"""What an observation tells: weights are what the likelihood says, and estimates are near it."""

import json
from pathlib import Path

import numpy as np
import pytest
from balls import (
    BALLS,
    SIMULATIONS,
    STEPS,
    THRESHOLDS,
    ball,
    patient,
    seen_exactly,
    stored_balls,
)
from numpy.typing import NDArray

from framework.errors import StudyError
from framework.inverse.index.building import build
from framework.inverse.index.index import Index
from framework.inverse.posterior.particles import REACH, Particles, regressed
from framework.inverse.posterior.posterior import (
    Posterior,
    mean_and_deviation,
    points_around,
    posterior_of_fields,
)
from framework.inverse.search.fields import FieldAnswer
from framework.store.reader import StoreReader

TEMPERATURE = 0.05


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> StoreReader:
    path = stored_balls(tmp_path_factory.mktemp("posterior") / "balls.zarr", SIMULATIONS)
    build(path)
    return StoreReader(path)


@pytest.fixture(scope="module")
def index(reader: StoreReader) -> Index:
    return Index.open(reader)


def intervals(posterior: Posterior) -> NDArray[np.float64]:
    return np.array([estimate.interval_90 for estimate in posterior.quantities.values()])


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    voxels = int(one.sum()) + int(other.sum())
    return 2.0 * int((one & other).sum()) / voxels if voxels else 1.0


@pytest.mark.parametrize("names", [("core", "rim"), ("rim",)])
def test_weights_are_likelihoods_over_thresholds_drawn_evenly(
    index: Index, reader: StoreReader, names: tuple[str, ...]
) -> None:
    _, masks = patient(0)
    observed = {name: masks[name] for name in names}
    posterior = Particles(index, reader, BALLS, observed).at(TEMPERATURE)
    # Thresholds between 0.5 and 0.8 are nearest to 0.5 up to 0.55, and to 0.6 up to 0.7.
    shares = {"core": (0.05, 0.15, 0.1), "rim": (0.05, 0.15, 0.1)}
    expected: dict[tuple[int, ...], float] = {}
    for id in range(SIMULATIONS):
        for step, values in enumerate(BALLS.solve(ball(id), 0)):
            if step == 0:
                continue  # of radius 0
            likelihood = 1.0
            for name in names:
                masks_at = [
                    np.asarray(BALLS.observe(values, **{name: a})[name]) for a in THRESHOLDS[name]
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
    posterior = Particles(index, reader, BALLS, seen_exactly(ball(7))).at(0.01)
    assert posterior.keys[posterior.weights.argmax()].tolist() == [7, STEPS - 1]
    left_out = Particles(index, reader, BALLS, seen_exactly(ball(7)), leave_out=7)
    assert left_out.best < 1
    assert 7 not in left_out.at(0.01).keys[:, 0]


def test_estimates_lie_nearer_the_truth_than_the_entries_do(
    index: Index, reader: StoreReader
) -> None:
    truths, adjusted, plain = [], [], []
    for id in range(30):
        truth, masks = patient(id)
        posterior = Particles(index, reader, BALLS, masks).at(TEMPERATURE)
        simulations, steps = posterior.keys.T
        of_entries = BALLS.identifiable(reader.parameters[simulations], reader.t[0, steps])
        plain.append([posterior.weights @ quantity.values for quantity in of_entries.values()])
        adjusted.append([estimate.mean for estimate in posterior.quantities.values()])
        truths.append(truth)
    errors = [np.abs(np.subtract(values, truths)).mean(0) for values in (adjusted, plain)]
    assert (errors[0][2:] < 0.75 * errors[1][2:]).all()  # of the place
    assert errors[0][0] < errors[1][0]  # of the radius


def test_stretching_widens_intervals_about_their_median(index: Index, reader: StoreReader) -> None:
    _, masks = patient(1)
    particles = Particles(index, reader, BALLS, masks)
    plain, stretched = (particles.at(TEMPERATURE, s) for s in (None, {"x": 3.0, "radius": 2.0}))
    low, high = np.diff(intervals(plain))[:, 0], np.diff(intervals(stretched))[:, 0]
    assert high[2] == pytest.approx(3 * low[2])
    assert high[0] > 1.5 * low[0]
    np.testing.assert_array_equal(low[[1, 3]], high[[1, 3]])
    np.testing.assert_array_equal(plain.weights, stretched.weights)
    assert particles.at(0.02).effective < particles.at(0.2).effective


def test_sizes_stay_positive(index: Index, reader: StoreReader) -> None:
    posterior = Particles(index, reader, BALLS, seen_exactly(ball(3), 1)).at(0.1)
    assert (intervals(posterior)[:2] > 0).all()
    summary = posterior.summary()
    assert summary["radius"]["units"] == "mm"
    assert json.loads(json.dumps(summary)) == summary


def test_fields_are_the_weighted_mean_and_deviation(index: Index, reader: StoreReader) -> None:
    _, masks = patient(2)
    posterior = Particles(index, reader, BALLS, masks).at(TEMPERATURE)
    mean, deviation = mean_and_deviation(reader, posterior)
    every = np.stack(
        [list(BALLS.solve(ball(id), 0))[step] for id, step in posterior.keys.tolist()]
    ).astype(np.float64)
    expected = np.average(every, 0, posterior.weights)
    np.testing.assert_allclose(mean, expected, atol=1e-9)
    variance = np.average((every - expected) ** 2, 0, posterior.weights)
    np.testing.assert_allclose(deviation, np.sqrt(variance), atol=1e-6)


def test_distances_weigh_as_gaussian_noise_does(reader: StoreReader) -> None:
    keys = np.array([[id, 1] for id in range(40)])
    distances = np.linspace(9.0, 15.0, 40)
    answer = FieldAnswer((), 40, 40, 0.0, keys, distances)
    posterior = posterior_of_fields(reader, BALLS, answer)
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
    posterior = Particles(index, reader, BALLS, masks).at(TEMPERATURE)
    points = points_around(posterior, reader, BALLS, 50)
    space = BALLS.parameters
    assert points.shape == (50, 4)
    assert ((points >= space.low) & (points <= space.high)).all()
    assert len(np.unique(points, axis=0)) == 50
    np.testing.assert_array_equal(points, points_around(posterior, reader, BALLS, 50))
    # Places lie within a few mm of the truth, out of 32.
    assert (np.abs(points[:, 2:] - truth[2:]) < 12).all()
    assert (points[:, 2:].std(0) > 0.1).all()


def test_nothing_is_said_of_entries_in_which_nothing_has_grown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored_balls(tmp_path / "balls.zarr", 3)
    build(path)
    reader = StoreReader(path)
    monkeypatch.setattr(reader, "t", 0 * reader.t)
    with pytest.raises(StudyError, match="in none of the 9 entries"):
        Particles(Index.open(reader), reader, BALLS, patient(0)[1]).at(TEMPERATURE)


def test_values_are_moved_no_further_than_where_entries_are() -> None:
    random = np.random.default_rng(0)
    differences = random.normal(0, 0.3, (500, 3))
    values = 5 + differences @ [[1.0], [2.0], [0.0]]
    weights = np.ones(500)
    # Differences of 0 are what was observed: within the cloud the line is followed to there.
    within = regressed(values + 1, np.add(differences, [0.3, 0, 0]), weights)
    np.testing.assert_allclose(within, 6 - 0.3, atol=0.05)
    # Far from it, no further than so many deviations, whatever the distance.
    far = [
        regressed(values, np.add(differences, [0, shift, 0]), weights).mean() for shift in (30, 300)
    ]
    np.testing.assert_allclose(far, 5 - 2 * 0.3 * REACH, atol=0.2)
