"""Lorenz's three equations, the model of chaos."""

import math
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from numpy.typing import NDArray
from torch import Tensor

from solvers.base import BatchSolver, Field, Grid, Order, Parameter, ParameterSpace
from solvers.limits import require_stable

# Where the initial states lie: the lowest and the highest x, y, z.
_LOW, _HIGH = (-15.0, -15.0, 10.0), (15.0, 15.0, 40.0)


class Lorenz(BatchSolver):
    """dx/dt = sigma (y - x), dy/dt = x (rho - z) - y, dz/dt = x y - beta z.

    Channels: x, y, z [1], the strength of a convection roll and two modes of its temperature, on a
    grid of one point: the equations have no space. All is without units. Parameters: `sigma`, the
    Prandtl number, uniform in 8-12; `rho`, the Rayleigh number in units of the critical one,
    uniform in 24.8-40; `beta`, uniform in 2-3. The initial state is uniform in a box around the
    attractor, x and y within [-15, 15], z within [10, 40], drawn from the seed. With sigma 10, rho
    28, beta 8/3 nearby states part by a factor of e in 1.1 units of time. E. N. Lorenz, J. Atmos.
    Sci. 20 (1963).

    Scheme: the classical Runge-Kutta method, fourth order in time; space has no order. Stable for
    steps up to 2.78 / r, with r the greater one of the fastest rate near the origin and of the
    radius of a sphere around (0, 0, sigma + rho) in which states stay, 38 for the values above:
    farther from the origin they turn faster, at up to 1.2 r. Longer steps are refused. Computes in
    float64.
    """

    parameters = ParameterSpace(
        Parameter("sigma", 8.0, 12.0, minimum=0.0),
        Parameter("rho", 24.8, 40.0, minimum=0.0),
        Parameter("beta", 2.0, 3.0, minimum=0.0),
    )
    fields = (Field("x"), Field("y"), Field("z"))
    uses_seed = True
    grid_settings = ("substeps",)
    grid = Grid((1,), (1.0,))
    order = Order(space=math.inf, time=4)

    def __init__(
        self,
        stored_steps: Annotated[int, Ge(2)] = 101,
        final_time: Annotated[float, Gt(0)] = 2.0,
        substeps: Annotated[int, Ge(1)] = 4,
    ) -> None:
        """`stored_steps` times from 0 to `final_time`, with `substeps` time steps between two."""
        self.stored_steps = stored_steps
        self.final_time = final_time
        self.substeps = substeps
        self._interval = final_time / (stored_steps - 1)

    def check(self, parameters: ParameterSpace) -> None:
        # The sphere is the largest at one of the ends of sigma + rho.
        self._require_stable(np.stack([parameters.low, parameters.high]))

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.linspace(0.0, self.final_time, self.stored_steps)

    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        self._require_stable(parameters)
        sigma, rho, beta = torch.tensor(parameters, dtype=torch.float64, device=device).T

        def rate(state: Tensor) -> Tensor:
            x, y, z = state
            return torch.stack([sigma * (y - x), x * (rho - z) - y, x * y - beta * z])

        places = np.stack([np.random.default_rng(int(seed)).random(3) for seed in seeds], 1)
        low, high = np.array([_LOW, _HIGH])[:, :, None]
        state = torch.tensor(low + (high - low) * places, device=device)  # [3, B]
        step = self._interval / self.substeps
        yield _stored(state)
        for _ in range(self.stored_steps - 1):
            for _ in range(self.substeps):
                k1 = rate(state)
                k2 = rate(state + step / 2 * k1)
                k3 = rate(state + step / 2 * k2)
                k4 = rate(state + step * k3)
                state = state + step / 6 * (k1 + 2 * (k2 + k3) + k4)
            yield _stored(state)

    def _require_stable(self, parameters: NDArray[np.float64]) -> None:
        fastest = max(_fastest(*values) for values in parameters.tolist())
        require_stable(fastest, self._interval, self.substeps)


def _fastest(sigma: float, rho: float, beta: float) -> float:
    """Return the rate r of the docstring of `Lorenz`."""
    growth = (sigma + 1 + math.sqrt((sigma - 1) ** 2 + 4 * sigma * rho)) / 2
    # Lorenz's sphere goes through the origin; initial states may lie outside it.
    middle = sigma + rho
    height = max(_HIGH[2] - middle, middle - _LOW[2])
    return max(growth, beta, middle, math.hypot(_HIGH[0], _HIGH[1], height))


def _stored(state: Tensor) -> NDArray[np.float32]:
    """Return the state [3, B] as fields [B, 3, 1]."""
    return state.T[:, :, None].cpu().numpy().astype(np.float32)
