"""The settings that refine a solver's grid and its time step, found by trying.

A grid is refined by halving its spacing. The points are then nested: those of the coarse grid are
every other one of the fine grid, or a coarse cell is a pair of fine ones.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from framework.check.simulated import Fields, Simulated, middle
from solvers.base import Grid, Solver

# Returns the settings at a level of refinement; level 0 is the coarsest that is tried at first.
# None: there is no such level, as half a point would be needed.
Refiner = Callable[[int], Mapping[str, Any] | None]

# The setting for double precision, so that rounding hides nothing.
_DOUBLE_PRECISION = ("precision", "float64")
# How much coarser the first grid is than the one of the given settings.
_COARSER = 4


@dataclass(frozen=True)
class _Axis:
    """An integer setting that sets the points of an axis: the intervals are setting + offset."""

    name: str
    intervals: int  # at level 0
    offset: int

    def value(self, level: int) -> int | None:
        """Return the setting at a level of refinement; None if that is no whole number."""
        value = self.intervals * 2.0**level
        return int(value) - self.offset if value == int(value) else None


def exact_settings(subject: Simulated) -> Mapping[str, Any]:
    """Return the settings that make a solver compute in double precision, if it has them."""
    name, value = _DOUBLE_PRECISION
    return {name: value} if name in subject.maker.settings and made(subject, {name: value}) else {}


def made(subject: Simulated, changes: Mapping[str, Any]) -> Solver | None:
    """Make the solver with some settings changed; None if it refuses them or its own bounds."""
    try:
        solver = subject.maker.make(**changes)
        solver.check(solver.parameters)
    except ValueError:
        return None
    return solver


def grid_refinement(subject: Simulated) -> Refiner | None:
    """Return how to halve the spacing along every axis; None if no setting does that."""
    axes = [
        axis
        for name, value in subject.maker.settings.items()
        if isinstance(value, int) and not isinstance(value, bool) and value > 1
        if (axis := _axis(subject, name, value))
    ]
    if not axes:
        return None

    def refine(level: int) -> Mapping[str, Any] | None:
        values = {axis.name: axis.value(level) for axis in axes}
        return None if None in values.values() else values

    return refine


def _axis(subject: Simulated, name: str, value: int) -> _Axis | None:
    """Return the axis that a setting refines: doubling it, give or take 1, halves the spacing."""
    for offset in (0, -1, 1):
        try:
            solver = subject.maker.make(**{name: 2 * (value + offset) - offset})
        except ValueError:
            continue
        if _halves(subject.solver.grid, solver.grid):
            return _Axis(name, max((value + offset) // _COARSER, 1), offset)
    return None


def _halves(coarse: Grid, fine: Grid) -> bool:
    """Return whether the spacing is half along some axes, and the same along the others."""
    if len(coarse.spacing) != len(fine.spacing):
        return False
    ratios = np.divide(coarse.spacing, fine.spacing)
    halved = np.isclose(ratios, 2, rtol=1e-6)
    return bool(halved.any() and (halved | np.isclose(ratios, 1, rtol=1e-6)).all())


@dataclass(frozen=True)
class TimeStep:
    """The setting of the time step: an integer to be doubled, or a number to be halved.

    Level 0 is a single time step, or the number as it is given.
    """

    name: str
    given: int | float

    def level(self, level: int) -> Mapping[str, Any] | None:
        """Return the setting at a level of refinement."""
        if level < 0:
            return None
        finer = 2**level if isinstance(self.given, int) else self.given / 2**level
        return {self.name: finer}

    def shortened(self, halvings: int) -> Mapping[str, Any]:
        """Return the setting for time steps shorter than the given ones."""
        factor = 2**halvings
        given = self.given
        return {self.name: given * factor if isinstance(given, int) else given / factor}


def time_step(subject: Simulated) -> TimeStep | None:
    """Return the setting of the time step, if there is one.

    Its name is like `substeps`, `step` or `dt`, and it changes neither grid nor stored times.
    """
    for name, value in subject.maker.settings.items():
        named = "step" in name or name in ("dt", "cfl", "courant")
        if not named or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        step = TimeStep(name, value)
        solver = made(subject, step.shortened(1))
        if solver is not None and _alike(subject.solver, solver):
            return step
    return None


def coarse_grids(subject: Simulated) -> list[Mapping[str, Any]]:
    """Return settings for coarser grids, which permit longer time steps, then for this grid."""
    refine = grid_refinement(subject)
    levels = [refine(level) for level in (-1, 0)] if refine else []
    return [*filter(None, levels), {}]


def fewer_stored_steps(subject: Simulated) -> Iterator[Mapping[str, Any]]:
    """Yield settings for the stored steps as they are, then for ever fewer up to the same end.

    The time between two stored steps grows, and with it the longest time step.
    """
    yield {}
    solver = subject.solver
    intervals, end = solver.stored_steps - 1, solver.times(middle(solver))[-1]
    names = [name for name, value in subject.maker.settings.items() if value == solver.stored_steps]
    while names and intervals > 1:
        intervals = max(intervals // _COARSER, 1)
        changes = {names[0]: intervals + 1}
        try:
            fewer = subject.maker.make(**changes)
        except ValueError:
            return
        if fewer.stored_steps != intervals + 1 or fewer.times(middle(fewer))[-1] != end:
            return
        yield changes


def _alike(one: Solver, other: Solver) -> bool:
    """Return whether two solvers have the same grid and the same stored times."""
    same = one.grid == other.grid and one.stored_steps == other.stored_steps
    return same and np.array_equal(one.times(middle(one)), other.times(middle(other)))


def shared_points(coarse: Fields, fine: Fields, cells: bool) -> Fields | None:
    """Return fine fields [C, *grid] at the points of coarse ones; None if they share none.

    `cells`: where there are twice as many points, take the mean of a pair, not its first point.
    """
    shared = fine
    for axis, n in enumerate(coarse.shape):
        m = fine.shape[axis]
        first, second = (np.take(shared, np.arange(start, m, 2), axis) for start in (0, 1))
        if m == 2 * n:
            shared = np.asarray((first + second) / 2, dtype=fine.dtype) if cells else first
        elif m == 2 * n - 1 > n:
            shared = first
        elif m == 2 * n + 1:
            shared = second
        elif m != n:
            return None
    return shared
