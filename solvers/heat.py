"""Heat conduction on the unit square, each side held at its own temperature."""

import math
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from solvers.base import BatchSolver, Field, Grid, Order, Parameter, ParameterSpace

# The L-stable, second-order, two-stage SDIRK of Alexander (SIAM J. Numer. Anal. 14, 1977).
_GAMMA = 1 - 1 / math.sqrt(2)


class Heat(BatchSolver):
    """du/dt = d2u/dx2 + d2u/dy2 on the unit square, unit diffusivity.

    Channel: temperature u [K]; axis 0 is y from bottom to top, axis 1 is x from left to right, and
    the outermost nodes lie on the sides. Parameters, each uniform in 100-500 K: the uniform
    `initial` temperature of the inside, and the temperatures at which the sides `left` (x = 0),
    `right`, `bottom` (y = 0) and `top` are held; a corner has the mean of its two sides. By time
    0.1 the slowest mode has decayed to exp(-2 pi^2 0.1) = 14 %. The study of arXiv 2306.16133.

    Scheme: the five-point Laplacian (second order in space) and an L-stable SDIRK (second order in
    time, stable for every step, damps the jump between inside and sides). Its linear systems are
    solved exactly, as the sine transform diagonalises them: with w the discrete steady state, every
    sine mode of u - w is multiplied in each step by the scheme's stability function
    R(z) = (1 + (1 - 2 gamma) z) / (1 - gamma z)^2, z = time step * eigenvalue.
    Computes in float64.
    """

    parameters = ParameterSpace(
        *(
            Parameter(name, 100.0, 500.0, "K", minimum=0.0)
            for name in ("initial", "left", "right", "bottom", "top")
        )
    )
    fields = (Field("temperature", "K"),)
    order = Order(space=2, time=2)

    def __init__(
        self,
        grid_size: Annotated[int, Ge(3)] = 64,
        stored_steps: Annotated[int, Ge(2)] = 50,
        final_time: Annotated[float, Gt(0)] = 0.1,
        substeps: Annotated[int, Ge(1)] = 4,
    ) -> None:
        """`grid_size` nodes along each axis; `stored_steps` times from 0 to `final_time`, with
        `substeps` time steps of the scheme between two of them. With the defaults the field stays
        within the range of its five temperatures; a step four times as long (`substeps=1`) takes it
        out of the range early on, by up to 11 % of the range."""
        self.grid = Grid((grid_size,) * 2, (1 / (grid_size - 1),) * 2)
        self.stored_steps = stored_steps
        self.final_time = final_time
        self.substeps = substeps

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.linspace(0.0, self.final_time, self.stored_steps)

    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        # n: inner nodes along an axis. Nothing here is random, so the seeds are not used.
        values = torch.tensor(parameters, dtype=torch.float64, device=device)
        initial, left, right, bottom, top = values[:, :, None, None].unbind(1)  # [B, 1, 1] each
        n, spacing = self.grid.shape[0] - 2, self.grid.spacing[0]

        field = initial.repeat(1, n + 2, n + 2)
        field[:, :, 0], field[:, :, -1] = left[:, 0], right[:, 0]
        field[:, 0, :], field[:, -1, :] = bottom[:, 0], top[:, 0]
        for row, horizontal in ((0, bottom), (-1, top)):
            for column, vertical in ((0, left), (-1, right)):
                field[:, row, column] = (horizontal + vertical)[:, 0, 0] / 2

        mode = torch.arange(1, n + 1, dtype=torch.float64, device=device)
        sine = math.sqrt(2 / (n + 1)) * torch.sin(math.pi / (n + 1) * mode[:, None] * mode)
        along_axis = -((2 / spacing * torch.sin(math.pi / (2 * (n + 1)) * mode)) ** 2)
        eigenvalues = along_axis[:, None] + along_axis

        # What the sides contribute to the Laplacian of the inner nodes next to them.
        inflow = torch.zeros_like(field[:, 1:-1, 1:-1])
        inflow[:, :, 0] += left[:, 0]
        inflow[:, :, -1] += right[:, 0]
        inflow[:, 0, :] += bottom[:, 0]
        inflow[:, -1, :] += top[:, 0]
        steady = sine @ (-(sine @ inflow @ sine) / (spacing**2 * eigenvalues)) @ sine

        deviation = sine @ (field[:, 1:-1, 1:-1] - steady) @ sine
        z = self.final_time / (self.stored_steps - 1) / self.substeps * eigenvalues
        decay = ((1 + (1 - 2 * _GAMMA) * z) / (1 - _GAMMA * z) ** 2) ** self.substeps

        yield field[:, None].cpu().numpy().astype(np.float32)
        for _ in range(self.stored_steps - 1):
            deviation *= decay
            field[:, 1:-1, 1:-1] = steady + sine @ deviation @ sine
            yield field[:, None].cpu().numpy().astype(np.float32)
