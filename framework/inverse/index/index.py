"""The look-up index of a store: its entries' masks as counts and bits, in files that are mapped.

An entry is one kept step of one complete simulation. Its masks are those that the solver observes,
each at several thresholds. layout.py describes the files, cubes.py the cutting of the grid.

Shapes: N entries, n those of a table, T thresholds of all masks together, c cubes.
"""

import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from framework.errors import StudyError, reason
from framework.inverse.index.cubes import Cubes
from framework.inverse.index.layout import (
    VOXELS,
    damaged_index,
    head_bytes,
    index_folder,
    padded,
    read_manifest,
    table_arrays,
)
from framework.store.reader import StoreReader


class Table:
    """Some of the entries, in a mapped file.

    `keys` [n, 2] as in `Index`; `ends` [1 + T, n] of their records in `voxels`, and `checksums` [T,
    n] of these; `sizes` [T, n]: how many voxels their masks have.
    """

    def __init__(self, path: Path, described: Mapping[str, int], thresholds: int) -> None:
        """Open the table that is `described` in the manifest.

        Raises FileNotFoundError, and DamagedError if it is damaged.
        """
        self.entries = described["entries"]
        self._path = path
        size = path.stat().st_size
        if size != described["bytes"]:
            raise damaged_index(path, f"it has {size} bytes instead of {described['bytes']}")
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        layout = table_arrays(thresholds, self.entries, described["cubes"])
        head = np.frombuffer(data, np.uint8, head_bytes(layout))
        if google_crc32c.value(head) != described["checksum"]:
            raise damaged_index(path, "its checksum is wrong")
        arrays: dict[str, NDArray[Any]] = {}
        offset = 0
        for name, (dtype, shape) in layout:
            arrays[name] = np.frombuffer(data, dtype, math.prod(shape), offset).reshape(shape)
            offset += padded(arrays[name].nbytes)
        self.keys, self.ends, self.sizes = arrays["keys"], arrays["ends"], arrays["sizes"]
        self.checksums, self.cubes = arrays["checksums"], arrays["cubes"]
        self._counts, self._row_checksums = arrays["counts"], arrays["row_checksums"]
        self._checked = np.zeros(self._row_checksums.shape, dtype=bool)

    def rows(self, cubes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the rows of counts that these cubes have, and which of the cubes have one.

        A cube that no entry reaches has none.
        """
        places = np.searchsorted(self.cubes, cubes)
        there = np.zeros(len(cubes), dtype=bool)
        inside = places < len(self.cubes)
        there[inside] = self.cubes[places[inside]] == cubes[inside]
        return places[there], there

    def counts(self, thresholds: slice, rows: NDArray[np.int64]) -> NDArray[np.uint16]:
        """Return counts of voxels [T, c, n] at some thresholds; only `rows` of them may be used.

        Raises DamagedError if one of these rows is damaged.
        """
        for t in range(thresholds.start, thresholds.stop):
            for row in rows[~self._checked[t, rows]].tolist():
                if google_crc32c.value(self._counts[t, row]) != self._row_checksums[t, row]:
                    raise damaged_index(self._path, "a checksum of its counts is wrong")
                self._checked[t, row] = True
        return self._counts[thresholds]


class Index:
    """The entries of a store, and their masks at several thresholds.

    `keys` [N, 2]: the simulation, and the position of its step among the kept steps. `masks`: name
    -> thresholds; `first`: name -> the number of the mask's first threshold among all T.
    """

    def __init__(self, folder: Path) -> None:
        """Open the index in a folder, whatever its store is now; see `open`.

        Raises StudyError if there is none or it has another format, DamagedError if it is damaged.
        """
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
                    raise damaged_index(folder, f"{error.filename} is missing") from None
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
        self.checked = np.zeros(self.checksums.shape, dtype=bool)  # which records have been checked
        self.entries = len(self.keys)
        self.bytes: int = manifest["voxels"] + sum(table["bytes"] for table in manifest["tables"])

    @classmethod
    def open(cls, store: str | StoreReader) -> Self:
        """Open the index of a store, given as a path or as a reader.

        Raises StudyError if there is none or the store has changed since, and DamagedError if the
        index or the store is damaged.
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
        """Raise StudyError if the store is not the one that was indexed."""
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


def _map_words(path: Path, size: int) -> NDArray[np.uint64]:
    """Map the first `size` bytes of a file as words. Raises DamagedError if it has fewer."""
    try:
        found = path.stat().st_size
        if found < size:
            raise damaged_index(path, f"it has {found} bytes instead of {size}")
        if size == 0:
            return np.frombuffer(b"", np.uint64)
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    except OSError as error:
        raise damaged_index(path, reason(error)) from error
    return np.frombuffer(data, np.uint64)
