"""The orders of convergence that a solver claims, measured by Richardson's method.

Each run is twice as fine as the one before: the differences between successive runs fall by 2 to
the power of the order. Fields are compared in the middle of the stored steps and in the inner half
of every axis, at the points that all runs have.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

from framework.check.clock import Clock
from framework.check.findings import Finding, failed, passed, skipped
from framework.check.ladder import Ladder
from framework.check.refinement import (
    coarse_grids,
    exact_settings,
    fewer_stored_steps,
    grid_refinement,
    time_step,
)
from framework.check.simulated import Simulated

# A measured order may be lower than the claimed one by this part.
TOLERANCE = 0.15
# Two measured orders that differ by no more than this part count as the solver's own.
_SETTLED = 0.15
# The order that a solver of infinite order has to show at least once.
_SPECTRAL = 6.0
# Relative differences above this say nothing about the order.
_SMALL_DIFFERENCE = 0.05
# Below the first they are rounding, and below the second they may be: a fall of the order there is
# due to rounding.
_AT_ROUNDING, _NEAR_ROUNDING = 1e-6, 1e-5


def check_time_order(subject: Simulated, clock: Clock) -> Iterator[Finding]:
    """Halved time steps show `order.time`."""
    step = time_step(subject)
    if step is None:
        yield skipped(
            "no setting refines the time step: it would be a number named substeps, step or dt"
        )
        return
    exact, claimed = exact_settings(subject), subject.solver.order.time
    finding = skipped("no run was accepted")
    for grid in coarse_grids(subject):
        for stored in fewer_stored_steps(subject):
            ladder = Ladder(subject, clock, step.level, {**exact, **grid, **stored}, axes=1)
            finding = _finding(ladder, claimed, "order.time")
            if finding.outcome != "skipped":
                yield finding
                return
            if ladder.first > 0:  # longer time steps were refused: fewer stored steps do not help
                break
    yield finding


def check_space_order(subject: Simulated, clock: Clock) -> Iterator[Finding]:
    """Grids of half the spacing show `order.space`."""
    refine = grid_refinement(subject)
    if refine is None:
        yield skipped(
            "no setting refines the grid: it would be a whole number that halves grid.spacing"
        )
        return
    step, order = time_step(subject), subject.solver.order
    axes = len(subject.solver.grid.shape)
    ladder = Ladder(subject, clock, refine, exact_settings(subject), axes, step)
    if step is not None:  # all grids then have the same time steps
        yield _finding(ladder, order.space, "order.space")
    else:
        yield _finding(ladder, min(order.space, order.time), "the lower one of order")


def _finding(ladder: Ladder, claimed: float, what: str) -> Finding:
    """Return the finding about a claimed order; refine until the measured one has settled."""
    least = _SPECTRAL if math.isinf(claimed) else (1 - TOLERANCE) * claimed
    while True:
        if why := ladder.two_problems():
            return skipped(f"not measured, as {why}")
        differences = ladder.differences()
        orders = _orders(differences, math.isinf(claimed))
        small = bool(differences) and differences[-1] < _SMALL_DIFFERENCE
        if _settled(orders, math.isinf(claimed)) and small:
            break
        if not (ladder.coarser() if _at_rounding(differences) else ladder.finer()):
            if not (orders and small and orders[-1] >= least):
                return skipped(f"not measured, as {_obstacle(ladder)}: {ladder}")
            break
    if _limit(orders) >= least:
        return passed(f"{orders[-1]:.2f}, {what} is {claimed:g}: {ladder}")
    return failed(
        f"{orders[-1]:.2f}, but {what} is {claimed:g}: {ladder}",
        f"Mend the scheme, also at its boundaries and in its initial state, or claim the order "
        f"{max(math.floor(orders[-1] + TOLERANCE), 0)}.",
    )


def _obstacle(ladder: Ladder) -> str:
    """Say why the order cannot be measured."""
    if _at_rounding(ladder.differences()):
        return "the coarsest run that is accepted is exact to rounding"
    return ladder.end


def _at_rounding(differences: list[float]) -> bool:
    """Return whether finer levels would only differ by rounding."""
    stagnant = len(differences) > 1 and differences[-1] > differences[-2] / 2
    least = _NEAR_ROUNDING if stagnant else _AT_ROUNDING
    return bool(differences) and differences[-1] < least


def _orders(differences: list[float], spectral: bool) -> list[float]:
    """Return the orders that pairs of differences show, without those spoilt by rounding.

    The difference of a spectral solver may fall to rounding, but not start there.
    """
    orders: list[float] = []
    for coarse, fine in pairwise(differences):
        if (coarse if spectral else fine) < (_NEAR_ROUNDING if spectral else _AT_ROUNDING):
            break
        order = math.log2(coarse / fine) if fine > 0 else math.inf
        if not spectral and fine < _NEAR_ROUNDING and orders and order < orders[-1] - 1:
            break
        orders.append(order)
    return orders


def _settled(orders: list[float], spectral: bool) -> bool:
    """Return whether the last order is the solver's own."""
    if spectral and orders and orders[-1] >= _SPECTRAL:
        return True
    if len(orders) < 2:
        return False
    return abs(orders[-1] - orders[-2]) <= _SETTLED * max(abs(orders[-1]), 1.0)


def _limit(orders: list[float]) -> float:
    """Extrapolate the orders, as if the error halved from one to the next; at least the last."""
    return max(2 * orders[-1] - orders[-2], orders[-1]) if len(orders) > 1 else orders[-1]
