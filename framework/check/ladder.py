"""Runs of one simulation at ever finer settings, and the differences between successive runs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.check.clock import Clock, TooSlow
from framework.check.refinement import Refiner, TimeStep, shared_points
from framework.check.simulated import Fields, Simulated, middle, stepwise
from solvers.base import Solver

# How many levels a solver may refuse before it accepts one, and how often the time step may be
# halved for a finer grid.
_MOST_REFUSED, _MOST_HALVINGS = 10, 8
# How many levels are run in all.
_MOST_LEVELS = 10
# A run of the next level takes this many times as long, for each axis and for time.
_GROWTH = 2.0
# Initial or static fields that differ by more than this between two grids pose two problems.
_SAME = 0.1


@dataclass(frozen=True)
class _Run:
    """One level: the fields [C, *grid] at the start and in the middle of the stored steps."""

    solver: Solver
    initial: Fields
    later: Fields
    seconds: float


class Ladder:
    """The levels of refinement that were run, the coarsest first."""

    def __init__(
        self,
        subject: Simulated,
        clock: Clock,
        refine: Refiner,
        always: Mapping[str, Any],
        axes: int,
        step: TimeStep | None = None,
    ) -> None:
        """Run the first three levels that the solver accepts.

        `always`: settings of all levels. `axes`: how many axes `refine` refines. `step`: the time
        step, the same at all levels and as long as the finest grid permits, so that the differences
        are due to the grid alone.
        """
        self.end = ""  # why there is no further level
        self._subject, self._clock = subject, clock
        self._refine, self._always, self._axes, self._step = refine, always, axes, step
        self._halvings = 0  # of the time step
        self.first = 0  # the coarsest level
        self._runs: list[_Run] = []
        while not self._runs and self.first < _MOST_REFUSED and not self._add(self.first):
            self.first += 1
        if self._runs and self.finer():
            self.finer()

    def __str__(self) -> str:
        settings = (self._refine(self.first + i) or {} for i in range(len(self._runs)))
        levels = [" x ".join(f"{value:g}" for value in level.values()) for level in settings]
        names = ", ".join(self._refine(self.first) or {})
        apart = ", ".join(f"{value:.1e}" for value in self.differences())
        return f"{names} {', '.join(levels)}: differences {apart}" if apart else "no two levels ran"

    def finer(self) -> bool:
        """Run the next finer level; return False if there is none."""
        return self._add(self.first + len(self._runs))

    def coarser(self) -> bool:
        """Run the next coarser level; return False if there is none."""
        return self._add(self.first - 1)

    def differences(self) -> list[float]:
        """Return the relative difference between each level and the next."""
        by_points, by_cells = (
            [_apart(a.later, b.later, cells) for a, b in pairwise(self._runs)]
            for cells in (False, True)
        )
        return min(by_points, by_cells, key=lambda values: values[-1:])

    def two_problems(self) -> str:
        """Say how the problems of the two finest levels differ; an empty text if they do not."""
        if len(self._runs) < 2:
            return ""
        coarse, fine = self._runs[-2:]
        if fine.solver.stored_steps > 1 and _least_apart(coarse.initial, fine.initial) > _SAME:
            return (
                "the initial fields of two grids differ by more than a tenth (where the seed "
                "decides them, let it draw a function of place, not a number for each point)"
            )
        for name, values in coarse.solver.static_fields.items():
            if _least_apart(values[None], fine.solver.static_fields[name][None]) > _SAME / 10:
                return f"the static field {name} differs from grid to grid"
        return ""

    def _add(self, level: int) -> bool:
        """Run a level above or below those that were run; return False if there is none."""
        changes = self._refine(level)
        if changes is None:
            self.end = "there is no coarser level"
            return False
        finest = bool(self._runs) and level > self.first
        if len(self._runs) == _MOST_LEVELS:
            self.end = f"the order has not settled on {_MOST_LEVELS} levels"
            return False
        if finest:
            expected = _GROWTH**self._axes * self._runs[-1].seconds
            if expected > self._clock.left:
                self.end = f"a finer level takes about {expected:.0f} s (see --limit)"
                return False
        run = self._run(changes)
        if run is None and finest and self._step is not None:
            run = self._run_with_shorter_steps(changes, self._step)
        if run is None:
            self.end = "the next level is refused, not finite or too slow"
            return False
        self._runs.insert(0 if level < self.first else len(self._runs), run)
        self.first = min(self.first, level)
        return True

    def _run_with_shorter_steps(self, changes: Mapping[str, Any], step: TimeStep) -> _Run | None:
        """Run a level with the longest time step that it accepts; run the coarser levels again."""
        while self._halvings < _MOST_HALVINGS and self._clock.left > 0:
            self._halvings += 1
            self._always = {**self._always, **step.shortened(self._halvings)}
            if run := self._run(changes):
                levels = (self._refine(self.first + i) or {} for i in range(len(self._runs)))
                again = [self._run(level) for level in levels]
                if None in again:
                    return None
                self._runs = [coarser for coarser in again if coarser]
                return run
        return None

    def _run(self, changes: Mapping[str, Any]) -> _Run | None:
        """Run a level; return None if the solver refuses it, or it is not finite or too slow."""
        try:
            # A level need not simulate everything within the bounds, so they are not checked.
            solver = self._subject.maker.make(**{**self._always, **changes})
        except ValueError:
            return None
        last = max(solver.stored_steps // 2, min(solver.stored_steps - 1, 1))
        started = self._clock.spent
        fields: list[Fields] = []
        try:
            for values in stepwise(solver, self._clock, middle(solver)):
                fields.append(values)
                if len(fields) > last:
                    break
        except (TooSlow, ValueError, ArithmeticError):
            return None
        if not all(np.isfinite(values).all() for values in fields):
            return None
        return _Run(solver, fields[0], fields[-1], self._clock.spent - started)


def _apart(coarse: Fields, fine: Fields, cells: bool) -> float:
    """Return the relative difference of fields [C, *grid] in the inner half of every axis.

    It is the root mean square of the channel that differs most, relative to that of the channel
    itself.
    """
    shared = shared_points(coarse, fine, cells)
    if shared is None:
        return math.inf
    inner = tuple(slice(n // 4, n - n // 4) for n in coarse.shape[1:])
    greatest = 0.0
    for one, other in zip(coarse.astype(np.float64), shared.astype(np.float64), strict=True):
        change = _root_mean_square(one[inner] - other[inner])
        greatest = max(greatest, change / (_root_mean_square(other) or 1.0))
    return greatest


def _least_apart(coarse: Fields, fine: Fields) -> float:
    return min(_apart(coarse, fine, cells) for cells in (False, True))


def _root_mean_square(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(values).mean()))
