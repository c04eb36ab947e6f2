"""The nearest entries to a field observation are those of brute force, ties included."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator

import framework.store.layout
from framework.errors import RunError, StudyError
from framework.inverse.observed.fields import FieldObservation
from framework.inverse.search.fields import FieldAnswer, search_fields
from framework.store.owner import Store
from framework.store.reader import StoreReader
from framework.study.sections import StoreConfig
from solvers.base import Field, Grid, Order, Parameter, ParameterSpace, Solver

STEPS, SIMULATIONS, INCOMPLETE = 5, 9, 4
GRIDS = [(7,), (4, 3), (2, 3, 1)]


class Counts(Solver):
    """Small whole numbers, the same for every third simulation: distances have no rounding."""

    parameters = ParameterSpace(Parameter("id", 0, 100))
    fields = (Field("height", "m"), Field("speed", "m/s"))
    order = Order(1, 1)
    stored_steps = STEPS

    def __init__(self, shape: tuple[int, ...] = (4, 3)) -> None:
        self.grid = Grid(shape, (0.5, 0.25, 2.0)[: len(shape)], "m")

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.linspace(0, 1 + parameters[0] % 2, STEPS)

    def solve(self, parameters: NDArray[np.float64], seed: int) -> Iterator[NDArray[np.float32]]:
        random = np.random.default_rng(int(parameters[0]) % 3)
        yield from random.integers(0, 3, (STEPS, 2, *self.grid.shape)).astype(np.float32)


def write(path: Path, solver: Solver, ids: list[int], **config: Any) -> StoreReader:
    made = StoreConfig(**config)
    identity = {
        "solver": {"name": "counts"},
        "fields": {"height": "m", "speed": "m/s"},
        "grid": {"shape": list(solver.grid.shape)},
    }
    store = Store.open(str(path), made, identity, solver, SIMULATIONS)
    writer = store.writer()
    for id in ids:
        parameters = np.array([float(id)])
        for step, fields in enumerate(solver.solve(parameters, 0)):
            writer.append(id, step, fields)
        writer.finish(id)
        store.commit(id, parameters)
    store.flush()
    store.close()
    return StoreReader(str(path))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Solver, StoreReader]]:
    """One for each grid, with two steps in a chunk and a simulation that is not complete."""
    made = []
    ids = [id for id in range(SIMULATIONS) if id != INCOMPLETE]
    types, kept_steps = ("float32", "float16", "float32"), ("all", "all", 2)
    for shape, dtype, keep in zip(GRIDS, types, kept_steps, strict=True):
        solver = Counts(shape)
        size = np.dtype(dtype).itemsize * int(np.prod(shape))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(framework.store.layout, "CHUNK_BYTES", 2 * size)
            path = tmp_path_factory.mktemp("fields") / "counts.zarr"
            made.append((solver, write(path, solver, ids, dtype=dtype, keep=keep)))
    assert len(made[0][1].chunks()) > 1
    return made


@pytest.fixture
def store(stores: list[tuple[Solver, StoreReader]]) -> tuple[Solver, StoreReader]:
    """Of the grid (4, 3)."""
    return stores[1]


def brute_force(
    solver: Solver, reader: StoreReader, arrays: dict[str, NDArray[Any]], top: int
) -> list[tuple[int, int, float]]:
    """(simulation, step, distance), from whole fields and loops, and scipy's interpolation."""
    axes = [np.arange(n) * h for n, h in zip(solver.grid.shape, solver.grid.spacing, strict=True)]
    found = []
    for simulation in reader.complete.tolist():
        for step, fields in enumerate(reader.fields(simulation).astype(np.float64)):
            if "time" in arrays and reader.t[simulation, step] != arrays["time"]:
                continue
            distance = 0.0
            for field, values in zip(solver.fields, fields, strict=True):
                if field.name not in arrays:
                    continue
                if f"{field.name}.positions" in arrays:
                    positions = arrays[f"{field.name}.positions"].copy()
                    long = [axis if len(axis) > 1 else np.array([0.0, 1.0]) for axis in axes]
                    for axis, along in enumerate(axes):
                        if len(along) == 1:
                            values = values.repeat(2, axis)
                    values = RegularGridInterpolator(long, values)(positions)
                mask = arrays.get(f"{field.name}.mask", np.ones(values.shape, bool))
                noise = arrays.get(f"{field.name}.noise", np.ones(()))
                error = ((values - arrays[field.name]) / noise)[mask]
                distance += float((error**2).sum())
            found.append((distance, simulation, step))
    return [(simulation, step, distance) for distance, simulation, step in sorted(found)[:top]]


def save(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path


def as_tuples(answer: FieldAnswer) -> list[tuple[int, int, float]]:
    return [(match.simulation, match.position, match.distance) for match in answer.matches]


@st.composite
def observations(draw: st.DrawFn, solver: Solver) -> dict[str, NDArray[Any]]:
    """Whole numbers, sensors at quarters of the spacing, noise of powers of 2."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    arrays: dict[str, NDArray[Any]] = {}
    for name in draw(st.sampled_from([["height"], ["speed"], ["height", "speed"]])):
        shape = solver.grid.shape
        kind = draw(st.sampled_from(["whole", "mask", "positions"]))
        if kind == "mask":
            arrays[f"{name}.mask"] = random.random(shape) < 0.5
            arrays[f"{name}.mask"].flat[0] = True
        if kind == "positions":
            m = draw(st.integers(1, 4))
            last = np.array(shape) - 1
            quarters = random.integers(0, 4 * last + 1, (m, len(shape)))
            arrays[f"{name}.positions"] = quarters / 4 * solver.grid.spacing
            shape = (m,)
        arrays[name] = random.integers(0, 3, shape).astype(np.float64)
        if kind == "mask":
            arrays[name][~arrays[f"{name}.mask"]] = np.nan
        noise = draw(st.sampled_from(["none", "one", "each"]))
        if noise != "none":
            size = () if noise == "one" else shape
            arrays[f"{name}.noise"] = 2.0 ** random.integers(-2, 3, size)
    if draw(st.booleans()):
        arrays["time"] = np.array(draw(st.sampled_from([0.0, 0.5, 1.0, 2.0])))
    return arrays


@pytest.mark.parametrize("which", range(len(GRIDS)))
@settings(max_examples=60)
@given(data=st.data())
def test_the_answer_is_that_of_brute_force(
    stores: list[tuple[Solver, StoreReader]],
    tmp_path_factory: pytest.TempPathFactory,
    which: int,
    data: st.DataObject,
) -> None:
    solver, reader = stores[which]
    arrays = data.draw(observations(solver))
    path = save(tmp_path_factory.getbasetemp() / "observed.npz", arrays)
    expected = brute_force(solver, reader, arrays, top=10**6)
    top = data.draw(st.integers(1, len(expected)))
    answer = search_fields(reader, FieldObservation.read(path, solver), top)
    assert as_tuples(answer) == expected[:top]
    assert answer.exact
    assert answer.entries == answer.refined == len(expected)


def test_equal_entries_come_in_the_order_of_simulations(
    store: tuple[Solver, StoreReader], tmp_path: Path
) -> None:
    solver, reader = store
    observed = reader.fields(5)[3]
    path = save(tmp_path / "f.npz", {"height": observed[0], "speed": observed[1]})
    answer = search_fields(reader, FieldObservation.read(path, solver), 3)
    assert as_tuples(answer) == [(2, 3, 0.0), (5, 3, 0.0), (8, 3, 0.0)]


def test_positions_are_in_mm_where_the_solver_has_an_affine(tmp_path: Path) -> None:
    solver = Counts((2, 3, 4))
    solver.affine = np.array([[0, -2, 0, 10], [3, 0, 0, -5], [0, 0, 4, 1], [0, 0, 0, 1]], float)
    values = np.random.default_rng(0).random((2, *solver.grid.shape))
    index = np.array([1, 2, 3])
    position = solver.affine[:3, :3] @ index + solver.affine[:3, 3]
    arrays = {"speed": [values[1][tuple(index)]], "speed.positions": [position]}
    observation = FieldObservation.read(save(tmp_path / "f.npz", arrays), solver)
    assert observation.distance(values) < 1e-20
    values[1, 1, 2, 3] += 2
    assert observation.distance(values) == pytest.approx(4)


WHOLE = {"height": np.zeros((4, 3))}
SENSORS = {"height": np.zeros(2), "height.positions": np.zeros((2, 2))}
BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "it has no field: it needs one of height, speed"),
    ({"time": 0.5}, "it has no field"),
    ({"depth": np.zeros((4, 3))}, "it has depth, but the solver's fields are height, speed"),
    ({"height.mask": np.ones((4, 3))}, "it has height.mask, but no height"),
    ({"height": np.zeros((3, 4))}, r"height has shape \(3, 4\): it has to be \(4, 3\), the grid"),
    ({"height": np.zeros((4, 3), complex)}, "height is of the type complex128"),
    ({**WHOLE, "height.mask": np.ones(4)}, r"height.mask has shape \(4,\)"),
    ({**WHOLE, "height.mask": np.full((4, 3), 0.5)}, "height.mask has other values than true"),
    ({**WHOLE, "height.mask": np.zeros((4, 3), bool)}, "nothing is observed of height"),
    ({"height": np.zeros(0), "height.positions": np.zeros((0, 2))}, "nothing is observed of"),
    ({"height": [[np.nan] * 3] * 4}, "height is not finite at 12 of 12 observed points"),
    ({**WHOLE, "height.noise": 0.0}, "height.noise is not a positive.* at 12 of 12"),
    ({**WHOLE, "height.noise": np.inf}, "height.noise is not a positive, finite"),
    ({**WHOLE, "height.noise": np.ones(3)}, r"height.noise has shape \(3,\)"),
    (
        {**SENSORS, "height.positions": [[0, 0], [1.6, 0.5]]},
        r"1 of 2 sensors in height.positions lie outside the grid, from 0 to \(1.5, 0.5\) m",
    ),
    ({**SENSORS, "height.positions": [[0, 0], [np.nan, 0.5]]}, "a position that is not finite"),
    ({**SENSORS, "height.positions": np.zeros((2, 3))}, r"has shape \(2, 3\)"),
    ({**SENSORS, "height": np.zeros(3)}, r"height has shape \(3,\): it has to be \(2,\)"),
    ({**SENSORS, "height.mask": np.ones(2)}, "height has a mask and positions"),
    ({**WHOLE, "time": np.nan}, "time has to be one finite number"),
    ({**WHOLE, "time": [0.0, 1.0]}, "time has to be one finite number"),
]


@pytest.mark.parametrize(("arrays", "sentence"), BAD)
def test_a_wrong_observation_is_refused(
    tmp_path: Path, arrays: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(StudyError, match=rf"f\.npz: .*{sentence}"):
        FieldObservation.read(save(tmp_path / "f.npz", arrays), Counts())


@pytest.mark.parametrize("cut", ["half", "flipped", "text", "empty", "npy", "pickle"])
def test_a_damaged_file_is_refused(tmp_path: Path, cut: str) -> None:
    path = save(tmp_path / "f.npz", {"height": np.ones((40, 30))})
    content = bytearray(path.read_bytes())
    if cut == "half":
        path.write_bytes(content[: len(content) // 2])
    elif cut == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif cut == "text":
        path.write_text("height: 1")
    elif cut == "empty":
        path.write_bytes(b"")
    elif cut == "npy":
        with path.open("wb") as file:
            np.save(file, np.ones((4, 3)))
    else:
        save(path, {"height": np.array([None])})
    with pytest.raises(StudyError, match=r"f\.npz is damaged or not a numpy \.npz file"):
        FieldObservation.read(path, Counts())


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"f\.npz cannot be read: there is no such file"):
        FieldObservation.read(tmp_path / "f.npz", Counts())
    with pytest.raises(StudyError, match="cannot be read: Is a directory"):
        FieldObservation.read(tmp_path, Counts())


def observed(tmp_path: Path, **arrays: Any) -> FieldObservation:
    return FieldObservation.read(save(tmp_path / "f.npz", {**WHOLE, **arrays}), Counts())


@pytest.mark.parametrize("top", [0, 41])
def test_more_than_the_entries_are_refused(
    store: tuple[Solver, StoreReader], tmp_path: Path, top: int
) -> None:
    with pytest.raises(StudyError, match=f"top is {top}: it has to be from 1 to 40"):
        search_fields(store[1], observed(tmp_path), top)


def test_a_time_that_is_not_stored_is_refused(
    store: tuple[Solver, StoreReader], tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=r"is 0\.3, at which .* the nearest stored time is 0\.25"):
        search_fields(store[1], observed(tmp_path, time=0.3), 1)


def test_a_distance_that_overflows_is_refused(
    store: tuple[Solver, StoreReader], tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match="the noise is too small"):
        search_fields(store[1], observed(tmp_path, **{"height.noise": 1e-200}), 1)


def test_a_store_without_a_complete_simulation_is_refused(tmp_path: Path) -> None:
    reader = write(tmp_path / "counts.zarr", Counts(), [])
    with pytest.raises(StudyError, match="has no complete simulation"):
        search_fields(reader, observed(tmp_path), 1)


def test_damage_to_the_store_is_noticed(tmp_path: Path) -> None:
    reader = write(tmp_path / "counts.zarr", Counts(), [0, 1, 2])
    chunk = tmp_path / "counts.zarr" / "height" / "c.1.0.0.0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(RunError, match="is damaged, height of simulation 1 cannot be read"):
        search_fields(reader, observed(tmp_path), 1)
    chunk.unlink()
    with pytest.raises(RunError, match="is damaged, height of simulation 1 cannot be read"):
        search_fields(reader, observed(tmp_path), 1)


def test_fields_that_were_not_observed_are_not_read(tmp_path: Path) -> None:
    reader = write(tmp_path / "counts.zarr", Counts(), [0, 1, 2])
    for chunk in (tmp_path / "counts.zarr" / "speed").glob("c.*"):
        chunk.unlink()
    assert search_fields(reader, observed(tmp_path), 1).entries == 3 * STEPS
