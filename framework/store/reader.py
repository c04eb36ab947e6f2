"""Reads a store's complete simulations, checking each for damage.

Shapes: S simulations, K kept steps, C fields, p parameters, `*grid` the grid's axes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from framework.errors import DamagedError, StudyError
from framework.files import absolute
from framework.store.layout import (
    array_of,
    attributes_of,
    read,
    what_zarr_says,
    zarr_store,
)
from framework.study import versions


class StoreReader:
    """Reads the simulations that were complete when the reader was made."""

    def __init__(self, path: str) -> None:
        """Open the store at `path`. Raises StudyError if there is none, DamagedError if damaged."""
        self.path = absolute(path)
        try:
            group = zarr.open_group(zarr_store(self.path, read_only=True), mode="r")
        except (OSError, ValueError) as error:
            raise StudyError(
                f"{self.path} is not a store that millstream has written: {what_zarr_says(error)}"
            ) from None
        self._attributes = attributes_of(group)
        written = self._attributes.get("millstream_format")
        if written != versions.STORE or "hash" not in self._attributes:
            raise StudyError(f"{self.path} is not a store of millstream's format {versions.STORE}")
        self.study: dict[str, Any] = self._attributes["study"]  # see study/identity.py
        self.field_names = tuple(self._attributes["fields"])
        with self._reading("it"):
            self.complete: NDArray[np.int64] = np.flatnonzero(read(group, "complete"))
            self.steps: NDArray[np.int64] = read(group, "time")  # [K]
            self.parameters: NDArray[np.float64] = read(group, "parameters")  # [S, p]
            self.t: NDArray[np.float64] = read(group, "t")  # [S, K]
            self._arrays = [array_of(group, name) for name in self.field_names]
        self.field_shape = (len(self._arrays), *self._arrays[0].shape[2:])  # [C, *grid]

    @property
    def identity(self) -> dict[str, Any]:
        """The identity of the data, as a run that trains on it records it."""
        hash = self._attributes["hash"]
        return {"path": self.path, "simulations": len(self.complete), "hash": hash}

    def fields(self, simulation: int) -> NDArray[np.float32]:
        """Read the fields [K, C, *grid] of a complete simulation. Raises DamagedError."""
        fields = np.empty((len(self.steps), *self.field_shape), dtype=np.float32)
        for channel in range(len(self._arrays)):
            fields[:, channel] = self.values(simulation, channel)
        return fields

    def fields_at(self, simulation: int, position: int) -> NDArray[np.float32]:
        """Read the fields [C, *grid] of a complete simulation at one position. Raises DamagedError.

        A position is a step's place among the kept steps.
        """
        at = slice(position, position + 1)
        channels = range(len(self._arrays))
        return np.concatenate(
            [self.values(simulation, channel, at) for channel in channels], dtype=np.float32
        )

    def chunks(self) -> list[slice]:
        """Return the positions that lie in one chunk each, and so are read together."""
        count, length = len(self.steps), self._arrays[0].chunks[1]
        return [slice(first, min(first + length, count)) for first in range(0, count, length)]

    def values(
        self, simulation: int, channel: int, positions: slice = slice(None)
    ) -> NDArray[np.floating]:
        """Read one field [k, *grid] of a complete simulation at `positions`, in the store's type.

        May be called from any thread. Raises DamagedError.
        """
        with self._reading(f"{self.field_names[channel]} of simulation {simulation}"):
            values: NDArray[np.floating] = np.asarray(self._arrays[channel][simulation, positions])
            if not np.isfinite(values).all():
                raise ValueError("a chunk is missing")
        return values

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            raise DamagedError(
                f"the store {self.path} is damaged, {what} cannot be read: "
                f"{what_zarr_says(error)}; restore it from a copy, or remove it and simulate again"
            ) from error
