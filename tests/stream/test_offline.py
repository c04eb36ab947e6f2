"""From a store every window is drawn exactly once an epoch, in an order that the seed decides."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from framework.errors import RunError, StudyError
from framework.store.owner import Store
from framework.store.reader import StoreReader
from framework.stream.ledger import Ledger
from framework.stream.samples import Batch
from framework.stream.statistics import FieldStatistics
from framework.stream.stored import StoredSamples, check_source
from framework.study.sections import Keep, StoreConfig
from solvers.base import Field, Grid, Order, Parameter, ParameterSpace, Solver

STEPS, GRID = 5, (3, 2)
SIMULATIONS = (0, 2, 3, 4, 6, 7)  # those that are complete, of 9

IDENTITY: dict[str, Any] = {
    "format": 1,
    "solver": {"name": "ramp", "points": 3},
    "fields": {"u": "K", "v": "m"},
    "grid": {"shape": list(GRID), "spacing": [1.0, 1.0], "units": "m"},
    "stored_steps": STEPS,
    "design": {"sampler": "sobol", "bounds": {"a": [0, 1], "b": [0, 1]}},
    "seed": 0,
}


class Ramp(Solver):
    """Fields and times that tell the simulation and the step."""

    parameters = ParameterSpace(Parameter("a", 0, 1), Parameter("b", 0, 1))
    fields = (Field("u", "K"), Field("v", "m"))
    grid = Grid(GRID, (1.0, 1.0), "m")
    order = Order(1, 1)
    stored_steps = STEPS

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.linspace(parameters[0], parameters[0] + 1, STEPS)

    def solve(self, parameters: NDArray[np.float64], seed: int) -> Iterator[NDArray[np.float32]]:
        points = np.arange(2 * 3 * 2, dtype=np.float32).reshape(2, *GRID) / 64
        for step in range(STEPS):
            yield (points + parameters[0] + 100 * step).astype(np.float32)


def write(path: Path, keep: Keep = "all", simulations: tuple[int, ...] = SIMULATIONS) -> None:
    config, solver = StoreConfig(keep=keep), Ramp()
    store = Store.open(str(path), config, {**IDENTITY, "store": {"keep": keep}}, solver, 9)
    writer = store.writer()
    for id in simulations:
        parameters = np.array([id, -id], dtype=np.float64)
        for step, fields in enumerate(solver.solve(parameters, 0)):
            writer.append(id, step, fields)
        writer.finish(id)
        store.commit(id, parameters)
    store.flush()
    store.close()


@pytest.fixture(scope="module", autouse=True)
def _stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("stores")
    write(folder / "all", "all")
    write(folder / "last", "last")
    write(folder / "2", 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield
        reader.cache_clear()


@cache
def reader(keep: Keep) -> StoreReader:
    return StoreReader(str(keep))


def make(
    keep: Keep = "all",
    capacity: int = 1000,
    batch_size: int = 4,
    window: int = 1,
    epochs: int = 1,
    seed: int = 0,
    simulations: int | None = None,
) -> StoredSamples:
    ledger = Ledger(STEPS, window)
    return StoredSamples(reader(keep), ledger, capacity, batch_size, epochs, seed, simulations)


def ids(batch: Batch) -> list[tuple[int, int]]:
    """(simulation, first step) of a batch's samples; checks that its numbers are theirs."""
    found = list(zip(batch.simulation.tolist(), batch.first_step.tolist(), strict=True))
    window = batch.fields.shape[1]
    for row, (id, step) in enumerate(found):
        parameters = np.array([id, -id], dtype=np.float64)
        steps = slice(step, step + window)
        fields = np.stack(list(Ramp().solve(parameters, 0)))[steps]
        np.testing.assert_array_equal(batch.parameters[row], parameters)
        np.testing.assert_array_equal(batch.times[row], Ramp().times(parameters)[steps])
        np.testing.assert_array_equal(batch.fields[row], fields)
    assert batch.parameters.dtype == batch.times.dtype == batch.fields.dtype == torch.float32
    return found


def drain(samples: StoredSamples) -> list[list[tuple[int, int]]]:
    return [ids(batch) for batch in iter(samples.get, None)]


@st.composite
def ways(draw: st.DrawFn) -> dict[str, Any]:
    window = draw(st.integers(1, STEPS))
    keep: Keep = "all" if window > 1 else draw(st.sampled_from(["all", "last", 2]))
    windows = {"all": STEPS - window + 1, "last": 1, 2: 3}[keep]
    return {
        "keep": keep,
        "window": window,
        "capacity": draw(st.integers(windows, windows * (len(SIMULATIONS) + 1))),
        "batch_size": draw(st.integers(1, 40)),
        "epochs": draw(st.integers(1, 3)),
        "seed": draw(st.integers(0, 2**32)),
    }


@given(ways())
@settings(max_examples=30)
def test_every_window_exactly_once_an_epoch(way: dict[str, Any]) -> None:
    samples = make(**way)
    steps = {"all": range(STEPS - way["window"] + 1), "last": [STEPS - 1], 2: [0, 2, 4]}
    windows = {(id, step) for id in SIMULATIONS for step in steps[way["keep"]]}
    assert samples.samples == len(windows)
    batches = drain(samples)
    full, short = divmod(len(windows), way["batch_size"])
    sizes = [way["batch_size"]] * full + [short] * bool(short)
    assert [len(batch) for batch in batches] == sizes * way["epochs"]
    assert all(len(set(batch)) == len(batch) for batch in batches)
    for epoch in range(way["epochs"]):
        of_it = batches[epoch * len(sizes) : (epoch + 1) * len(sizes)]
        assert Counter(id for batch in of_it for id in batch) == Counter(windows)
    assert samples.received == len(windows)
    assert samples.get() is None


@given(ways(), st.data())
@settings(max_examples=30)
def test_goes_on_where_it_was(way: dict[str, Any], data: st.DataObject) -> None:
    first, count = make(**way), len(drain(make(**way)))
    for _ in range(data.draw(st.integers(0, count))):
        first.get()
    second = make(**way)
    second.load_state(first.state())
    assert second.received == first.received
    assert drain(second) == drain(first)
    assert second.received == first.received


@given(ways())
@settings(max_examples=30)
def test_memory_is_bounded(way: dict[str, Any]) -> None:
    samples = make(**way)
    assert len(samples) == 0
    while samples.get() is not None:
        assert 0 < len(samples) <= way["capacity"]


def test_the_seed_decides_the_order_and_epochs_differ() -> None:
    one = drain(make(epochs=2, seed=1))
    assert one == drain(make(epochs=2, seed=1))
    assert one != drain(make(epochs=2, seed=2))
    half = len(one) // 2
    assert one[:half] != one[half:]


def test_simulations_are_mixed_within_a_batch() -> None:
    batches = drain(make(batch_size=15))
    assert all(len({id for id, _ in batch}) > 2 for batch in batches)


def test_a_store_that_grew_changes_nothing_for_a_run_under_way(tmp_path: Path) -> None:
    def over() -> StoredSamples:
        source = StoreReader(str(tmp_path / "grows"))
        return StoredSamples(source, Ledger(STEPS, 2), 12, 4, 2, 0)

    write(tmp_path / "grows", simulations=SIMULATIONS[:4])
    first = over()
    first.get()
    write(tmp_path / "grows", simulations=SIMULATIONS[4:])
    second = over()
    assert second.samples == 6 * 4
    second.load_state(first.state())
    assert second.samples == 4 * 4
    assert drain(second) == drain(first)
    with pytest.raises(StudyError, match="lacks simulations that the run was trained on"):
        make().load_state({**first.state(), "simulations": torch.tensor([0, 1])})


def test_closed_it_ends_and_can_go_on_later() -> None:
    reference = drain(make(capacity=5))
    samples = make(capacity=5)
    begun = samples.get()
    assert begun is not None
    state = samples.state()
    samples.close()
    assert samples.get() is None
    assert samples.state()["position"] == state["position"]
    again = make(capacity=5)
    again.load_state(samples.state())
    assert [ids(begun), *drain(again)] == reference


@pytest.mark.parametrize("capacity", [1000, 8])
def test_the_statistics_are_of_whole_simulations_within_the_capacity(capacity: int) -> None:
    samples = make(capacity=capacity, window=2)
    statistics, seen = FieldStatistics(2), []
    for part in samples.statistics():
        statistics.add(part)
        seen += list(zip(part.simulation.tolist(), part.first_step.tolist(), strict=True))
    count = min(capacity // 4, len(SIMULATIONS))
    assert len(seen) == len(set(seen)) == 4 * count
    chosen = {id for id, _ in seen}
    assert len(chosen) == count
    windows = np.stack(
        [reader("all").fields(id)[step : step + 2] for id in chosen for step in range(4)]
    )
    mean, deviation, change = statistics.freeze()
    np.testing.assert_allclose(mean, windows.mean((0, 1, 3, 4)), rtol=1e-5)
    np.testing.assert_allclose(deviation, windows.std((0, 1, 3, 4)), rtol=1e-5)
    np.testing.assert_allclose(change, [[100, 100]], rtol=1e-5)
    assert drain(samples) == drain(make(capacity=capacity, window=2))


# What cannot be


def test_windows_of_consecutive_steps_need_every_step() -> None:
    keeps: tuple[Keep, ...] = ("last", 2)
    for keep in keeps:
        with pytest.raises(StudyError, match=f"store.keep is {keep}, .* with store.keep all"):
            make(keep, window=2)


def test_a_capacity_below_a_simulation_is_refused() -> None:
    with pytest.raises(StudyError, match=r"buffer\.capacity is 4: .* a whole simulation, 5 "):
        make(capacity=4)


def test_a_store_without_a_complete_simulation_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "none", simulations=())
    with pytest.raises(StudyError, match="no complete simulation: run `millstream simulate`"):
        StoredSamples(StoreReader(str(tmp_path / "none")), Ledger(STEPS, 1), 10, 1, 1, 0)


def test_a_damaged_store_is_an_error_and_what_was_drawn_stays_counted(tmp_path: Path) -> None:
    write(tmp_path / "damaged")
    (tmp_path / "damaged" / "u" / "c.3.0.0.0").unlink()
    source = StoreReader(str(tmp_path / "damaged"))
    samples = StoredSamples(source, Ledger(STEPS, 1), 5, 5, 1, 0)
    drawn = 0

    def draw() -> None:
        nonlocal drawn
        while batch := samples.get():
            drawn += len(batch)

    with pytest.raises(RunError, match="u of simulation 3 cannot be read"):
        draw()
    assert samples.state()["position"] == drawn


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"solver": {"name": "wave", "points": 3}}, "solver.name is ramp there and wave here"),
        ({"solver": {"name": "ramp", "points": 4}}, "solver.points is 3 there and 4 here"),
        ({"fields": {"u": "K"}}, "fields.v is m there and None here"),
        ({"grid": {**IDENTITY["grid"], "shape": [3, 3]}}, "grid.shape is"),
        ({"stored_steps": 6}, "stored_steps is 5 there and 6 here"),
        ({"design": {"bounds": {"a": [0, 1]}}}, "parameters is"),
    ],
)
def test_a_store_of_another_solver_is_refused(changes: dict[str, Any], difference: str) -> None:
    with pytest.raises(StudyError, match=r"training\.source is .* another solver") as refusal:
        check_source(reader("all"), {**IDENTITY, **changes})
    assert difference in str(refusal.value)


def test_a_store_of_another_design_will_do() -> None:
    design = {"sampler": "halton", "bounds": {"a": [0, 9], "b": [0, 1]}}
    check_source(reader("all"), {**IDENTITY, "seed": 5, "design": design})


@pytest.mark.parametrize("capacity", [1000, STEPS])
def test_of_a_store_only_the_first_simulations(capacity: int) -> None:
    samples = make(capacity=capacity, simulations=2, epochs=3)
    drawn = []
    while batch := samples.get():
        drawn += ids(batch)
    first = sorted(SIMULATIONS)[:2]
    expected = [(id, step) for id in first for step in range(STEPS)]
    assert sorted(drawn) == sorted(3 * expected)
    assert samples.samples == samples.received == len(expected)
    assert samples.identity["simulations"] == 2


def test_more_simulations_than_a_store_has_are_refused() -> None:
    with pytest.raises(StudyError, match=r"training.simulations is 9, but .* complete ones: lower"):
        make(simulations=9)
