"""Simulations that are run to answer better: the local search, and growth around the best."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from framework.errors import RunError, StudyError
from framework.inverse.index.building import build
from framework.inverse.index.index import Index
from framework.inverse.inversions.fields import FieldInversion
from framework.inverse.inversions.inversion import merge
from framework.inverse.observed.fields import FieldObservation, ObservedField
from framework.inverse.refine.gradient import descend, refine_by_gradient
from framework.inverse.refine.growing import Growth, grow, grown_path, grown_store
from framework.inverse.refine.objective import FieldObjective, MaskObjective
from framework.inverse.refine.refinement import (
    Refinement,
    refine,
    scaled_by_bounds,
    stored_simulation,
    unscaled,
)
from framework.inverse.search.fields import search_fields
from framework.inverse.search.masks import MaskMatch, search_masks
from framework.store.attributes import solver_of
from framework.store.owner import Store
from framework.store.reader import StoreReader
from framework.study import versions
from framework.study.design import Design, Simulation
from framework.study.fingerprint import fingerprint
from framework.study.sections import DesignConfig, EnsembleConfig, StoreConfig
from solvers.base import Field, Grid, ImagedSolver, Order, Parameter, ParameterSpace, Solver
from surrogates.base import Problem, Surrogate

pytestmark = pytest.mark.usefixtures("_ray")

POINTS, STEPS = (12, 10), 4
MASKS = {"core": (0.4, 0.6), "rim": (0.1, 0.2, 0.3)}
CONFIG = EnsembleConfig(actors=2)


class Blob(ImagedSolver):
    """A bump that widens in time; where `mishap` is named, not everywhere can it be simulated."""

    parameters = ParameterSpace(
        Parameter("x", 0, 12), Parameter("y", 0, 10), Parameter("width", 1, 5, prior="log_uniform")
    )
    fields = (Field("density"),)
    grid = Grid(POINTS, (1.0, 1.0))
    order = Order(1, 1)
    stored_steps = STEPS
    masks = MASKS

    def __init__(self, mishap: str = "none") -> None:
        self.mishap = mishap

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.linspace(0, 1, STEPS)

    def solve(self, parameters: NDArray[np.float64], seed: int) -> Iterator[NDArray[np.float32]]:
        x, y, width = parameters
        wrong = x > 6.5
        if wrong and self.mishap == "raises":
            raise ValueError("no blob there")
        if wrong and self.mishap == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        rows, columns = np.indices(POINTS)
        for t in self.times(parameters):
            distance = ((rows - x) ** 2 + (columns - y) ** 2) / (width * (0.5 + t)) ** 2
            density = np.exp(-distance).astype(np.float32)[None]
            yield density * np.nan if wrong and self.mishap == "nan" else density

    def observe(
        self, fields: NDArray[np.float32], **thresholds: float
    ) -> Mapping[str, NDArray[np.bool_]]:
        return {name: fields[0] >= value for name, value in thresholds.items()}


@pytest.fixture(scope="module")
def _ray(cluster: str) -> Iterator[None]:
    """One connection for all tests; solvers of this module are sent whole."""
    ray.init(cluster, log_to_driver=False)
    module = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(module)
    yield
    ray.cloudpickle.unregister_pickle_by_value(module)
    ray.shutdown()


def simulation(*parameters: float, id: int = 0) -> Simulation:
    return Simulation(id, np.array(parameters), id)


def fields_of(*parameters: float) -> NDArray[np.float32]:
    return np.stack(list(Blob().solve(np.array(parameters), 0)))


HIDDEN = fields_of(6.2, 4.4, 2.7)[2]
OBSERVED = {"core": HIDDEN[0] >= 0.6, "rim": HIDDEN[0] >= 0.2}
BY_MASKS = MaskObjective(OBSERVED, MASKS, {"core": 1.0, "rim": 2.0})
BY_FIELD = FieldObjective(
    FieldObservation({0: ObservedField(HIDDEN.ravel().astype(float), np.full(120, 10.0))})
)
STARTS = [simulation(5.5, 5.0, 2.2), simulation(5.0, 4.0, 2.0), simulation(6.4, 5.5, 3.5)]


def refined(
    objective: object = BY_MASKS, mishap: str = "none", seed: int = 3, **options: object
) -> Refinement:
    random = np.random.default_rng(seed)
    arguments = {"starts": STARTS, "evaluations": 50, "random": random, **options}
    make = partial(Blob, mishap)
    return refine(make, Blob.parameters, objective, config=CONFIG, **arguments)  # type: ignore[arg-type]


def write(path: Path, points: NDArray[np.float64], solver: str = "Blob") -> StoreReader:
    """A store of Blob's simulations."""
    identity = {
        "solver": {"name": f"{__name__}:{solver}", "mishap": "none"},
        "fields": {"density": "1"},
        "grid": {"shape": list(POINTS)},
        "design": {"sampler": "sobol", "bounds": {"x": [0, 12]}},
        "seed": 5,
        "streams": versions.STREAMS,
        "code": fingerprint(Blob()),
        "store": {"keep": "all", "dtype": "float32"},
    }
    store = Store.open(str(path), StoreConfig(), identity, Blob(), len(points))
    writer = store.writer()
    for id, parameters in enumerate(points):
        for step, fields in enumerate(Blob().solve(parameters, 0)):
            writer.append(id, step, fields)
        writer.finish(id)
        store.commit(id, parameters)
    store.flush()
    store.close()
    return StoreReader(str(path))


def points(count: int, seed: int = 0) -> NDArray[np.float64]:
    return Blob.parameters.from_unit(np.random.default_rng(seed).random((count, 3)))


# Rating


def test_simulations_are_rated_as_the_entries_of_an_index(tmp_path: Path) -> None:
    reader = write(tmp_path / "blob.zarr", points(12))
    build(reader.path)
    index, solver = Index.open(reader), solver_of(reader)
    for observed in (OBSERVED, {"rim": OBSERVED["rim"]}, {"core": np.zeros(POINTS, bool)}):
        weights = {name: 1.0 + len(name) for name in observed}
        objective = MaskObjective(observed, MASKS, weights)
        for match in search_masks(index, observed, weights, index.entries).matches:
            rating = objective.rate(solver, reader.fields(match.simulation)[match.position])
            assert (rating.score, rating.thresholds, rating.dice) == (
                match.score,
                match.thresholds,
                match.dice,
            )


# Refinement


@pytest.mark.parametrize("objective", [BY_MASKS, BY_FIELD], ids=["masks", "field"])
def test_a_search_finds_better_parameters(objective: MaskObjective | FieldObjective) -> None:
    told = []
    found = refined(objective, tell=lambda count, score: told.append((count, score)))
    assert found.start.parameters.tolist() == [5.5, 5.0, 2.2]
    gap = objective.rate(Blob(), HIDDEN).score - found.start.rating.score
    left = objective.rate(Blob(), HIDDEN).score - found.best.rating.score
    assert left < 0.2 * gap
    assert told[-1] == (found.evaluations, found.best.rating.score)
    assert found.evaluations <= 50
    assert found.failed == 0
    # What is told of the best is what its simulation has.
    best = found.best
    fields = fields_of(*best.parameters)
    ratings = [objective.rate(Blob(), values) for values in fields]
    assert best.rating == max(ratings, key=lambda rating: rating.score) == ratings[best.step]
    assert best.time == Blob().times(best.parameters)[best.step]


def test_the_same_seed_finds_the_same() -> None:
    first = refined()
    np.random.seed(1)
    again, other = refined(), refined(seed=4)
    np.testing.assert_array_equal(first.best.parameters, again.best.parameters)
    assert first.best.rating == again.best.rating
    assert (other.best.parameters != first.best.parameters).any()


def test_a_search_is_never_worse_than_its_start() -> None:
    found = refined(starts=[simulation(6.2, 4.4, 2.7)], evaluations=20)
    assert found.start.rating.score == found.best.rating.score == 1.0
    np.testing.assert_array_equal(found.best.parameters, [6.2, 4.4, 2.7])
    assert found.best.step == 2


def test_a_budget_of_one_simulates_the_start_alone() -> None:
    found = refined(evaluations=1)
    assert found.evaluations == 1
    assert found.best is found.start


@pytest.mark.parametrize("mishap", ["raises", "nan", "dies"])
def test_simulations_that_fail_are_not_the_end(mishap: str) -> None:
    # A wide search right at the edge of what can be simulated.
    starts = [simulation(6.4, 5.0, 2.2), simulation(2.0, 5.0, 2.2)]
    found = refined(BY_FIELD, mishap, starts=starts, evaluations=8)
    assert 0 < found.failed < found.evaluations
    assert found.best.rating.score >= found.start.rating.score
    assert found.best.parameters[0] <= 6.5


def test_a_start_that_cannot_be_simulated_is_told() -> None:
    with pytest.raises(RunError, match=r"simulation 7, cannot be simulated again.*no blob there"):
        refined(mishap="raises", starts=[simulation(8, 5, 2, id=7)])


def test_a_time_that_no_simulation_stores_is_told() -> None:
    late = FieldObjective(replace(BY_FIELD.observation, time=3.0))
    with pytest.raises(RunError, match="no stored time is that of the observation"):
        refined(late)


def test_only_the_time_of_the_observation_counts() -> None:
    found = refined(FieldObjective(replace(BY_FIELD.observation, time=1 / 3)), evaluations=20)
    assert found.start.step == found.best.step == 1


SPACE = ParameterSpace(Parameter("a", -3, 5), Parameter("b", 1e-4, 10, prior="log_uniform"))


@given(unit=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_scaled_parameters_map_back(unit: tuple[float, float]) -> None:
    values = unscaled(SPACE, np.array(unit))
    np.testing.assert_allclose(values, SPACE.from_unit(np.array(unit)), rtol=1e-12)
    np.testing.assert_allclose(scaled_by_bounds(SPACE, values), unit, atol=1e-12)


# Refinement by gradients


class Exact(Surrogate):
    """Blob itself, as a function of conditions between -1 and 1."""

    def forward(self, conditions: Tensor, state: Tensor) -> Tensor:
        parts = (conditions.T + 1) / 2
        x, y, t = 12 * parts[0], 10 * parts[1], parts[3]
        width = (5 ** parts[2] * (0.5 + t))[:, None, None]
        rows, columns = map(torch.from_numpy, np.indices(POINTS))
        across, along = rows - x[:, None, None], columns - y[:, None, None]
        return torch.exp(-(across**2 + along**2) / width**2)[:, None]


class Wrong(Exact):
    """It is off by two points."""

    def forward(self, conditions: Tensor, state: Tensor) -> Tensor:
        return super().forward(conditions, state).roll(2, 2)


def surrogate(kind: type[Surrogate] = Exact, **changes: object) -> Surrogate:
    space = Blob.parameters
    problem = Problem(
        names=space.names,
        low=tuple(space.low.tolist()),
        high=tuple(space.high.tolist()),
        log=tuple(space.log.tolist()),
        times=(0.0, 1.0),
        steps=(1 / 3, 1 / 3),
        channels=1,
        grid=POINTS,
        static=np.zeros((0, *POINTS), np.float32),
    )
    return kind(replace(problem, **changes), "direct")  # type: ignore[arg-type]


AROUND = np.array([[64, 74], [43, 53], [86, 87], [22, 23]])
SHARES = np.array([[1.0, 0.0], [0.5, 0.5], [0.1, 0.9], [0.25, 0.75]])
SENSORS = ObservedField(
    (HIDDEN.ravel()[AROUND] * SHARES).sum(1), np.array([5.0, 10.0, 10.0, 20.0]), AROUND, SHARES
)
MASKED = ObservedField(HIDDEN.ravel()[30:100].astype(float), np.full(70, 10.0), np.arange(30, 100))


@pytest.mark.parametrize("seen", [SENSORS, MASKED, *BY_FIELD.observation.fields.values()])
def test_gradients_of_a_surrogate_lead_to_better_parameters(seen: ObservedField) -> None:
    starts = [(start, step) for start, step in zip(STARTS, (2, 1, 2), strict=True)]
    observation = FieldObservation({0: seen})
    found = refine_by_gradient(surrogate(), Blob, observation, starts, CONFIG)
    assert found.evaluations == 4
    assert found.failed == 0
    assert -found.best.rating.score < 1e-3 * -found.start.rating.score
    if seen is not SENSORS:
        np.testing.assert_allclose(found.best.parameters, [6.2, 4.4, 2.7], rtol=1e-2)
        assert found.best.step == 2


def test_the_solver_has_the_last_word() -> None:
    starts = [(simulation(6.2, 4.4, 2.7), 2)]
    found = refine_by_gradient(surrogate(Wrong), Blob, BY_FIELD.observation, starts, CONFIG)
    assert found.best is found.start


def test_gradients_stay_within_what_was_trained() -> None:
    narrow = surrogate(high=(5.8, 10.0, 5.0))
    points = descend(narrow, Blob(), BY_FIELD.observation, [(STARTS[0], 2)])
    assert points[0, 0] <= 5.8


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"names": ("x", "y", "size")}, "another solver than the store: parameters .*size"),
        ({"channels": 2}, "fields 2 instead of 1"),
        ({"grid": (4, 4)}, "grid .* instead of"),
    ],
)
def test_a_surrogate_of_another_solver_is_refused(
    changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(StudyError, match=sentence):
        refine_by_gradient(
            surrogate(**changes), Blob, BY_FIELD.observation, [(STARTS[0], 2)], CONFIG
        )


def test_an_autoregressive_surrogate_is_refused() -> None:
    stepping = Exact(surrogate().problem, "autoregressive")
    with pytest.raises(StudyError, match=r"is autoregressive: .* needs one in mode direct"):
        refine_by_gradient(stepping, Blob, BY_FIELD.observation, [(STARTS[0], 2)], CONFIG)


# Growth


def grown(
    reader: StoreReader, new: NDArray[np.float64], make: Callable[[], Solver] = Blob
) -> Growth:
    return grow(reader, make, new, EnsembleConfig(actors=1))


def check(path: str, ids: tuple[int, ...], parameters: NDArray[np.float64]) -> None:
    reader = StoreReader(path)
    for id, values in zip(ids, parameters, strict=True):
        np.testing.assert_array_equal(reader.parameters[id], values)
        np.testing.assert_array_equal(reader.fields(id)[:, 0], fields_of(*values)[:, 0])


def test_growth_adds_to_a_store_beside_the_store(tmp_path: Path) -> None:
    reader = write(tmp_path / "blob.zarr", points(5))
    first = grown(reader, points(3, seed=1))
    assert first.path == grown_path(reader.path) == str(tmp_path / "blob.grown.zarr")
    assert first.simulations == (0, 1, 2)
    # What a killed growth has left: a simulation that is written but not complete.
    growing = StoreReader(first.path)
    store = Store.open(first.path, StoreConfig(), growing.study, Blob(), 5)
    writer = store.writer()
    for step, fields in enumerate(fields_of(*points(1, seed=9)[0])):
        writer.append(3, step, fields)
    writer.finish(3)
    store.close()
    second = grown(reader, points(2, seed=2))
    assert second.simulations == (3, 4)
    check(first.path, first.simulations, points(3, seed=1))
    check(first.path, second.simulations, points(2, seed=2))
    assert StoreReader(reader.path).complete.tolist() == list(range(5))
    assert isinstance(solver_of(StoreReader(first.path)), Blob)


def test_other_code_adds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = write(tmp_path / "blob.zarr", points(2))
    monkeypatch.setattr(Blob, "version", 2)
    with pytest.raises(StudyError, match="by other code: the solver's version was 1 and is 2"):
        grown(reader, points(1))
    assert not Path(grown_path(reader.path)).exists()


def test_answers_over_both_stores_are_exact(tmp_path: Path) -> None:
    base = write(tmp_path / "blob.zarr", points(6))
    # One of them is in the store, too: equal distances.
    new = np.concatenate([points(6)[2:3], points(3, seed=1)])
    both = [base, StoreReader(grown(base, new).path)]
    observation = BY_FIELD.observation
    expected = sorted(
        (observation.distance(fields), number, simulation, step)
        for number, reader in enumerate(both)
        for simulation in reader.complete.tolist()
        for step, fields in enumerate(reader.fields(simulation))
    )
    for top in (1, 7, 16):
        answers = [search_fields(reader, observation, top).matches for reader in both]
        merged = merge(answers, lambda match: match.distance, top)
        assert [(m.distance, n, m.simulation, m.position) for n, m in merged] == expected[:top]
    for reader in both:
        build(reader.path)
    found = [search_masks(Index.open(reader), OBSERVED, None, 16).matches for reader in both]
    best: list[tuple[int, MaskMatch]] = merge(found, lambda match: -match.score, 3)
    scores = sorted((match.score for answer in found for match in answer), reverse=True)
    assert [match.score for _, match in best] == scores[:3]


def test_points_that_cannot_be_simulated_are_told(tmp_path: Path) -> None:
    reader = write(tmp_path / "blob.zarr", points(2))
    new = np.array([[8.0, 5, 2], [3, 5, 2], [9, 5, 2]])
    growth = grown(reader, new, partial(Blob, "raises"))
    assert growth.simulations == (1,)
    assert growth.failed == 2
    assert "no blob there" in growth.error
    check(growth.path, (1,), new[1:2])
    with pytest.raises(RunError, match=r"none of the 1 simulations succeeded.*no blob there"):
        grown(reader, new[:1], partial(Blob, "raises"))
    # The places of those that failed are free.
    assert grown(reader, points(2)).simulations == (0, 2)


def test_a_store_grown_from_another_one_is_refused(tmp_path: Path) -> None:
    grown(write(tmp_path / "blob.zarr", points(2)), points(1))
    (tmp_path / "blob.zarr").rename(tmp_path / "old.zarr")
    reader = write(tmp_path / "blob.zarr", points(2), solver="Other")
    for use in (grown_store, lambda reader: grown(reader, points(1))):
        with pytest.raises(StudyError, match=r"blob\.grown\.zarr was not grown from the store"):
            use(reader)


def test_half_a_grown_store_is_none(tmp_path: Path) -> None:
    """As a growth leaves it that was killed at its beginning."""
    reader = write(tmp_path / "blob.zarr", points(2))
    assert grown_store(reader) is None
    (tmp_path / "blob.grown.zarr").mkdir()
    assert grown_store(reader) is None
    grown(reader, points(1))
    found = grown_store(reader)
    assert found is not None
    assert found.complete.tolist() == [0]


def test_a_grown_store_may_have_fewer_entries_at_the_time_of_an_observation(tmp_path: Path) -> None:
    reader = write(tmp_path / "blob.zarr", points(5))
    grown(reader, points(2, seed=1))
    np.savez(tmp_path / "seen.npz", density=HIDDEN[0], time=1.0)
    found = FieldInversion(reader.path, tmp_path / "seen.npz", 5)
    assert found.entries == 5 + 2
    assert [reader.steps[match.position] for reader, match in found.matches] == [STEPS - 1] * 5


def test_a_stored_simulation_has_the_seed_of_its_design(tmp_path: Path) -> None:
    reader = write(tmp_path / "blob.zarr", points(3))
    design = Design(DesignConfig(simulations=3), Blob.parameters, 5)
    stored = stored_simulation(reader, 2)
    assert (stored.id, stored.seed) == (2, design.training(2).seed)
    np.testing.assert_array_equal(stored.parameters, points(3)[2])
