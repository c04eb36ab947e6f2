"""What a trained surrogate is asked for, checked: parameters, times, and what to start from.

Shapes: n simulations, p parameters, T times asked for, C fields, S static fields, `*grid` the
grid's axes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from framework.errors import StudyError, did_you_mean
from framework.study.declared import as_float32
from solvers.base import Field, Grid, Parameter, Solver
from surrogates.base import Mode, Problem

# Times that differ by less, relative to the largest, are the same.
_SAME_TIME = 1e-6
# What numpy raises for what is no array, and torch for a tensor with gradients or on a GPU.
_NO_ARRAY = (TypeError, ValueError, RuntimeError)


@dataclass(frozen=True)
class TimePath:
    """The times that a surrogate goes through, and which of them were asked for."""

    t: NDArray[np.float64]  # [n, T']: of each simulation
    asked: NDArray[np.int64] | slice  # [T] of the T'
    steps: NDArray[np.int64] | None  # [T]: their numbers among the stored steps, if they are some


def parameter_values(
    parameters: Mapping[str, ArrayLike], declared: tuple[Parameter, ...], problem: Problem
) -> NDArray[np.float64]:
    """Return the values [p], or [n, p] where some are arrays [n], in the order of the problem.

    Raises StudyError unless there is a number with a meaning for each parameter.
    """
    ranges = {
        name: f"{name} in [{low:g}, {high:g}]"
        for name, low, high in zip(problem.names, problem.low, problem.high, strict=True)
    }
    for name in parameters:
        if name not in ranges:
            raise StudyError(
                f"{name} is not a parameter: there are {', '.join(ranges.values())}"
                + did_you_mean(name, ranges)
            )
    columns = []
    for item, log in zip(declared, problem.log, strict=True):
        if item.name not in parameters:
            given = ", ".join(ranges.values())
            raise StudyError(f"the parameter {item.name} is missing: give {given}")
        columns.append(_values_of(item, log, parameters[item.name], ranges[item.name]))
    try:
        return np.stack(np.broadcast_arrays(*columns), -1)
    except ValueError:
        counts = ", ".join(
            f"{name} {len(column)}"
            for name, column in zip(ranges, columns, strict=True)
            if column.ndim
        )
        raise StudyError(
            f"parameters have different numbers of values ({counts}): give as many of each, or one "
            "number for all"
        ) from None


def _values_of(item: Parameter, log: bool, given: ArrayLike, trained: str) -> NDArray[np.float64]:
    """Return the values [] or [n] of one parameter. Raises StudyError."""
    try:
        values = np.asarray(given, dtype=np.float64)
    except _NO_ARRAY:
        raise StudyError(f"{item.name} is {given!r}: give a number, {trained}") from None
    if values.ndim > 1 or not values.size:
        raise StudyError(
            f"{item.name} has shape {list(values.shape)}: give a number, or an array [n]"
        )
    flat = values.ravel()
    meaningless = (flat <= 0) if log else (flat < item.minimum)
    for wrong, remedy in (
        (~np.isfinite(flat), f"give a number, {trained}"),
        (
            meaningless,
            f"it has to be {'positive' if log else f'at least {item.minimum:g} {item.units}'}; "
            f"give {trained}",
        ),
    ):
        if wrong.any():
            first = int(wrong.argmax())
            where = f" in simulation {first}" if values.ndim else ""
            raise StudyError(f"{item.name} is {flat[first]:g}{where}: {remedy}")
    return values


def outside(values: NDArray[np.float64], problem: Problem) -> list[str]:
    """Return a sentence for each parameter of which values [n, p] lie outside what was trained."""
    sentences, inside = [], within(values, problem.low, problem.high)
    for index, name in enumerate(problem.names):
        low, high = problem.low[index], problem.high[index]
        wrong = ~inside[:, index]
        if not wrong.any():
            continue
        is_ = f"{name} is {values[wrong][0, index]:g}"
        many = f", and outside in {wrong.sum()} of {len(values)} simulations"
        sentences.append(
            f"{is_}{many if len(values) > 1 else ''}: the surrogate was trained within "
            f"[{low:g}, {high:g}] and knows nothing outside, so the fields may be wrong"
        )
    return sentences


def within(
    values: NDArray[np.float64], low: Sequence[float], high: Sequence[float]
) -> NDArray[np.bool_]:
    """Return which values [n, p] lie between the bounds [p]."""
    return (values >= np.array(low)) & (values <= np.array(high))


def path_through(
    times: ArrayLike | None, stored: NDArray[np.float64], mode: Mode, given: bool
) -> TimePath:
    """Return the path through the times asked for; None asks for those stored, [1 or n, T].

    An autoregressive surrogate makes steps of the length that it was trained with. So if the times
    asked for are some of those stored, it goes through the others, too. It begins at the first
    stored time, or, with `given` fields to start from, at the first time asked for. Raises
    StudyError.
    """
    if times is None:
        return TimePath(stored, slice(None), np.arange(stored.shape[1]))
    if mode == "direct":
        return TimePath(_ascending(times)[None], slice(None), None)
    return _rolled_out(_ascending(times), stored, given)


def _ascending(times: ArrayLike) -> NDArray[np.float64]:
    """Return the times [T]. Raises StudyError."""
    try:
        t = np.asarray(times, dtype=np.float64)
    except _NO_ARRAY:
        raise StudyError(f"times is {times!r}: give numbers that ascend") from None
    if t.ndim != 1 or not t.size or not np.isfinite(t).all() or (np.diff(t) <= 0).any():
        raise StudyError(f"times is {t.tolist()}: give one or more numbers that ascend")
    return t


def _rolled_out(t: NDArray[np.float64], stored: NDArray[np.float64], given: bool) -> TimePath:
    """Return the path of a rollout through the times [T]. Raises StudyError."""
    same = _SAME_TIME * np.abs([*stored[:, -1], t[-1]]).max()
    gaps = np.abs(t[:, None] - stored[0])
    if len(stored) == 1 and (gaps.min(1) <= same).all():
        steps = gaps.argmin(1)
        first = int(steps[0]) if given else 0
        return TimePath(stored[:, first : int(steps[-1]) + 1], steps - first, steps)
    if not given and (np.abs(stored[:, 0] - t[0]) > same).any():
        raise StudyError(
            f"times begins at {t[0]:g}, but a rollout begins at {stored[0, 0]:g}, the first stored "
            "time: begin there, or give the initial fields"
        )
    return TimePath(t[None], slice(None), None)


def given_state(
    initial: ArrayLike | Mapping[str, ArrayLike], fields: tuple[Field, ...], grid: Grid, n: int
) -> NDArray[np.float32]:
    """Return the fields [1 or n, C, *grid] to start from; a mapping has [*grid] or [n, *grid].

    Raises StudyError.
    """
    names, shape = [field.name for field in fields], (len(fields), *grid.shape)
    try:
        if isinstance(initial, Mapping):
            missing = [name for name in names if name not in initial]
            if missing:
                raise ValueError(f"they have no {', '.join(missing)}")
            columns = [as_float32(np.asarray(initial[name])) for name in names]
            state = np.stack(columns, columns[0].ndim - len(grid.shape))
        else:
            state = as_float32(np.asarray(initial))
    except _NO_ARRAY as error:
        raise StudyError(f"the initial fields cannot be used: {error}") from None
    if state.shape not in (shape, (n, *shape)):
        many = f", or [n] times that for {n} simulations" if n > 1 else ""
        raise StudyError(
            f"the initial fields have shape {list(state.shape)}, but the surrogate starts from "
            f"{list(shape)}: the fields {', '.join(names)} on the grid{many}"
        )
    if not np.isfinite(state).all():
        raise StudyError("the initial fields are not all finite")
    return state.reshape(-1, *shape)


def given_static(static: Mapping[str, ArrayLike], solver: Solver) -> NDArray[np.float32]:
    """Return the static fields [S, *grid], those given in place of the solver's.

    Raises StudyError.
    """
    shape, known = solver.grid.shape, solver.static_fields
    for name, values in static.items():
        if name not in known:
            has = f"there are {', '.join(known)}" if known else "the surrogate is told none"
            raise StudyError(f"{name} is not a static field: {has}{did_you_mean(name, known)}")
        if np.shape(values) != shape:
            raise StudyError(
                f"the static field {name} has shape {list(np.shape(values))}: it has to be "
                f"{list(shape)}, the grid's"
            )
    try:
        fields = [as_float32(np.asarray(static.get(name, known[name]))) for name in known]
    except _NO_ARRAY as error:
        raise StudyError(f"the static fields cannot be used: {error}") from None
    if not all(np.isfinite(values).all() for values in fields):
        raise StudyError("the static fields are not all finite")
    return np.array(fields)
