"""Writes the fields of simulations to a store, in a solver's process.

It imports neither torch nor the rest of the store.

Shapes: S simulations, K kept steps, C fields, `*grid` the grid's axes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from framework.errors import WriteError
from framework.store.layout import array_of, attributes_of, cannot_write, zarr_store
from framework.study.ids import is_held_out


class StoreWriter:
    """Writes the fields of simulations, a chunk at a time; small, and can be sent to a process.

    It skips held-out simulations (negative ids) and those that were complete when the writer was
    made: a complete simulation is never touched again.
    """

    def __init__(self, path: str, steps: NDArray[np.int64], complete: NDArray[np.bool_]) -> None:
        """`steps` [K] are the steps to keep; `complete` [S] says which simulations are complete."""
        self._path = path
        self._kept = frozenset(steps.tolist())
        self._complete = complete
        self._arrays: list[zarr.Array[Any]] = []  # one a field; opened when they are needed
        self._unwritten: dict[int, UnwrittenSteps] = {}

    def append(self, simulation: int, step: int, fields: NDArray[np.float32]) -> None:
        """Take one stored step's fields [C, *grid]; a simulation's steps come in order, from 0.

        Raises ValueError if a number is beyond what the store's dtype can hold, which is the
        simulation's failure, and WriteError if the store cannot be written.
        """
        if not self._wanted(simulation):
            return
        if step == 0:
            self.forget(simulation)
        if step not in self._kept:
            return
        with self._writing():
            if simulation not in self._unwritten:
                self._unwritten[simulation] = UnwrittenSteps(self._open())
            unwritten = self._unwritten[simulation]
            unwritten.add(fields)
            if unwritten.full():
                unwritten.write(simulation, self._arrays)

    def finish(self, simulation: int) -> None:
        """Return once all of the simulation is written. Raises WriteError."""
        if not self._wanted(simulation):
            return
        unwritten = self._unwritten.pop(simulation)
        assert unwritten.first + unwritten.count == len(self._kept), "a step is missing"
        with self._writing():
            unwritten.write(simulation, self._arrays)

    def forget(self, simulation: int) -> None:
        """Drop what is held of a simulation that failed or starts anew."""
        self._unwritten.pop(simulation, None)

    def _wanted(self, simulation: int) -> bool:
        return not (is_held_out(simulation) or self._complete.item(simulation))

    def _open(self) -> list["zarr.Array[Any]"]:
        if not self._arrays:
            group = zarr.open_group(zarr_store(self._path), mode="r+")
            # Fields are never all NaN: checking whether a chunk is empty would be wasted time.
            self._arrays = [
                array_of(group, name).with_config({"write_empty_chunks": True})
                for name in attributes_of(group)["fields"]
            ]
        return self._arrays

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WriteError(cannot_write(self._path, error)) from error


class UnwrittenSteps:
    """Kept steps of one simulation that are not written yet: `count`, from position `first` on."""

    def __init__(self, arrays: list["zarr.Array[Any]"]) -> None:
        _, *chunk = arrays[0].chunks
        self.first = self.count = 0
        self._capacity: int = chunk[0]
        self._fields = np.empty((len(arrays), *chunk), dtype=arrays[0].dtype)

    def full(self) -> bool:
        """Return whether the pending steps fill a chunk."""
        return self.count == self._capacity

    def add(self, fields: NDArray[np.float32]) -> None:
        """Take the fields [C, *grid] of the next kept step. Raises ValueError, see `append`."""
        try:
            with np.errstate(over="raise"):
                self._fields[:, self.count] = (
                    _without_tails(fields) if self._fields.dtype == np.float16 else fields
                )
        except FloatingPointError:
            raise ValueError(
                f"it has a value of {np.abs(fields).max():g}, but store.dtype is "
                f"{self._fields.dtype}, which ends at {np.finfo(self._fields.dtype).max:g}: "
                "set store.dtype to float32"
            ) from None
        self.count += 1

    def write(self, simulation: int, arrays: list["zarr.Array[Any]"]) -> None:
        """Write the steps to the arrays of the fields."""
        if not self.count:
            return
        positions = slice(self.first, self.first + self.count)
        for array, fields in zip(arrays, self._fields, strict=True):
            array[simulation, positions] = fields[: self.count]
        self.first, self.count = positions.stop, 0


def _without_tails(fields: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round small numbers as float16 does, and leave the others.

    numpy rounds them itself, but one by one: ten times slower for a field with long tails.
    """
    smallest = np.finfo(np.float16).smallest_normal
    step = np.float32(np.finfo(np.float16).smallest_subnormal)
    return np.where(np.abs(fields) < smallest, np.rint(fields / step) * step, fields)
