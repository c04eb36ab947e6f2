"""The solver that is checked, and its simulations.

Shapes: p parameters, C fields, T stored steps, `*grid` the grid's axes.
"""

from collections.abc import Iterable, Iterator
from itertools import islice, product

import numpy as np
from numpy.typing import NDArray

from framework.check.clock import Clock, TooSlow
from framework.check.maker import Maker
from framework.study.streams import Stream, generator
from solvers.base import Solver

Fields = NDArray[np.float32]
Values = NDArray[np.float64]

MOST_CORNERS = 16
# Any seed will do; this one does not fit into 32 bits.
SEED = 2**63 + 12345


class Simulated:
    """A solver and its maker. Its simulations end when a check's time is over."""

    def __init__(self, maker: Maker[Solver]) -> None:
        """Make the solver. Raises ValueError if its constructor does."""
        self.maker = maker
        self.solver = maker.make()

    @property
    def middle(self) -> Values:
        """Moderate parameters [p], each at another place around the middle of its range."""
        return middle(self.solver)

    def corners(self) -> Iterator[Values]:
        """Yield parameters [p] at the corners of the space, at most 16 of them."""
        p = len(self.solver.parameters)
        if 2**p <= MOST_CORNERS:
            units: Iterable[tuple[float, ...]] = product((0.0, 1.0), repeat=p)
        else:
            drawn = generator(SEED, Stream.CHECK).integers(0, 2, (MOST_CORNERS - 2, p))
            units = [(0.0,) * p, (1.0,) * p, *map(tuple, drawn.astype(float))]
        for unit in units:
            yield self.solver.parameters.from_unit(np.array(unit))

    def run(self, clock: Clock, parameters: Values, seed: int = SEED) -> Fields:
        """Return the fields [T, C, *grid] of one simulation.

        Raises TooSlow, and ValueError if the shapes of the fields differ.
        """
        return np.stack(list(stepwise(self.solver, clock, parameters, seed)))


def middle(solver: Solver) -> Values:
    """Return moderate parameters [p] of a solver, each at another place around the middle."""
    return solver.parameters.from_unit(np.linspace(0.4, 0.6, len(solver.parameters)))


def stepwise(
    solver: Solver, clock: Clock, parameters: Values, seed: int = SEED
) -> Iterator[Fields]:
    """Yield copies of the fields [C, *grid] of one simulation. Raises TooSlow."""
    given = parameters.copy()
    given.setflags(write=False)  # as arrays from Ray's object store are
    for step, fields in enumerate(islice(solver.solve(given, seed), solver.stored_steps)):
        with np.errstate(over="ignore"):  # becomes infinity, which is found
            yield np.array(fields, dtype=np.float32)
        require_time(solver, clock, step + 1)


def require_time(solver: Solver, clock: Clock, steps: int) -> None:
    """Raise TooSlow if there is no time left for more than `steps` stored steps."""
    if clock.left < 0:
        raise TooSlow(
            f"a simulation has {steps} of its {solver.stored_steps} stored steps after "
            f"{clock.limit:g} s"
        )


def difference(a: Fields, b: Fields) -> float:
    """Return the greatest difference between fields, relative to the greatest number in `a`."""
    scale = float(np.abs(a, dtype=np.float64).max()) or 1.0
    return float(np.abs(a.astype(np.float64) - b).max()) / scale
