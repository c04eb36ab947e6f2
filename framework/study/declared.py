"""What a solver declares, checked before it runs: what is there, and whether it agrees.

Also what it yields: real numbers that float32 can hold.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.base import Field, Grid, ParameterSpace, Solver

_NEEDED = ("parameters", "fields", "grid", "stored_steps")


def wrong_declarations(solver: Solver, needed: tuple[str, ...] = _NEEDED) -> list[str]:
    """Return a sentence for each attribute that is missing, of another type, or contradicts.

    `needed`: the attributes that have to be set.
    """
    missing = [name for name in needed if not hasattr(solver, name)]
    if missing:
        return [f"not set: {', '.join(missing)}; set them in the class or in its constructor"]
    if not isinstance(solver.grid, Grid):
        return [f"grid is {solver.grid!r}: it has to be a Grid(shape, spacing)"]
    checks: tuple[Callable[[Solver], Iterator[str]], ...] = (
        _wrong_names,
        _wrong_grid,
        _wrong_further,
    )
    return [sentence for check in checks for sentence in check(solver)]


def require_declarations(solver: Solver) -> None:
    """Raise ValueError with the first thing that is wrong with what a solver declares."""
    for sentence in wrong_declarations(solver):
        raise ValueError(sentence)


def as_float32(fields: ArrayLike) -> NDArray[np.float32]:
    """Return what a solver yielded as float32; a number that is too large becomes infinite.

    Raises ValueError if these are no real numbers: a cast would drop an imaginary part or a mask.
    """
    if isinstance(fields, np.ndarray) and fields.dtype == np.float32:
        return _without_mask(fields)
    array = _without_mask(np.asanyarray(fields))
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"yielded fields of the type {array.dtype}, but fields are real numbers: yield "
            + (
                "real and imaginary part as two fields"
                if array.dtype.kind == "c"
                else "them as float32"
            )
        )
    with np.errstate(over="ignore"):
        return np.asarray(array, dtype=np.float32)


def not_finite(given: NDArray[Any]) -> str:
    """Say why fields are not finite in float32, which were made of what was `given`."""
    if np.isfinite(given).all():
        most = float(np.abs(given.astype(np.float64)).max())
        return (
            f"yielded numbers up to {most:.3g}, but float32 holds up to "
            f"{np.finfo(np.float32).max:.3g}: choose other units"
        )
    return "yielded NaN or infinity"


def _without_mask(array: NDArray[Any]) -> NDArray[Any]:
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise ValueError(
            "yielded a masked array, whose mask would be lost: fill it, as in u * mask"
        )
    return np.asarray(array)


def _wrong_names(solver: Solver) -> Iterator[str]:
    space, fields = solver.parameters, solver.fields
    if not isinstance(space, ParameterSpace):
        yield f"parameters is {space!r}: it has to be a ParameterSpace(Parameter(...), ...)"
    elif not len(space):
        yield (
            "parameters is a ParameterSpace without parameters in it: every simulation would be "
            "the same; declare at least one"
        )
    if not isinstance(fields, tuple) or not all(isinstance(field, Field) for field in fields):
        yield f"fields is {fields!r}: it has to be a tuple such as (Field('u'),)"
    elif not fields or len({field.name for field in fields}) < len(fields):
        names = ", ".join(field.name for field in fields) or "empty"
        yield f"fields is {names}: it has to name one field or more, each once"


def _wrong_grid(solver: Solver) -> Iterator[str]:
    shape, spacing, steps = solver.grid.shape, solver.grid.spacing, solver.stored_steps
    if not (isinstance(shape, tuple) and 1 <= len(shape) <= 3 and all(map(_counts, shape))):
        yield f"grid.shape is {shape}: it has to be a tuple of one to three whole numbers from 1 on"
    elif not (
        isinstance(spacing, tuple)
        and len(spacing) == len(shape)
        and all(isinstance(h, int | float) and 0 < h < math.inf for h in spacing)
    ):
        yield f"grid.spacing is {spacing}: it has to be a tuple, a positive number for each axis"
    if not _counts(steps):
        yield f"stored_steps is {steps!r}: it has to be a whole number of at least 1"


def _wrong_further(solver: Solver) -> Iterator[str]:
    shape, settings = solver.grid.shape, solver.grid_settings
    # A subclass with a constructor of its own may not know what it inherits.
    own = "grid_settings" in vars(type(solver))
    if not isinstance(settings, tuple) or not all(isinstance(name, str) for name in settings):
        yield f"grid_settings is {settings!r}: it has to be a tuple of names, such as ('points',)"
    elif own and (unknown := set(settings) - set(inspect.signature(type(solver)).parameters)):
        yield f"grid_settings names {', '.join(sorted(unknown))}, which the constructor has not"
    if not isinstance(solver.uses_seed, bool):
        yield f"uses_seed is {solver.uses_seed!r}: it has to be True or False"
    if solver.affine is not None and np.shape(solver.affine) != (4, 4):
        yield f"affine is {solver.affine!r}: it has to be an array [4, 4]"
    for name, values in solver.static_fields.items():
        if np.shape(values) != shape:
            yield f"the static field {name} has shape {np.shape(values)}: it has to be {shape}"
        elif np.asarray(values).dtype.kind not in "fiub":
            yield (
                f"the static field {name} has the type {np.asarray(values).dtype}: it has to hold "
                "real numbers, best as float32"
            )
        elif not np.isfinite(as_float32(values)).all():
            yield f"the static field {name} has NaN, infinity, or a number too large for float32"


def _counts(value: object) -> bool:
    """Return whether a value is a whole number from 1 on, of Python's own: JSON has no others."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
