"""Write the look-up index, whose files layout.py describes.

Records are appended to `voxels` as entries come. The rest of an entry is held in memory until
`commit`, which flushes `voxels` to the disk, writes a table, and then replaces index.json. A table
that is not full is replaced by a longer one when more entries come.

Shapes: n entries, T thresholds of all masks together, c cubes.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from framework.errors import StudyError
from framework.files import locked, write_text, writing
from framework.inverse.index.cubes import Cubes
from framework.inverse.index.index import Index
from framework.inverse.index.layout import (
    FORMAT,
    MANIFEST,
    TABLE,
    VOXELS,
    head_bytes,
    manifest_checksum,
    table_arrays,
)
from framework.inverse.index.records import pack, record_checksum, record_of

# A table with this many entries is full. Its counts are read by rows of 16 KiB.
TABLE_ENTRIES = 8192


class IndexWriter:
    """Makes an index or appends to it. Only one can be open at a time; it has to be closed."""

    def __init__(
        self, folder: Path, hash: str, grid: tuple[int, ...], masks: Mapping[str, Sequence[float]]
    ) -> None:
        """Open the index for the store with this `hash` and for `masks`, name -> thresholds.

        Removes what a killed writer left. Raises StudyError if an index there is of another store
        or has other thresholds, and RunError if it is damaged, cannot be written or is being
        written.
        """
        self.folder = folder
        self._cubes = Cubes(grid)
        self._manifest: dict[str, Any] = {
            "format": FORMAT,
            "hash": hash,
            "grid": list(grid),
            "masks": {name: list(values) for name, values in masks.items()},
            "voxels": 0,
            "tables": [],
        }
        self._thresholds = sum(map(len, masks.values()))
        self._rows = _Rows()
        self.simulations: NDArray[np.int64] = np.empty(0, np.int64)  # of the entries already there
        with writing(folder), ExitStack() as stack:
            doing, remedy = "building the index", "wait for its end"
            stack.enter_context(locked(str(folder), doing, remedy))
            folder.mkdir(exist_ok=True)
            if (folder / MANIFEST).exists():
                self._continue(Index(folder))
            self._remove_rests()
            self._voxels = stack.enter_context((folder / VOXELS).open("ab"))
            self._voxels.truncate(self._manifest["voxels"])
            self._end = self._manifest["voxels"] // 8  # of the records, in words
            self._resources = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others write. Entries that were not committed are lost."""
        self._resources.close()

    def add(
        self,
        simulation: int,
        position: int,
        masks: NDArray[np.bool_],
        corner: tuple[int, ...] | None = None,
    ) -> None:
        """Append an entry: a simulation at a position among the kept steps, and its masks.

        The masks [T, *box] are empty outside a box that begins at `corner`, the first voxel of a
        cube; without one, at the grid's first voxel. Raises WriteError.
        """
        leading = 4 - masks.ndim
        box = masks.reshape(len(masks), *(1,) * leading, *masks.shape[1:])
        begin = (0,) * leading + (corner or (0,) * (3 - leading))
        numbers = [
            start // side + np.arange(-(-length // side))
            for start, length, side in zip(begin, box.shape[1:], self._cubes.sides, strict=True)
        ]
        ids = np.ravel_multi_index(np.meshgrid(*numbers, indexing="ij"), self._cubes.across).ravel()
        counts = np.zeros((self._thresholds, len(self._cubes)), np.uint16)
        ends, checksums = [self._end], []
        with writing(self.folder):
            for mask, row in zip(box, counts, strict=True):
                row[ids], bits = pack(mask, self._cubes.sides, self._cubes.words)
                record = record_of(ids, row[ids], self._cubes.volumes[ids], bits)
                self._voxels.write(record.data)
                checksums.append(int(record_checksum(record)))
                ends.append(ends[-1] + len(record))
        self._end = ends[-1]
        self._rows.append((simulation, position), ends, checksums, counts)

    @property
    def full(self) -> bool:
        """Whether there are enough entries to commit, which is done between two simulations."""
        return len(self._rows) >= TABLE_ENTRIES

    def commit(self) -> None:
        """Make the added entries part of the index. Raises WriteError."""
        tables = self._manifest["tables"]
        if self._rows.first + len(self._rows) == sum(table["entries"] for table in tables):
            return  # else the last table would be overwritten in place
        with writing(self.folder):
            self._voxels.flush()
            os.fsync(self._voxels.fileno())
            if tables and tables[-1]["first"] == self._rows.first:
                tables = tables[:-1]
            described = self._write_table()
            self._manifest |= {"tables": [*tables, described], "voxels": 8 * self._end}
            whole = {**self._manifest, "checksum": manifest_checksum(self._manifest)}
            write_text(self.folder / MANIFEST, json.dumps(whole, indent=1) + "\n", flush=True)
            _flush_directory(self.folder)
            self._remove_rests()
        if self.full:
            self._rows = _Rows(first=self._rows.first + len(self._rows))

    def _write_table(self) -> dict[str, Any]:
        """Write the rows held to a new table; return its description for the manifest."""
        rows, first = self._rows, self._rows.first
        reached = np.zeros(len(self._cubes), bool)
        for counts in rows.counts:
            reached |= counts.any(axis=0)
        cubes = np.flatnonzero(reached)
        layout = table_arrays(self._thresholds, len(rows), len(cubes))
        arrays = {
            "keys": np.array(rows.keys),
            "ends": np.array(rows.ends).T,
            "checksums": np.array(rows.checksums, np.uint64).T,
            "sizes": np.array([counts.sum(axis=1, dtype=np.int32) for counts in rows.counts]).T,
            "cubes": cubes,
            "row_checksums": np.empty((self._thresholds, len(cubes)), np.uint32),
        }
        path = self.folder / f"{first:09d}+{len(rows)}{TABLE}"
        with path.open("wb") as file:
            file.seek(head_bytes(layout))
            for t, sums in enumerate(arrays["row_checksums"]):
                block = np.stack([counts[t, cubes] for counts in rows.counts], axis=1)
                sums[:] = [google_crc32c.value(row) for row in block]
                file.write(block.data)
            size = file.tell()
            head = b"".join(
                _with_zeros(np.ascontiguousarray(arrays[name], dtype).tobytes())
                for name, (dtype, _) in layout[:-1]
            )
            file.seek(0)
            file.write(head)
            file.flush()
            os.fsync(file.fileno())
        return {
            "name": path.name,
            "first": first,
            "entries": len(rows),
            "cubes": len(cubes),
            "bytes": size,
            "checksum": google_crc32c.value(head),
        }

    def _continue(self, index: Index) -> None:
        """Continue an index; hold the entries of its last table if that is not full."""
        ours, theirs = self._manifest["masks"], {k: list(v) for k, v in index.masks.items()}
        if ours != theirs:
            raise StudyError(
                f"the index {index.folder} has other thresholds, {theirs} and not {ours}: remove "
                "it to index the store anew with these"
            )
        if (index.hash, index.grid) != (self._manifest["hash"], tuple(self._manifest["grid"])):
            raise StudyError(
                f"the index {index.folder} is of another store: remove it and index the store anew"
            )
        self._manifest, self.simulations = index.manifest, index.keys[:, 0]
        self._rows = _Rows(first=index.entries)
        last = index.tables[-1]
        if last.entries < TABLE_ENTRIES:
            self._rows = _Rows(first=index.entries - last.entries)
            counts = np.zeros((last.entries, self._thresholds, len(self._cubes)), np.uint16)
            rows = np.arange(len(last.cubes))
            there = last.counts(slice(0, self._thresholds), rows)
            counts[:, :, last.cubes] = there.transpose(2, 0, 1)
            columns = zip(last.keys, last.ends.T, last.checksums.T, counts, strict=True)
            for key, ends, checksums, count in columns:
                self._rows.append(tuple(key), list(ends), list(checksums), count)

    def _remove_rests(self) -> None:
        """Remove tables that the index does not name."""
        named = {table["name"] for table in self._manifest["tables"]}
        for path in [*self.folder.glob(f"*{TABLE}"), *self.folder.glob(f"{MANIFEST}.writing")]:
            if path.name not in named:
                path.unlink()


class _Rows:
    """The entries that are in no full table yet, from entry number `first` on."""

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self.keys: list[tuple[int, ...]] = []
        self.ends: list[list[int]] = []
        self.checksums: list[list[int]] = []
        self.counts: list[NDArray[np.uint16]] = []

    def __len__(self) -> int:
        return len(self.keys)

    def append(
        self,
        key: tuple[int, ...],
        ends: list[int],
        checksums: list[int],
        counts: NDArray[np.uint16],
    ) -> None:
        """Hold an entry: its key, where its records end, their checksums, and counts [T, c]."""
        self.keys.append(key)
        self.ends.append(ends)
        self.checksums.append(checksums)
        self.counts.append(counts)


def _with_zeros(data: bytes) -> bytes:
    """Pad data with zeros to a multiple of 8 bytes."""
    return data + bytes(-len(data) % 8)


def _flush_directory(path: Path) -> None:
    """Write the names in a directory to the disk, so that they survive a power cut."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
