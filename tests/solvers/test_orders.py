"""Every solver's claimed orders, measured: runs are refined twofold, and the differences between
one run and the next fall by two to the power of the order.

A solver is added with a line for time and a line for space.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from solvers.base import Solver
from solvers.burgers import Burgers
from solvers.darcy import Darcy
from solvers.gray_scott import GrayScott
from solvers.heat import Heat
from solvers.kuramoto_sivashinsky import KuramotoSivashinsky
from solvers.lorenz import Lorenz
from solvers.navier_stokes import NavierStokes

# The settings of the spectral solvers.
FINE = {"stored_steps": 2, "precision": "float64"}


@dataclass(frozen=True)
class Case:
    """What is refined, in time by more steps or in space by more points, `refinements` times."""

    name: str
    axis: Literal["time", "space"]
    make: Callable[[int], Solver]  # with n the number that is doubled
    first: int  # n of the coarsest run
    refinements: int = 3


CASES = [
    Case("heat 1-D", "time", lambda n: Heat(17, 2, 0.1, n, dimensions=1), 8),
    Case("heat 2-D", "time", lambda n: Heat(17, 2, 0.1, n), 8),
    Case("heat 3-D", "time", lambda n: Heat(9, 2, 0.1, n, dimensions=3), 8),
    Case("heat 1-D", "space", lambda n: Heat(n + 1, 2, 0.05, 64, dimensions=1), 8),
    Case("heat 2-D", "space", lambda n: Heat(n + 1, 2, 0.05, 64), 8),
    Case("heat 3-D", "space", lambda n: Heat(n + 1, 2, 0.05, 64, dimensions=3), 8),
    Case("lorenz", "time", lambda n: Lorenz(2, 1.0, n), 32),
    Case("burgers", "time", lambda n: Burgers(32, final_time=0.5, substeps=n, **FINE), 16),
    Case("burgers", "space", lambda n: Burgers(n, final_time=0.1, substeps=40, **FINE), 96, 2),
    Case(
        "kuramoto_sivashinsky",
        "time",
        lambda n: KuramotoSivashinsky(64, final_time=4.0, substeps=n, **FINE),
        16,
    ),
    Case(
        "kuramoto_sivashinsky",
        "space",
        lambda n: KuramotoSivashinsky(n, final_time=4.0, substeps=40, **FINE),
        64,
        2,
    ),
    Case("gray_scott", "time", lambda n: GrayScott(32, final_time=100.0, substeps=n, **FINE), 12),
    Case("gray_scott", "space", lambda n: GrayScott(n, final_time=20.0, substeps=5, **FINE), 48, 2),
    Case("navier_stokes", "time", lambda n: NavierStokes(32, 2, 0.8, n, "float64"), 16),
    Case("navier_stokes", "space", lambda n: NavierStokes(n, 2, 0.2, 16, "float64"), 32, 2),
    Case("darcy", "space", lambda n: Darcy(n + 1), 32),
]


pytestmark = pytest.mark.usefixtures("one_thread")


def last_field(case: Case, refinement: int) -> NDArray[np.float64]:
    """The last field, in space at the points that all runs have, away from sides and corners."""
    solver = case.make(case.first * 2**refinement)
    unit = np.linspace(0.1, 0.9, len(solver.parameters))  # all different, and inside the prior
    *_, field = solver.solve(solver.parameters.from_unit(unit), seed=3)
    if case.axis == "space":
        shared = [slice(None, None, 2**refinement)] * len(solver.grid.shape)
        inside = [slice(case.first // 4, -(case.first // 4))] * len(solver.grid.shape)
        field = field[(..., *shared)][(..., *inside)]
    return field.astype(np.float64)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name} in {case.axis}")
def test_refinement_shows_the_claimed_order(case: Case) -> None:
    claimed = getattr(case.make(case.first).order, case.axis)
    fields = [last_field(case, refinement) for refinement in range(case.refinements + 1)]
    scale = np.abs(fields[-1]).max()
    changes = [np.abs(fine - coarse).max() / scale for coarse, fine in pairwise(fields)]
    observed = np.log2(np.divide(changes[:-1], changes[1:]))
    if math.isinf(claimed):  # spectral: faster than any power of the spacing
        assert changes[-1] < 1e-5, changes
        assert observed[-1] > 7, changes
    else:
        assert np.abs(observed[-1] - claimed) < 0.15 * claimed, (observed, changes)
