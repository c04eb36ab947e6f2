"""The look-up index of a store: its entries' masks as counts and bits, in files that are mapped.

An entry is one kept step of one complete simulation. Masks are what the solver observes of it, each
at several thresholds. The grid is cut into cubes, about eight along every axis.

In the folder STORE.index/:

    index.json      what there is, renamed into place whole: what it does not name does not count
    FIRST+N.table   N entries from number FIRST on: keys, sizes, counts of voxels cube by cube
    voxels          a record for each entry and threshold: the bits of the cubes partly set

A table is written once; `voxels` only grows. So whatever is killed, the last index stays, and one
that is open goes on while another process extends it. Everything has a checksum: index.json and a
table's head are checked when they are opened, counts and records when they are first used.

Shapes: N entries, n those of a table, T thresholds of all masks together, c cubes.
"""

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from framework.errors import RunError, StudyError, reason
from framework.files import absolute
from framework.store.reader import StoreReader

# Arrays in a file, in order: their names, types and shapes.
Layout = list[tuple[str, tuple[type[np.generic], tuple[int, ...]]]]

FORMAT = 1
MANIFEST, VOXELS, TABLE = "index.json", "voxels", ".table"
# Cubes along an axis. More of them bound better, but take more memory and time to scan.
CUBES = 8
# Voxels that a cube can have, as counts are of 16 bits; and a grid, as sizes are of 31.
_CUBE_VOXELS, _GRID_VOXELS = 2**16 - 1, 2**31 - 1


class Cubes:
    """How a grid is cut into cubes; those at the end of an axis may be cut off.

    Everything has three axes: grids of fewer get leading ones of length 1.
    """

    def __init__(self, grid: tuple[int, ...]) -> None:
        """Raises StudyError if the grid is too large."""
        if math.prod(grid) > _GRID_VOXELS:
            raise StudyError(
                f"the grid {grid} has more than {_GRID_VOXELS} points: it is too large for an index"
            )
        largest = int(_CUBE_VOXELS ** (1 / len(grid)))
        lengths = (1,) * (3 - len(grid)) + grid
        a, b, c = (min(-(-length // CUBES), largest) for length in lengths)
        self.sides = (a, b, c)
        self.across = tuple(-(-n // side) for n, side in zip(lengths, self.sides, strict=True))
        self.words = -(-a * b * c // 64)  # of 64 bits, for a cube's bits
        along = [
            np.diff(np.minimum(np.arange(count + 1) * side, n))
            for n, side, count in zip(lengths, self.sides, self.across, strict=True)
        ]
        self.volumes = np.einsum("i,j,k->ijk", *along).ravel()  # voxels in each cube [c]

    def __len__(self) -> int:
        return len(self.volumes)

    def whole(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask [*grid] with three axes."""
        return np.ascontiguousarray(mask).reshape((1,) * (3 - mask.ndim) + mask.shape)


class Table:
    """Some of the entries, mapped: `keys` [n, 2], `ends` [1 + T, n] of their records in `voxels`,
    `checksums` [T, n] of the records, `sizes` [T, n] voxels in their masks."""

    def __init__(self, path: Path, described: Mapping[str, int], thresholds: int) -> None:
        """`described`: its part of the manifest. Raises FileNotFoundError, and RunError if it is
        damaged."""
        self.entries = described["entries"]
        self._path = path
        size = path.stat().st_size
        if size != described["bytes"]:
            raise damaged(path, f"it has {size} bytes instead of {described['bytes']}")
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        layout = table_arrays(thresholds, self.entries, described["cubes"])
        head = np.frombuffer(data, np.uint8, head_bytes(layout))
        if google_crc32c.value(head) != described["checksum"]:
            raise damaged(path, "its checksum is wrong")
        arrays: dict[str, NDArray[Any]] = {}
        offset = 0
        for name, (dtype, shape) in layout:
            arrays[name] = np.frombuffer(data, dtype, math.prod(shape), offset).reshape(shape)
            offset += _padded(arrays[name].nbytes)
        self.keys, self.ends, self.sizes = arrays["keys"], arrays["ends"], arrays["sizes"]
        self.checksums, self.cubes = arrays["checksums"], arrays["cubes"]
        self._counts, self._row_checksums = arrays["counts"], arrays["row_checksums"]
        self._checked = np.zeros(self._row_checksums.shape, dtype=bool)

    def rows(self, cubes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Where in the counts those cubes are that some entry reaches, and which ones these are."""
        places = np.searchsorted(self.cubes, cubes)
        there = np.zeros(len(cubes), dtype=bool)
        inside = places < len(self.cubes)
        there[inside] = self.cubes[places[inside]] == cubes[inside]
        return places[there], there

    def counts(self, thresholds: slice, rows: NDArray[np.int64]) -> NDArray[np.uint16]:
        """Voxels set [T, c, n], of which the `rows` of some thresholds are needed and checked.

        Raises RunError if these are damaged.
        """
        for t in range(thresholds.start, thresholds.stop):
            for row in rows[~self._checked[t, rows]].tolist():
                if google_crc32c.value(self._counts[t, row]) != self._row_checksums[t, row]:
                    raise damaged(self._path, "a checksum of its counts is wrong")
                self._checked[t, row] = True
        return self._counts[thresholds]


class Index:
    """The entries of a store. `keys` [N, 2]: simulation, and position of the step among those kept.

    `masks`: name -> thresholds, `first` of which numbers each mask's first among all T.
    """

    def __init__(self, folder: Path) -> None:
        """Open a folder by itself, see `open`. Raises StudyError if there is no index, or one of
        another format, and RunError if it is damaged."""
        self.folder = folder
        manifest = read_manifest(folder)
        while True:
            thresholds = sum(map(len, manifest["masks"].values()))
            try:
                self.tables = [
                    Table(folder / described["name"], described, thresholds)
                    for described in manifest["tables"]
                ]
                break
            except FileNotFoundError as error:
                # Another process may have replaced the last table meanwhile.
                newer = read_manifest(folder)
                if newer == manifest:
                    raise damaged(folder, f"{error.filename} is missing") from None
                manifest = newer
        self.manifest = manifest
        self.hash: str = manifest["hash"]
        self.masks = {name: tuple(values) for name, values in manifest["masks"].items()}
        starts = np.cumsum([0, *map(len, self.masks.values())]).tolist()
        self.first: dict[str, int] = dict(zip(self.masks, starts, strict=False))
        self.thresholds: int = starts[-1]
        self.grid: tuple[int, ...] = tuple(manifest["grid"])
        self.cubes = Cubes(self.grid)
        self.voxels = _map_words(folder / VOXELS, manifest["voxels"])
        self.keys = np.concatenate([table.keys for table in self.tables])
        self.ends = np.concatenate([table.ends for table in self.tables], axis=1)
        self.sizes = np.concatenate([table.sizes for table in self.tables], axis=1)
        self.checksums = np.concatenate([table.checksums for table in self.tables], axis=1)
        self.checked = np.zeros(self.checksums.shape, dtype=bool)  # which records were
        self.entries = len(self.keys)
        self.bytes: int = manifest["voxels"] + sum(table["bytes"] for table in manifest["tables"])

    @classmethod
    def open(cls, store: str | StoreReader) -> Self:
        """The index of a store at a path, or of one that is open.

        Raises StudyError if there is none, or it is not one of the store as it is now, and
        RunError if it or the store is damaged.
        """
        reader = store if isinstance(store, StoreReader) else StoreReader(store)
        index = cls(index_folder(reader.path))
        index.check(reader)
        missing = np.setdiff1d(reader.complete, index.keys[:, 0])
        if len(missing):
            raise StudyError(
                f"the index {index.folder} is older than its store: {len(missing)} complete "
                f"simulations are not in it; run millstream index {reader.path}"
            )
        return index

    def check(self, reader: StoreReader) -> None:
        """Raises StudyError if the store is not the one that was indexed."""
        gone = np.setdiff1d(self.keys[:, 0], reader.complete)
        same = self.hash == reader.identity["hash"]
        if same and len(gone) and np.isin(gone, StoreReader(reader.path).complete).all():
            raise StudyError(
                f"simulations were added to {reader.path} and its index just now: run this again"
            )
        if not same or len(gone):
            raise StudyError(
                f"the index {self.folder} is of another store than is at {reader.path} now: remove "
                f"the index and run millstream index {reader.path}"
            )


def index_folder(store: str) -> Path:
    """Where the index of a store is: beside a local one, else in the current directory."""
    path = absolute(store)
    return Path(f"{path.rstrip('/').rpartition('/')[2] if '://' in path else path}.index")


def read_manifest(folder: Path) -> dict[str, Any]:
    """What index.json says. Raises StudyError if there is none or its format is another one, and
    RunError if it is damaged."""
    path = folder / MANIFEST
    try:
        text = path.read_text()
    except FileNotFoundError:
        store = str(folder).removesuffix(".index")
        raise StudyError(f"there is no index {folder}: run millstream index {store}") from None
    except OSError as error:
        raise damaged(path, reason(error)) from error
    except ValueError:
        raise damaged(path, "it is not text") from None
    try:
        manifest: dict[str, Any] = json.loads(text)
        found, right = manifest.pop("checksum"), manifest_checksum(manifest)
    except (ValueError, LookupError, AttributeError):
        raise damaged(path, "it is not what was written") from None
    if manifest.get("format") != FORMAT:
        raise StudyError(
            f"the index {folder} has format {manifest.get('format')}, but this version of "
            f"Millstream reads {FORMAT}: remove it and run millstream index again"
        )
    if found != right:
        raise damaged(path, "its checksum is wrong")
    return manifest


def manifest_checksum(manifest: Mapping[str, Any]) -> int:
    """Of everything else that it says."""
    return int(google_crc32c.value(json.dumps(manifest, sort_keys=True).encode()))


def table_arrays(thresholds: int, entries: int, cubes: int) -> Layout:
    """The arrays in a table's file, in order: names, types, shapes. Each begins at a multiple of 8
    bytes. All but `counts` is the head; `row_checksums` are of the rows of `counts`."""
    return [
        ("keys", (np.int64, (entries, 2))),
        ("ends", (np.int64, (1 + thresholds, entries))),
        ("checksums", (np.uint64, (thresholds, entries))),
        ("sizes", (np.int32, (thresholds, entries))),
        ("cubes", (np.int64, (cubes,))),
        ("row_checksums", (np.uint32, (thresholds, cubes))),
        ("counts", (np.uint16, (thresholds, cubes, entries))),
    ]


def head_bytes(layout: Layout) -> int:
    """The size of a table's head."""
    return sum(
        _padded(np.dtype(dtype).itemsize * math.prod(shape)) for _, (dtype, shape) in layout[:-1]
    )


def damaged(path: Path, what: str) -> RunError:
    """The error to raise about a file or an index that is."""
    folder = path if path.suffix == ".index" else path.parent
    return RunError(
        f"the index is damaged, {path}: {what}; remove {folder} and run millstream index again"
    )


def _padded(size: int) -> int:
    return -(-size // 8) * 8


def _map_words(path: Path, size: int) -> NDArray[np.uint64]:
    """The first `size` bytes of a file as words. Raises RunError if there are not as many."""
    try:
        found = path.stat().st_size
        if found < size:
            raise damaged(path, f"it has {found} bytes instead of {size}")
        if size == 0:
            return np.frombuffer(b"", np.uint64)
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    except OSError as error:
        raise damaged(path, reason(error)) from error
    return np.frombuffer(data, np.uint64)
