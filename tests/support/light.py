"""A solver with the parameters and the field of heat's, whose process starts at once.

It imports no torch, which takes a process seconds, and computes a formula.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from solvers.base import BatchSolver, Field, Grid, Order, Parameter, ParameterSpace


class Light(BatchSolver):
    """T = sides + (initial - sides) exp(-t / 0.05) sin(pi x) sin(pi y) on the unit square.

    `sides` [K] is bilinear in the temperatures of the four sides.
    """

    parameters = ParameterSpace(
        *(Parameter(name, 100, 500, "K") for name in ("initial", "left", "right", "bottom", "top"))
    )
    fields = (Field("temperature", "K"),)
    order = Order(space=1, time=1)

    def __init__(
        self, grid_size: int = 16, stored_steps: int = 10, final_time: float = 0.1
    ) -> None:
        self.grid = Grid((grid_size, grid_size), (1 / (grid_size - 1),) * 2)
        self.stored_steps, self.final_time = stored_steps, final_time

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.linspace(0, self.final_time, self.stored_steps)

    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        x = np.linspace(0, 1, self.grid.shape[1])
        y = np.linspace(0, 1, self.grid.shape[0])[:, None]
        initial, left, right, bottom, top = parameters.T[:, :, None, None]
        sides = ((1 - x) * left + x * right + (1 - y) * bottom + y * top) / 2
        bump = np.sin(np.pi * x) * np.sin(np.pi * y)
        for t in self.times(parameters):
            fields = sides + (initial - sides) * np.exp(-t / 0.05) * bump
            yield fields[:, None].astype(np.float32)
