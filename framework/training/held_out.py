"""Held-out trajectories in files: written block by block, and read in parts.

A trajectory may be larger than memory, so its fields are nowhere but in its file. That is an .npz
as `numpy.savez` writes it, without compression, of `parameters` [p], `times` [T] and `fields`
[T, C, *grid]. T: stored times, C: fields, V: trajectories, `*grid`: the grid's axes.
"""

import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from framework.errors import DamagedError, reason
from framework.files import writing
from framework.simulation.block import Block
from framework.training.scores import Trajectories

_FIELDS, _TYPE = "fields.npy", np.dtype("<f4")
_UNREADABLE = (OSError, ValueError, LookupError, EOFError, struct.error, zipfile.BadZipFile)
# Of the header of a file in a zip file: its size, and where the sizes of its name and the rest are.
_HEADER_BYTES, _NAME_SIZES = 30, slice(26, 30)


class TrajectoryWriter:
    """Writes the file of one trajectory. Methods raise WriteError, after which no file is left."""

    def __init__(self, path: Path, first: Block, stored_steps: int) -> None:
        """`first`: a block of the trajectory."""
        self._path = path
        self._temporary = path.with_name(f"{path.name}.writing")
        self._times: list[NDArray[np.float64]] = []
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            self._zip = zipfile.ZipFile(self._temporary, "w")
            _put(self._zip, "parameters", first.parameters)
            self._fields = self._zip.open(_FIELDS, "w", force_zip64=True)
            shape = (stored_steps, *first.fields.shape[1:])
            header = {"descr": _TYPE.str, "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(self._fields, header)

    def append(self, block: Block) -> None:
        """Write the steps of the next block."""
        self._times.append(block.times)
        with self._whole_or_discarded():
            self._fields.write(np.ascontiguousarray(block.fields, dtype=_TYPE).data.cast("B"))

    def finish(self) -> None:
        """Give the file its name: every step was appended."""
        with self._whole_or_discarded():
            self._fields.close()
            _put(self._zip, "times", np.concatenate(self._times))
            self._zip.close()
            self._temporary.replace(self._path)

    def discard(self) -> None:
        """Remove what was written of an unfinished file."""
        self._temporary.unlink(missing_ok=True)
        file, self._zip.fp = self._zip.fp, None  # so that it writes no end of the file any more
        if file is not None:
            file.close()

    @contextmanager
    def _whole_or_discarded(self) -> Iterator[None]:
        with ExitStack() as undone:
            undone.callback(self.discard)
            with writing(self._path):
                yield
            undone.pop_all()


@dataclass(frozen=True)
class KeptTrajectory:
    """A trajectory that lies in a file."""

    path: Path
    simulation: int
    parameters: NDArray[np.float64]  # [p]
    times: NDArray[np.float64]  # [T]
    shape: tuple[int, ...]  # of its fields, [T, C, *grid]
    offset: int  # bytes before its fields in the file

    @classmethod
    def find(cls, path: Path, simulation: int, whole: bool = False) -> "KeptTrajectory":
        """Read all but the fields of a file; with `whole`, compare all with its checksums.

        Raises DamagedError if it is damaged.
        """
        try:
            with zipfile.ZipFile(path) as kept:
                if whole and (broken := kept.testzip()):
                    raise ValueError(f"the checksum of {broken} differs")
                parameters, times = (_get(kept, name) for name in ("parameters", "times"))
                info = kept.getinfo(_FIELDS)
                with kept.open(info) as file:
                    shape, offset = _read_header(file)
            with path.open("rb") as raw:
                raw.seek(info.header_offset)
                sizes = struct.unpack("<HH", raw.read(_HEADER_BYTES)[_NAME_SIZES])
        except _UNREADABLE as error:
            raise DamagedError(f"{path} is damaged: {reason(error)}") from None
        if info.compress_type != zipfile.ZIP_STORED or len(times) != shape[0]:
            raise DamagedError(f"{path} is damaged: it is no file of a trajectory")
        offset += info.header_offset + _HEADER_BYTES + sum(sizes)
        return cls(path, simulation, parameters, times, shape, offset)

    def steps(self, first: int, stop: int) -> NDArray[np.float32]:
        """Read the fields [stop - first, C, *grid] of some steps. Raises DamagedError."""
        values = int(np.prod(self.shape[1:], dtype=np.int64))
        count, skipped = (stop - first) * values, first * values * _TYPE.itemsize
        try:
            found = np.fromfile(self.path, _TYPE, count, offset=self.offset + skipped)
        except OSError as error:
            raise DamagedError(f"{self.path} cannot be read: {reason(error)}") from None
        if len(found) != count:
            raise DamagedError(f"{self.path} is damaged: it ends too early")
        return found.reshape(stop - first, *self.shape[1:]).astype(np.float32, copy=False)


class FieldFiles:
    """The fields [V, T, C, *grid] of trajectories in files; a part of them is read when asked."""

    def __init__(
        self, kept: Sequence[KeptTrajectory], before: Callable[[], None] = lambda: None
    ) -> None:
        """`before` is called before each reading, and may raise an error to end the work."""
        self.shape = (len(kept), *kept[0].shape)
        self._kept = kept
        self._before = before

    def __getitem__(self, part: tuple[slice, slice]) -> NDArray[np.float32]:
        """Return the fields of a range of trajectories and a range of steps."""
        self._before()
        first, stop, _ = part[1].indices(self.shape[1])
        return np.stack([one.steps(first, stop) for one in self._kept[part[0]]])


def trajectories(
    kept: Sequence[KeptTrajectory], before: Callable[[], None] = lambda: None
) -> Trajectories:
    """Return trajectories in files as they are scored; `before`: see `FieldFiles`."""
    return Trajectories(
        np.array([one.simulation for one in kept]),
        np.stack([one.parameters for one in kept]).astype(np.float32),
        np.stack([one.times for one in kept]).astype(np.float32),
        FieldFiles(kept, before),
    )


def _put(kept: zipfile.ZipFile, name: str, values: NDArray[np.float64]) -> None:
    with kept.open(f"{name}.npy", "w") as file:
        npy.write_array(file, np.asanyarray(values), allow_pickle=False)


def _get(kept: zipfile.ZipFile, name: str) -> NDArray[np.float64]:
    with kept.open(f"{name}.npy") as file:
        values: NDArray[np.float64] = npy.read_array(file, allow_pickle=False)
    return values


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], int]:
    """Read the header of an array of fields; return its shape, and the size of the header.

    Raises ValueError if it is of another type.
    """
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if fortran or dtype != _TYPE or not shape:
        raise ValueError(f"its fields are of type {dtype}")
    return shape, file.tell()
