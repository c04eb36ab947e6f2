"""What a store says is complete is right to the bit: real zarr, real processes, real damage."""

import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from forks import FORKS, start_forks
from numpy.typing import NDArray
from waiting import LIMIT

import framework.store.layout
from framework.errors import RunError, StudyError
from framework.store.owner import Store
from framework.store.reader import StoreReader
from framework.study import versions
from framework.study.identity import study_hash
from framework.study.sections import StoreConfig
from solvers.base import Field, Grid, Order, Parameter, ParameterSpace, Solver

STEPS, GRID = 11, (5, 4)
KILLS, SIMULATIONS = 50, 150


class Waves(Solver):
    """Numbers that are a function of the simulation's id, in its first parameter."""

    parameters = ParameterSpace(Parameter("id", 0, 1000), Parameter("pace", 0, 1, "m/s"))
    fields = (Field("height", "m"), Field("speed", "m/s"))
    grid = Grid(GRID, (0.5, 0.25), "m")
    order = Order(1, 1)
    stored_steps = STEPS

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.linspace(0, parameters[1], STEPS)

    def resolved(self, parameters: NDArray[np.float64]) -> bool:
        return bool(parameters[0] > 0)

    def solve(self, parameters: NDArray[np.float64], seed: int) -> Iterator[NDArray[np.float32]]:
        random = np.random.default_rng(int(parameters[0]))
        yield from random.standard_normal((STEPS, 2, *GRID), dtype=np.float32)


def parameters_of(id: int) -> NDArray[np.float64]:
    return np.array([id, 1 / (id + 3)])


def fields_of(id: int) -> NDArray[np.float32]:
    return np.stack(list(Waves().solve(parameters_of(id), 0)))


def same(seed: int = 0, **config: Any) -> dict[str, Any]:
    """The identity of a study."""
    made = StoreConfig(**config)
    return {
        "format": 1,
        "solver": {"name": "waves", "points": 5},
        "fields": {"height": "m", "speed": "m/s"},
        "grid": {"shape": list(GRID), "spacing": [0.5, 0.25], "units": "m"},
        "design": {"bounds": {"id": [0, 1000], "pace": [0, 1]}},
        "seed": seed,
        "streams": versions.STREAMS,
        "store": {"keep": made.keep, "dtype": made.dtype},
    }


def open_store(path: Path | str, simulations: int = 4, seed: int = 0, **config: Any) -> Store:
    made = StoreConfig(**config)
    return Store.open(str(path), made, same(seed, **config), Waves(), simulations)


def save(
    store: Store,
    ids: Iterable[int],
    event: Callable[[], None] = lambda: None,
    fields: Callable[[int], NDArray[np.float32]] = fields_of,
) -> None:
    """What a solver's process and then the training process do."""
    writer = pickle.loads(pickle.dumps(store.writer()))
    for id in ids:
        for step, values in enumerate(fields(id)):
            writer.append(id, step, values)
            event()
        writer.finish(id)
        event()
        store.commit(id, parameters_of(id))
        event()


def keep_all(path: Path | str, ids: Iterable[int], **options: Any) -> None:
    store = open_store(path, **options)
    save(store, ids)
    store.flush()
    store.close()


def check(reader: StoreReader, ids: Iterable[int]) -> None:
    for id in ids:
        np.testing.assert_array_equal(reader.fields(id), fields_of(id))
        np.testing.assert_array_equal(reader.parameters[id], parameters_of(id))
        np.testing.assert_array_equal(reader.t[id], Waves().times(parameters_of(id)))


@pytest.fixture
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framework.store.layout, "CHUNK_BYTES", 5 * 4 * np.prod(GRID))


@pytest.fixture(scope="module", autouse=True)
def _forks() -> None:
    start_forks(__file__)


def in_another_process(function: Callable[..., str], *arguments: Any) -> str:
    """What the function returns there."""
    ours, theirs = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=_send, args=(theirs, function, *arguments), daemon=True)
    process.start()
    theirs.close()
    assert ours.poll(LIMIT)
    answer: str = ours.recv()
    process.join(LIMIT)
    assert process.exitcode == 0
    return answer


def _send(connection: Connection, function: Callable[..., str], *arguments: Any) -> None:
    connection.send(function(*arguments))


# Layout


def test_xarray_opens_it(tmp_path: Path) -> None:
    keep_all(tmp_path / "a.zarr", [0, 2])
    data = xarray.open_zarr(tmp_path / "a.zarr")
    assert data.height.dims == data.speed.dims == ("simulation", "time", "axis_0", "axis_1")
    assert data.parameters.dims == ("simulation", "parameter")
    assert dict(data.sizes) == {
        "simulation": 4,
        "time": STEPS,
        "axis_0": 5,
        "axis_1": 4,
        "parameter": 2,
    }
    assert set(data.coords) == {"time", "t", "resolved", "complete", "parameter"}
    assert data.t.dims == ("simulation", "time")
    assert data.complete.values.tolist() == [True, False, True, False]
    assert data.resolved.values.tolist() == [False, False, True, False]  # 0 is not, 1 is not there
    assert data.time.values.tolist() == list(range(STEPS))
    assert data.speed.units == "m/s"
    assert data.parameters.units == {"id": "1", "pace": "m/s"}
    assert data.sel(parameter="pace").parameters.values[2] == parameters_of(2)[1]
    np.testing.assert_array_equal(data.height.values[2], fields_of(2)[:, 0])
    np.testing.assert_array_equal(data.speed.values[2], fields_of(2)[:, 1])
    np.testing.assert_array_equal(data.t.values[2], Waves().times(parameters_of(2)))
    assert np.isnan(data.height.values[1]).all()


def test_the_attributes_say_what_it_is_of(tmp_path: Path) -> None:
    keep_all(tmp_path / "a.zarr", [])
    attributes = xarray.open_zarr(tmp_path / "a.zarr").attrs
    assert attributes["solver"]["name"] == "waves"
    assert attributes["solver"]["settings"] == {"points": 5}
    assert attributes["solver"]["class"].endswith("test_store:Waves")
    assert attributes["grid"] == {"shape": [5, 4], "spacing": [0.5, 0.25], "units": "m"}
    assert attributes["fields"] == {"height": "m", "speed": "m/s"}
    assert attributes["affine"] is None
    assert attributes["hash"] == study_hash(same())
    assert {"millstream_format", "millstream_version", "keep", "dtype", "compression"} <= set(
        attributes
    )


@pytest.mark.usefixtures("_small_chunks")
@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
@pytest.mark.parametrize(
    ("keep", "steps"), [("all", range(STEPS)), ("last", [10]), (5, [0, 5, 10]), (1, range(STEPS))]
)
def test_keeps_the_steps_it_is_told_to(
    tmp_path: Path, keep: str | int, steps: Iterable[int], compression: str
) -> None:
    keep_all(tmp_path / "a.zarr", [0, 1], keep=keep, compression=compression)
    reader = StoreReader(str(tmp_path / "a.zarr"))
    kept = list(steps)
    assert reader.steps.tolist() == kept
    for id in (0, 1):
        np.testing.assert_array_equal(reader.fields(id), fields_of(id)[kept])
        np.testing.assert_array_equal(reader.t[id], Waves().times(parameters_of(id))[kept])


def test_a_chunk_is_of_one_simulation_and_about_as_large_as_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = 4 * 5 * 4
    for number, (limit, steps) in enumerate([(1, 1), (5 * step, 4), (11 * step, 11), (10**9, 11)]):
        monkeypatch.setattr(framework.store.layout, "CHUNK_BYTES", limit)
        keep_all(tmp_path / str(number), [])
        group = zarr.open_group(tmp_path / str(number), mode="r")
        height = group["height"]
        assert isinstance(height, zarr.Array)
        assert height.chunks == (1, steps, 5, 4)


def test_half_precision(tmp_path: Path) -> None:
    store = open_store(tmp_path / "a.zarr", dtype="float16")
    writer = store.writer()
    with pytest.raises(ValueError, match=r"value of 1e\+06, but store.dtype is float16"):
        writer.append(1, 0, np.full((2, *GRID), 1e6, dtype=np.float32))
    writer.forget(1)
    scales = np.logspace(4, -12, STEPS, dtype=np.float32)[:, None, None, None]
    save(store, [0, 1], fields=lambda id: fields_of(id) * scales)
    store.close()
    reader = StoreReader(str(tmp_path / "a.zarr"))
    assert reader.complete.tolist() == [0, 1]
    for id in (0, 1):
        half = (fields_of(id) * scales).astype(np.float16)
        np.testing.assert_array_equal(reader.fields(id), half)


def test_a_field_may_not_be_named_as_one_of_its_arrays(tmp_path: Path) -> None:
    class Unlucky(Waves):
        fields = (Field("height"), Field("complete"))

    with pytest.raises(StudyError, match="a field of the solver is named complete"):
        Store.open(str(tmp_path / "a.zarr"), StoreConfig(), same(), Unlucky(), 4)


def test_a_url(tmp_path: Path) -> None:
    for url in (f"memory://{tmp_path.name}/a.zarr", f"file://{tmp_path}/a.zarr"):
        keep_all(url, [0])
        keep_all(url, [5], simulations=6)
        reader = StoreReader(url)
        assert reader.complete.tolist() == [0, 5]
        check(reader, [0, 5])
        store = open_store(url)
        assert store.bytes() > fields_of(0).nbytes
        store.close()
    assert (tmp_path / "a.zarr").is_dir()
    with pytest.raises(StudyError, match=r"nowhere://a.zarr cannot be used: .*nowhere"):
        open_store("nowhere://a.zarr")


def test_a_solver_process_imports_little() -> None:
    there = "{'torch', 'ray', 'xarray', 'pydantic'} & set(sys.modules)"
    code = f"import framework.store.writer, sys; assert not {there}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LIMIT)


# Killed


def _write_all(path: Path, events: Connection | None = None) -> str:
    framework.store.layout.CHUNK_BYTES = 5 * 4 * int(np.prod(GRID))

    def event() -> None:
        if events is not None:
            events.send_bytes(b".")

    event()
    store = open_store(path, SIMULATIONS)
    event()
    save(store, sorted(set(range(SIMULATIONS)) - store.completed), event)
    store.flush()
    store.close()
    return "written"


def test_what_is_complete_is_right_after_any_kill(tmp_path: Path) -> None:
    path, random = tmp_path / "a.zarr", np.random.default_rng(0)
    complete: set[int] = set()
    for _ in range(KILLS):
        # After so many events and up to 20 ms.
        _kill_after(path, int(random.integers(1, 60)), random.uniform(0, 0.02))
        try:
            reader = StoreReader(str(path))
        except StudyError:  # not created yet
            assert not complete
            continue
        assert complete <= set(reader.complete.tolist())
        check(reader, set(reader.complete.tolist()) - complete)
        complete = set(reader.complete.tolist())
    assert complete
    assert in_another_process(_write_all, path) == "written"
    reader = StoreReader(str(path))
    assert reader.complete.tolist() == list(range(SIMULATIONS))
    check(reader, reader.complete.tolist())
    assert not list(path.rglob("*.partial"))


def _kill_after(path: Path, events: int, seconds: float) -> None:
    ours, theirs = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=_write_all, args=(path, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        for _ in range(events):
            assert ours.poll(LIMIT)
            ours.recv_bytes()
    except EOFError:  # it has come to its end
        pass
    process.join(seconds)
    assert process.pid is not None
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join(LIMIT)
    assert process.exitcode in (0, -signal.SIGKILL)


def test_a_creation_may_be_killed(tmp_path: Path) -> None:
    for number in range(10):
        path = tmp_path / f"{number}.zarr"
        _kill_after(path, 1, 0.004 * number)
        keep_all(path, [0], simulations=SIMULATIONS)
        check(StoreReader(str(path)), [0])


def test_a_killed_creation_is_made_good(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    path.mkdir()
    (path / "zarr.0123.partial").touch()
    keep_all(path, [0])
    group = zarr.open_group(path, mode="r+")
    del group.attrs["hash"]  # it is written last
    with pytest.raises(StudyError, match="is not a store of millstream's format"):
        StoreReader(str(path))
    keep_all(path, [1])
    assert StoreReader(str(path)).complete.tolist() == [1]


def test_a_simulation_that_starts_anew_is_written_anew(tmp_path: Path) -> None:
    store = open_store(tmp_path / "a.zarr")
    writer = store.writer()
    for step in range(3):
        writer.append(1, step, fields_of(2)[step])
    save(store, [0])
    for step in range(STEPS):  # without a word that the first attempt has failed
        writer.append(1, step, fields_of(1)[step])
    writer.finish(1)
    store.commit(1, parameters_of(1))
    store.close()
    check(StoreReader(str(tmp_path / "a.zarr")), [0, 1])


def test_neither_what_is_complete_nor_what_is_held_out_is_written(tmp_path: Path) -> None:
    keep_all(tmp_path / "a.zarr", [0, 1])
    store = open_store(tmp_path / "a.zarr")
    save(store, [0, 1, 2], fields=lambda id: fields_of(2))
    writer = store.writer()
    writer.append(-1, 0, fields_of(0)[0])
    writer.finish(-1)
    store.close()
    check(StoreReader(str(tmp_path / "a.zarr")), [0, 1, 2])


# Continued, or refused


def test_the_same_study_goes_on_with_more_simulations(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    keep_all(path, [0, 3])
    store = open_store(path, 2000)
    assert store.completed == {0, 3}
    assert [store.count(below) for below in (0, 1, 3, 4, 2000)] == [0, 1, 1, 2, 2]
    save(store, [1, 1999])
    store.flush()
    assert store.completed == {0, 1, 3, 1999}
    assert [store.count(below) for below in (2, 4, 1999, 2000)] == [2, 3, 3, 4]
    assert store.identity == {
        "path": str(path),
        "simulations": 4,
        "hash": study_hash(same()),
    }
    store.close()
    assert len(xarray.open_zarr(path).complete) == 2000
    keep_all(path, [2], simulations=3)  # fewer: nothing shrinks
    reader = StoreReader(str(path))
    assert reader.complete.tolist() == [0, 1, 2, 3, 1999]
    check(reader, reader.complete.tolist())
    assert reader.identity == {"path": str(path), "simulations": 5, "hash": study_hash(same())}


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"keep": 2}, "store.keep is all there and 2 here"),
        ({"dtype": "float16"}, "store.dtype is float32 there and float16 here"),
    ],
)
def test_another_study_is_refused(tmp_path: Path, options: dict[str, Any], difference: str) -> None:
    keep_all(tmp_path / "a.zarr", [0])
    with pytest.raises(StudyError, match=difference) as refusal:
        open_store(tmp_path / "a.zarr", **options)
    assert str(tmp_path / "a.zarr") in str(refusal.value)
    assert "set store.path to another place, or store.keep to none" in str(refusal.value)
    keep_all(tmp_path / "a.zarr", [1])  # and the lock is not held any more


def test_what_is_not_a_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("text")
    zarr.create_group(tmp_path / "group", attributes={"title": "theirs"})
    zarr.create_array(tmp_path / "array", shape=(3,), dtype="int64")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "zarr.json").write_text("{")
    for name in ("file", "folder", "group", "array", "broken", "file/below"):
        with pytest.raises(StudyError, match="store"):
            open_store(tmp_path / name)
        with pytest.raises(StudyError, match="is not a store"):
            StoreReader(str(tmp_path / name))
    assert (tmp_path / "folder" / "notes.txt").read_text() == "text"
    assert zarr.open_group(tmp_path / "group", mode="r").attrs.asdict() == {"title": "theirs"}
    with pytest.raises(StudyError, match="is not a store"):
        StoreReader(str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_a_second_owner_is_refused(tmp_path: Path) -> None:
    first = open_store(tmp_path / "a.zarr")
    with pytest.raises(RunError, match=r"another run is writing .*a\.zarr\.lock"):
        open_store(tmp_path / "a.zarr")
    save(first, [0])
    first.close()
    keep_all(tmp_path / "a.zarr", [1])
    check(StoreReader(str(tmp_path / "a.zarr")), [0, 1])


# The owner


def test_commits_from_many_threads(tmp_path: Path) -> None:
    store, ids = open_store(tmp_path / "a.zarr", 150), list(range(150))
    writer = store.writer()
    for id in ids:
        for step, values in enumerate(fields_of(id)):
            writer.append(id, step, values)
        writer.finish(id)
    threads = [
        threading.Thread(
            target=lambda part: deque(map(store.commit, part, map(parameters_of, part))),
            args=(ids[first::3],),
        )
        for first in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    store.flush()
    assert store.completed == set(ids)
    on_disk = StoreReader(str(tmp_path / "a.zarr"))
    assert on_disk.complete.tolist() == ids
    check(on_disk, ids)
    store.close()


def _beyond_a_limit(path: Path) -> str:
    """As with a full disk: files may not grow beyond what is large enough for the small arrays."""
    store = open_store(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
    try:
        save(store, [1])
    except RunError as error:
        message = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    save(store, [2])
    store.close()
    return message


def _commits_beyond_a_limit(path: Path) -> str:
    store = open_store(path)
    writer = store.writer()
    for step, values in enumerate(fields_of(3)):
        writer.append(3, step, values)
    writer.finish(3)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
    store.commit(3, parameters_of(3))
    messages = []
    for action in (store.flush, lambda: store.commit(2, parameters_of(2))):
        try:
            action()
        except RunError as error:
            messages.append(str(error))
    store.close()
    return " / ".join(messages)


def test_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    keep_all(path, [0])
    message = in_another_process(_beyond_a_limit, path)
    assert f"the store {path} cannot be written: File too large" in message
    assert StoreReader(str(path)).complete.tolist() == [0, 2]
    message = in_another_process(_commits_beyond_a_limit, path)
    assert message.count("File too large") == 2
    assert "of those that were computed 1 are not marked complete" in message
    assert StoreReader(str(path)).complete.tolist() == [0, 2]
    keep_all(path, [1, 3])
    check(StoreReader(str(path)), range(4))


def _as_nobody(path: Path) -> str:
    if os.geteuid() == 0:
        os.setuid(65534)
    try:
        open_store(path)
    except StudyError as error:
        return str(error)
    return "opened"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    message = in_another_process(_as_nobody, tmp_path / "locked" / "a.zarr")
    assert f"{tmp_path}/locked/a.zarr cannot be written: Permission denied" in message


# Damage


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("compression", ["none", "lz4"])
@pytest.mark.parametrize("damage", [_flip, _halve, _empty, Path.unlink])
def test_damage_is_noticed(
    tmp_path: Path, damage: Callable[[Path], None], compression: str
) -> None:
    path = tmp_path / "a.zarr"
    keep_all(path, [0, 1], compression=compression)
    damage(path / "speed" / "c.1.0.0.0")
    reader = StoreReader(str(path))
    with pytest.raises(RunError, match="is damaged, speed of simulation 1 cannot be read"):
        reader.fields(1)
    np.testing.assert_array_equal(reader.fields(0), fields_of(0))


@pytest.mark.parametrize("name", ["complete/c.0", "parameters/c.0.0", "t/c.0.0"])
def test_damage_to_the_owners_arrays_is_noticed(tmp_path: Path, name: str) -> None:
    keep_all(tmp_path / "a.zarr", [0, 1])
    _flip(tmp_path / "a.zarr" / name)
    with pytest.raises(RunError, match=r"a\.zarr is damaged, it cannot be read"):
        StoreReader(str(tmp_path / "a.zarr"))
