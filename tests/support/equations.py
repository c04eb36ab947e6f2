"""What the tests of the standard equations share: small solvers, and how to run them."""

import itertools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.base import BatchSolver
from solvers.burgers import Burgers
from solvers.darcy import Darcy
from solvers.gray_scott import GrayScott
from solvers.heat import Heat
from solvers.kuramoto_sivashinsky import KuramotoSivashinsky
from solvers.lorenz import Lorenz
from solvers.navier_stokes import NavierStokes

Array = NDArray[np.float64]

# Each in a size that takes no time.
SMALL: list[BatchSolver] = [
    Burgers(64, 6, 0.2),
    KuramotoSivashinsky(64, stored_steps=5, final_time=2.0),
    GrayScott(32, stored_steps=4, final_time=60.0, substeps=4),
    NavierStokes(32, 4, 0.3, 4),
    Darcy(17),
    Lorenz(6, 0.2),
    Heat(9, 5),
    Heat(9, 5, dimensions=1),
    Heat(7, 4, dimensions=3),
]
RANDOM = [solver for solver in SMALL if not isinstance(solver, Heat)]


def name(solver: BatchSolver) -> str:
    return f"{type(solver).__name__} {len(solver.grid.shape)}-D"


def run(solver: BatchSolver, parameters: ArrayLike, seed: int = 0) -> Array:
    """The fields [T, C, *grid] of one simulation."""
    return np.stack(list(solver.solve(np.asarray(parameters), seed))).astype(np.float64)


def batch(solver: BatchSolver, parameters: Array) -> NDArray[np.float32]:
    """The fields [T, B, C, *grid] of simulations with the seeds 0, 1, ..."""
    seeds = np.arange(len(parameters), dtype=np.uint64)
    return np.stack(list(solver.solve_batch(parameters, seeds)))


def corners(solver: BatchSolver) -> Array:
    """The parameters [2^p, p] at the corners of the prior."""
    ends = zip(solver.parameters.low, solver.parameters.high, strict=True)
    return np.array(list(itertools.product(*ends)))
