"""Observed values of a solver's fields, on the grid or by sensors, and their noise.

They come in a numpy .npz file. For each observed field NAME, one of the solver's, it has:

    NAME            values: [*grid], or [m] with positions, in the field's units
    NAME.mask       [*grid], true where observed; without one, everywhere
    NAME.positions  [m, d] of m sensors: a column for each axis of the grid, in their order, in the
                    grid's units of length, with its first point at 0; if the solver has an affine,
                    in mm of that space. Between grid points fields are interpolated linearly
    NAME.noise      standard deviation: one number, or in the shape of the values; without it 1
    time            the stored time of the observation; without it, it may be any stored time

The distance of fields from the observation is the sum of ((field - value) / noise)^2 over all
observed values: under independent Gaussian noise, -2 log likelihood up to a constant.

Shapes: C fields, k steps, m observed values of a field, q grid points that a value depends on,
d axes of the grid, `*grid` the grid's axes.
"""

import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from framework.errors import StudyError, reason
from solvers.base import Solver

_PARTS = ("mask", "positions", "noise")
# Rounding may put a sensor this far outside the grid, in units of its spacing.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class ObservedField:
    """The observed values [m] of one field.

    Without `points`, the values are those at every grid point. With `points` [m], they are those at
    these points of the flattened grid. With `shares` [m, q] too, each is the sum of the field at
    `points` [m, q] times the shares.
    """

    values: NDArray[np.float64]
    precision: NDArray[np.float64]  # 1 / noise [m]
    points: NDArray[np.intp] | None = None
    shares: NDArray[np.float64] | None = None
    stated: bool = True  # whether the file gives the noise; if not, it was taken for 1

    def distance(self, field: NDArray[np.floating]) -> float:
        """Return the distance of the field [*grid]; in float64, the same for the same numbers."""
        values = field.reshape(-1)
        if self.points is not None:
            values = values[self.points]
        error = values.astype(np.float64)
        if self.shares is not None:
            error = (error * self.shares).sum(-1)
        error -= self.values
        error *= self.precision
        with np.errstate(over="ignore"):  # infinity is far enough
            return float(np.square(error, out=error).sum())


@dataclass(frozen=True)
class FieldObservation:
    """Observed fields by channel, at the stored time `time`, or at an unknown one."""

    fields: Mapping[int, ObservedField]
    time: float | None = None

    @classmethod
    def read(cls, path: str | Path, solver: Solver) -> Self:
        """Read a file of the solver's fields, see above. Raises StudyError."""
        arrays = _load_arrays(path)
        try:
            return cls(*_observed_fields(arrays, solver))
        except ValueError as error:
            raise StudyError(f"{path}: {error}") from None

    def distance(self, fields: NDArray[np.floating]) -> float:
        """Return the distance of the fields [C, *grid] at one time."""
        return sum(seen.distance(fields[channel]) for channel, seen in self.fields.items())

    def at(self, t: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which of the stored times `t` may be that of the observation."""
        if self.time is None:
            return np.ones(t.shape, dtype=bool)
        tolerance = 1e-6 * max(np.abs(t).max(initial=0), abs(self.time))
        near: NDArray[np.bool_] = abs(t - self.time) <= tolerance
        return near


def _load_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise ValueError
            return {name: loaded[name] for name in loaded}
    except FileNotFoundError:
        raise StudyError(f"{path} cannot be read: there is no such file") from None
    except (IsADirectoryError, PermissionError) as error:
        raise StudyError(f"{path} cannot be read: {reason(error)}") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        raise StudyError(
            f"{path} is damaged or not a numpy .npz file of numbers: write it with numpy.savez"
        ) from None


def _observed_fields(
    arrays: Mapping[str, NDArray[Any]], solver: Solver
) -> tuple[dict[int, ObservedField], float | None]:
    """Return the observed fields by channel, and the time. Raises ValueError."""
    names = [field.name for field in solver.fields]
    known = {"time", *names, *(f"{name}.{part}" for name in names for part in _PARTS)}
    for key, array in arrays.items():
        if key not in known:
            raise ValueError(
                f"it has {key}, but the solver's fields are {', '.join(names)}: keys are NAME, "
                "NAME.mask, NAME.positions, NAME.noise and time"
            )
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{key} is of the type {array.dtype}: it has to be real numbers")
        name, dot, _ = key.rpartition(".")
        if dot and key not in names and name not in arrays:
            raise ValueError(f"it has {key}, but no {name}, the values that were observed")
    time = _finite_number(arrays["time"], "time") if "time" in arrays else None
    found = {
        channel: _observed_field(name, arrays, solver)
        for channel, name in enumerate(names)
        if name in arrays
    }
    if not found:
        raise ValueError(f"it has no field: it needs one of {', '.join(names)}")
    return found, time


def _observed_field(name: str, arrays: Mapping[str, NDArray[Any]], solver: Solver) -> ObservedField:
    """Return one observed field. Raises ValueError."""
    values = arrays[name].astype(np.float64)
    grid = solver.grid.shape
    mask, positions = arrays.get(f"{name}.mask"), arrays.get(f"{name}.positions")
    points = shares = None
    if positions is not None:
        if mask is not None:
            raise ValueError(f"{name} has a mask and positions: give one of the two")
        points, shares = _interpolation(f"{name}.positions", positions.astype(np.float64), solver)
        _require_shape(name, values, (len(points),), "one for each position")
        observed = np.ones(values.shape, dtype=bool)
    else:
        _require_shape(name, values, grid, "the grid")
        observed = np.ones(grid, dtype=bool)
        if mask is not None:
            _require_shape(f"{name}.mask", mask, grid, "the grid")
            if not np.isin(mask, (0, 1)).all():
                raise ValueError(f"{name}.mask has other values than true and false, or 1 and 0")
            observed = mask != 0
            points = np.flatnonzero(observed)
    if not observed.any():
        raise ValueError(f"nothing is observed of {name}: it has no value, or its mask is empty")
    noise = arrays.get(f"{name}.noise", np.ones(())).astype(np.float64)
    if noise.shape:
        _require_shape(f"{name}.noise", noise, values.shape, "one number, or as its values")
    noise = np.broadcast_to(noise, values.shape)[observed]
    values = values[observed]
    if bad := np.count_nonzero(~np.isfinite(values)):
        raise ValueError(
            f"{name} is not finite at {bad} of {len(values)} observed points: leave those out"
        )
    with np.errstate(divide="ignore", over="ignore"):
        precision = 1 / noise
    if bad := np.count_nonzero(~(np.isfinite(precision) & (precision > 0))):
        raise ValueError(
            f"{name}.noise is not a positive, finite standard deviation at {bad} of "
            f"{len(values)} observed points"
        )
    stated = f"{name}.noise" in arrays
    return ObservedField(values, precision, points, shares, stated)


def _interpolation(
    key: str, positions: NDArray[np.float64], solver: Solver
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the grid points around positions [m, d] and their shares, both [m, 2^d].

    Raises ValueError if a position is outside the grid.
    """
    grid = solver.grid
    if positions.ndim != 2 or positions.shape[1] != len(grid.shape):
        raise ValueError(
            f"{key} has shape {positions.shape}: it has to be (sensors, {len(grid.shape)}), a "
            "column for each axis of the grid"
        )
    if not np.isfinite(positions).all():
        raise ValueError(f"{key} has a position that is not finite")
    last = np.array(grid.shape) - 1
    if solver.affine is not None:
        inverse = np.linalg.inv(solver.affine)
        place = positions @ inverse[:3, :3].T + inverse[:3, 3]
        extent = "the solver's space in mm"
    else:
        place = positions / grid.spacing
        ends = (f"{end:g}" for end in last * np.array(grid.spacing))
        extent = f"from 0 to ({', '.join(ends)}) {grid.units}"
    outside = ((place < -_ROUNDING) | (place > last + _ROUNDING)).any(-1)
    if outside.any():
        raise ValueError(
            f"{outside.sum()} of {len(place)} sensors in {key} lie outside the grid, {extent}"
        )
    place = place.clip(0, last)
    below = np.minimum(np.floor(place).astype(np.intp), np.maximum(last - 1, 0))
    corners = np.indices((2,) * len(last)).reshape(len(last), -1).T  # [2^d, d]
    # An axis of one point has nothing above it: that corner has a share of 0.
    indices = np.minimum(below[:, None] + corners, last)  # [m, 2^d, d]
    part = (place - below)[:, None]
    shares: NDArray[np.float64] = np.where(corners == 1, part, 1 - part).prod(-1)
    points = np.ravel_multi_index(tuple(np.moveaxis(indices, -1, 0)), grid.shape)
    return np.asarray(points, dtype=np.intp), shares


def _require_shape(key: str, array: NDArray[Any], shape: tuple[int, ...], of: str) -> None:
    if array.shape != shape:
        raise ValueError(f"{key} has shape {array.shape}: it has to be {shape}, {of}")


def _finite_number(array: NDArray[Any], key: str) -> float:
    if array.size != 1 or not math.isfinite(array.item()):
        raise ValueError(f"{key} has to be one finite number")
    return float(array.item())
