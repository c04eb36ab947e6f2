"""An index is right or refused: real stores, processes killed at every moment, damaged files."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forks import FORKS, start_forks
from index_writing import GRID, write, write_until
from numpy.typing import NDArray
from places import ROOT
from waiting import LIMIT

from framework.errors import RunError, StudyError
from framework.inverse.index import building
from framework.inverse.index import writer as index_writer
from framework.inverse.index.building import build
from framework.inverse.index.index import Index
from framework.inverse.index.layout import FORMAT, manifest_checksum
from framework.inverse.index.observer import Observer
from framework.inverse.index.records import moments
from framework.inverse.index.writer import IndexWriter
from framework.inverse.search.masks import MaskAnswer, search_masks
from framework.store.owner import Store
from framework.store.reader import StoreReader
from framework.study import versions
from framework.study.sections import StoreConfig
from solvers.base import Field, Grid, ImagedSolver, Order, Parameter, ParameterSpace, Solver
from solvers.tumor.fisher_kolmogorov import FisherKolmogorov

Masks = NDArray[np.bool_]
STEPS = 4


class Spots(ImagedSolver):
    """Two spots on a plane that fade in; their places follow from the parameters."""

    parameters = ParameterSpace(Parameter("x", 0, 1), Parameter("y", 0, 1))
    fields = (Field("one"), Field("other"))
    grid = Grid(GRID, (1.0, 1.0))
    order = Order(1, 1)
    stored_steps = STEPS
    masks: Mapping[str, tuple[float, ...]] = {"bright": (0.4, 0.6), "seen": (0.1, 0.2, 0.3)}

    def __init__(self, brightness: float = 1.0) -> None:
        self.brightness = brightness
        self.static_fields = {"paper": np.full(GRID, float(os.environ.get("PAPER", "1")))}

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.arange(float(STEPS))

    def solve(self, parameters: NDArray[np.float64], seed: int) -> Iterator[NDArray[np.float32]]:
        i, j = np.meshgrid(*map(np.arange, GRID), indexing="ij")
        for step in range(STEPS):
            places = parameters * GRID, parameters[::-1] * GRID
            spots = [np.exp(-((i - x) ** 2 + (j - y) ** 2) / 10) for x, y in places]
            yield (np.stack(spots) * self.brightness * step / (STEPS - 1)).astype(np.float32)

    def observe(
        self, fields: NDArray[np.float32], **settings: float
    ) -> Mapping[str, NDArray[np.float32] | Masks]:
        total = fields[0] + fields[1]
        return {name: total >= settings.get(name, 0.5) for name in ("bright", "seen")}


class Growth(FisherKolmogorov):
    masks = {"t1c": (0.5, 0.6), "flair": (0.1, 0.2, 0.35)}  # noqa: RUF012


class Growing(Spots):
    """A mask that grows with its threshold."""

    def observe(self, fields: NDArray[np.float32], **settings: float) -> Mapping[str, Masks]:
        return {name: fields[0] < settings.get(name, 0.5) for name in ("bright", "seen")}


def parameters_of(solver: Solver, id: int) -> NDArray[np.float64]:
    return solver.parameters.from_unit(np.random.default_rng(id).random(len(solver.parameters)))


def keep(
    path: Path, ids: range, solver: Solver | None = None, seed: int = 0, **settings: Any
) -> str:
    """A store with these simulations, or with these more."""
    solver = solver or Spots(**settings)
    name = f"{__name__}:{type(solver).__name__}"
    noted = {}
    if isinstance(solver, Spots):
        from framework.study.static import static_sums

        noted = static_sums(solver)
    identity = {
        "solver": {"name": name, **settings},
        "fields": {field.name: field.units for field in solver.fields},
        "grid": {"shape": list(solver.grid.shape)},
        "seed": seed,
        "streams": versions.STREAMS,
        "static_fields": noted,
    }
    store = Store.open(str(path), StoreConfig(), identity, solver, ids.stop)
    writer = store.writer()
    for id in ids:
        parameters = parameters_of(solver, id)
        for step, fields in enumerate(solver.solve(parameters, 0)):
            writer.append(id, step, fields)
        writer.finish(id)
        store.commit(id, parameters)
    store.flush()
    store.close()
    return str(path)


def of_store(reader: StoreReader, solver: Solver, name: str, value: float) -> list[Masks]:
    """The masks of all entries at a threshold."""
    return [
        np.asarray(solver.observe(fields, **{name: value})[name])
        for simulation in reader.complete.tolist()
        for fields in reader.fields(simulation)
    ]


def by_hand(
    path: str, solver: Solver, observed: Mapping[str, Masks]
) -> list[tuple[float, int, int]]:
    """Scores, simulations and steps, the best first; with equal weights."""
    reader, score = StoreReader(path), 0.0
    for name, values in solver.masks.items():
        asked = observed[name]
        dices = [
            [
                2 * (mask & asked).sum() / max(mask.sum() + asked.sum(), 1)
                if mask.any() or asked.any()
                else 1.0
                for mask in of_store(reader, solver, name, value)
            ]
            for value in values
        ]
        score = score + 0.5 * np.max(dices, axis=0)
    kept = len(reader.steps)
    keys = [(id, step) for id in reader.complete.tolist() for step in range(kept)]
    rows = [(float(s), *key) for s, key in zip(np.asarray(score), keys, strict=True)]
    return sorted(rows, key=lambda row: (-row[0], *row[1:]))


def found(answer: MaskAnswer) -> list[tuple[float, int, int]]:
    return [(match.score, match.simulation, match.position) for match in answer.matches]


def observed_of(solver: Solver, id: int = 1000, step: int = -1) -> dict[str, Masks]:
    """What would be seen of a simulation that is in no store."""
    fields = list(solver.solve(parameters_of(solver, id), 0))[step]
    images = solver.observe(fields)
    return {name: np.asarray(images[name]) for name in solver.masks}


def test_a_store_is_indexed_and_searched(tmp_path: Path) -> None:
    path, told = keep(tmp_path / "a.zarr", range(30)), []
    summary = build(path, tell=lambda *numbers: told.append(numbers))
    assert summary["entries"] == 30 * STEPS
    assert summary["simulations"] == {"indexed": 30, "added": 30}
    assert told[-1] == (30, 30)
    index, solver = Index.open(path), Spots()
    for id in range(1000, 1010):
        observed = observed_of(solver, id, 2 + id % 2)
        assert found(search_masks(index, observed, top=25)) == by_hand(path, solver, observed)[:25]


def test_tumours_are_indexed_and_searched(tmp_path: Path) -> None:
    solver = Growth(32, stored_steps=5)
    path = keep(tmp_path / "a.zarr", range(4), solver, grid_size=32, stored_steps=5)
    build(path)
    observed = observed_of(solver)
    answer = search_masks(Index.open(path), observed, top=20)
    assert found(answer) == by_hand(path, solver, observed)
    assert answer.matches[0].thresholds["t1c"] in Growth.masks["t1c"]


def test_more_simulations_extend_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where tables are full in between; who has it open already still has what there was."""
    monkeypatch.setattr(index_writer, "TABLE_ENTRIES", 10)
    path, solver = keep(tmp_path / "a.zarr", range(4)), Spots()
    build(path)
    before, observed = Index.open(path), observed_of(solver)
    right = by_hand(path, solver, observed)
    keep(tmp_path / "a.zarr", range(4, 9))
    with pytest.raises(StudyError, match="5 complete simulations are not in it; run millstream in"):
        Index.open(path)
    assert build(path)["simulations"] == {"indexed": 9, "added": 5}
    after = Index.open(path)
    assert found(search_masks(after, observed, top=36)) == by_hand(path, solver, observed)
    assert found(search_masks(before, observed, top=16)) == right
    files = {file.name for file in after.folder.iterdir()}
    assert build(path)["simulations"] == {"indexed": 9, "added": 0}
    assert {file.name for file in after.folder.iterdir()} == files


def test_what_another_process_has_just_added_is_not_added_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a look at the index and the lock of it."""
    path = keep(tmp_path / "a.zarr", range(2))

    def observer(*arguments: Any) -> Observer:
        monkeypatch.undo()
        build(path)
        return Observer(*arguments)

    monkeypatch.setattr(building, "Observer", observer)
    assert build(path)["simulations"] == {"indexed": 2, "added": 0}
    assert Index.open(path).keys.tolist() == [[i, k] for i in range(2) for k in range(STEPS)]


def test_a_store_that_has_grown_since_it_was_opened_is_not_taken_for_another(
    tmp_path: Path,
) -> None:
    path = keep(tmp_path / "a.zarr", range(2))
    reader = StoreReader(path)
    keep(tmp_path / "a.zarr", range(2, 3))
    build(path)
    with pytest.raises(StudyError, match=r"were added to .*a.zarr .* just now: run this again"):
        Index.open(reader)


def test_other_thresholds_can_be_given(tmp_path: Path) -> None:
    path = keep(tmp_path / "a.zarr", range(2))
    build(path, {"seen": [0.7, 0.15]})
    assert Index.open(path).masks == {"seen": (0.15, 0.7)}
    keep(tmp_path / "a.zarr", range(2, 4))
    build(path)  # with those that it has
    assert Index.open(path).masks == {"seen": (0.15, 0.7)}
    with pytest.raises(StudyError, match=r"has other thresholds, .*: remove it to index"):
        build(path, {"seen": [0.7]})


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({"dark": [0.1]}, "dark is not a mask of .*:Spots, which has bright, seen"),
        ({"seen": []}, "no threshold is given for seen"),
        ({}, "no mask is given: give one at least of bright, seen"),
    ],
)
def test_wrong_thresholds_are_refused(
    tmp_path: Path, thresholds: dict[str, list[float]], message: str
) -> None:
    path = keep(tmp_path / "a.zarr", range(1))
    with pytest.raises(StudyError, match=message):
        build(path, thresholds)


def test_what_a_solver_cannot_observe_is_told(tmp_path: Path) -> None:
    solver = Growth(32, stored_steps=2)
    path = keep(tmp_path / "a.zarr", range(1), solver, grid_size=32, stored_steps=2)
    with pytest.raises(
        StudyError, match=r"cannot observe flair at 0.9: the threshold flair is 0.9"
    ):
        build(path, {"flair": [0.9]})
    path = keep(tmp_path / "b.zarr", range(1), Growing())
    with pytest.raises(RunError, match=r"mask seen grows where its threshold goes up to 0.2"):
        build(path)


def test_a_solver_without_masks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keep(tmp_path / "a.zarr", range(1))
    monkeypatch.setattr(Spots, "masks", {})
    with pytest.raises(StudyError, match="whose solver has no masks to compare with segmentations"):
        build(path)


def test_a_store_without_simulations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="has no complete simulation to index yet"):
        build(keep(tmp_path / "a.zarr", range(0)))


def test_a_solver_that_is_another_now_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = keep(tmp_path / "a.zarr", range(1))
    monkeypatch.setenv("PAPER", "2")
    with pytest.raises(StudyError, match="paper is not what it was when the store"):
        build(path)
    monkeypatch.delattr(sys.modules[__name__], "Spots")
    with pytest.raises(StudyError, match=r"the solver of the store .* cannot be made: .* no Spots"):
        build(path)


def test_without_an_index_the_remedy_is_told(tmp_path: Path) -> None:
    path = keep(tmp_path / "a.zarr", range(1))
    with pytest.raises(StudyError, match=f"there is no index .*: run millstream index {path}$"):
        Index.open(path)


@pytest.mark.parametrize("change", [{"seed": 1}, {"ids": range(1)}])
def test_the_index_of_another_store_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """Another study's, or the same made anew with fewer simulations."""
    path = keep(tmp_path / "a.zarr", range(3))
    build(path)
    (tmp_path / "a.zarr").rename(tmp_path / "old.zarr")
    keep(tmp_path / "a.zarr", **{"ids": range(3), **change})
    for use in (Index.open, build):
        with pytest.raises(StudyError, match=r"is of another store .* remove the index and run"):
            use(path)


def test_an_index_of_another_format_is_refused(tmp_path: Path) -> None:
    path = keep(tmp_path / "a.zarr", range(1))
    file = Path(build(path)["index"]) / "index.json"
    manifest = json.loads(file.read_text())
    del manifest["checksum"]
    manifest["format"] = FORMAT + 1
    file.write_text(json.dumps({**manifest, "checksum": manifest_checksum(manifest)}))
    with pytest.raises(StudyError, match="has format 2, but this version of Millstream reads 1"):
        Index.open(path)


# Damage


def right_answer(folder: Path, entries: int) -> bool:
    """Whether the index finds every one of so many entries where it belongs."""
    index = Index(folder)
    assert index.entries == entries
    for id in range(entries):
        mask = (np.random.default_rng(id).random((2, *GRID)) < 0.5)[1]
        (match,) = search_masks(index, {"seen": mask}, top=1).matches
        if (match.simulation, match.score) != (id, 1.0):
            return False
    return True


def test_damage_is_noticed_and_never_gives_a_wrong_answer(tmp_path: Path) -> None:
    folder, random = tmp_path / "a.index", np.random.default_rng(0)
    write(folder, 0, 3)
    noticed = 0
    files = [file for file in sorted(folder.iterdir()) if file.name != "lock"]
    assert {file.suffix for file in files} == {"", ".json", ".table"}
    for file in files:
        whole = file.read_bytes()
        for place in random.integers(0, len(whole), 60):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << int(random.integers(8))
            file.write_bytes(damaged)
            try:
                assert right_answer(folder, 3)
            except (RunError, StudyError):
                noticed += 1
        file.write_bytes(whole)
    assert noticed >= 170  # the rest is padding


def test_files_that_are_cut_off_or_missing_are_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "a.index"
    write(folder, 0, 3)
    for file in list(folder.iterdir()):
        whole = file.read_bytes()
        for size in (0, len(whole) // 2, len(whole) - 2):
            file.write_bytes(whole[:size])
            with pytest.raises(RunError, match=r"the index is damaged, .*; remove .*\.index and"):
                Index(folder)
        file.unlink()
        with pytest.raises((RunError, StudyError), match=r"damaged|there is no index"):
            Index(folder)
        file.write_bytes(whole)
    assert right_answer(folder, 3)


def test_a_damaged_index_is_not_extended(tmp_path: Path) -> None:
    folder = tmp_path / "a.index"
    write(folder, 0, 3)
    (table,) = folder.glob("*.table")
    whole = bytearray(table.read_bytes())
    whole[-1] ^= 1  # of the counts, which are not looked at when the index is opened
    table.write_bytes(whole)
    with pytest.raises(RunError, match="a checksum of its counts is wrong"):
        write(folder, 3, 4)


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "a.index"
    with (
        IndexWriter(folder, "hash", GRID, {"seen": (0.1,)}),
        pytest.raises(RunError, match=r"another run is building the index .*: wait for its end"),
    ):
        write(folder, 0, 1)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.index").write_text("a file")
    with pytest.raises(RunError, match=r"cannot write .*a\.index"):
        write(tmp_path / "a.index", 0, 1)


@pytest.fixture(scope="module")
def _forks() -> None:
    start_forks(__file__)


def _run(moment: int, *arguments: Any) -> int | None:
    process: BaseProcess = FORKS.Process(target=write_until, args=(moment, *arguments))
    process.start()
    process.join(LIMIT)
    return process.exitcode


@pytest.mark.usefixtures("_forks")
@pytest.mark.parametrize(("there", "wanted"), [(0, 1), (1, 3)])
def test_killed_at_any_moment_the_last_index_stays(tmp_path: Path, there: int, wanted: int) -> None:
    """A first build, and an extension over the end of a table."""
    moment, least = 0, there
    while True:
        moment += 1
        folder = tmp_path / f"{moment}.index"
        if there:
            write(folder, 0, there)
        status = _run(moment, folder, there, wanted)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        entries = Index(folder).entries if (folder / "index.json").exists() else 0
        assert entries >= least  # the later it was killed, the more there is
        least = entries
        if entries:
            assert right_answer(folder, entries)
        write(folder, entries, wanted + 1)
        assert right_answer(folder, wanted + 1)
        manifest = Index(folder).manifest
        names = {"index.json", "voxels", *(table["name"] for table in manifest["tables"])}
        assert {file.name for file in folder.iterdir()} == names
        assert (folder / "voxels").stat().st_size == manifest["voxels"]
    assert moment > 12
    assert least == wanted


@pytest.mark.parametrize("grid", [(17,), (19, 11), (18, 9, 13)])
def test_moments_are_those_of_the_voxels(tmp_path: Path, grid: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    masks = [random.random((2, *grid)) < share for share in (0.0, 0.02, 0.5, 1.0)]
    with IndexWriter(tmp_path / "some.index", "hash", grid, {"seen": (0.5, 0.6)}) as writer:
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


def test_kernels_run_where_no_cache_can_be_written(tmp_path: Path) -> None:
    source = ROOT / "framework" / "inverse" / "index" / "records.py"
    (tmp_path / "records.py").write_text(source.read_text())
    (tmp_path / "__pycache__").write_text("a file, and no directory can be made here")
    code = (
        "import records, numpy; "
        "print(records.pack(numpy.ones((3, 1, 1), bool), (2, 1, 1), 1)[0].tolist())"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path / "__pycache__")}
    environment.pop("XDG_CACHE_HOME", None)
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT)
    assert run.stdout == "[2, 1]\n", run.stderr
