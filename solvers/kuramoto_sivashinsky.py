"""The Kuramoto-Sivashinsky equation in one dimension."""

import math
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from solvers.base import BatchSolver, Field, Grid, Order, Parameter, ParameterSpace, Precision
from solvers.limits import require_memory, require_stable
from solvers.random_fields import series
from solvers.spectral import Box, Etdrk4, advective_rate, kept_wavenumbers

# Modes of the initial state.
_MODES = 8
# The greatest |u| seen on the attractor with a hyperviscosity of 1; it scales as its power -1/2.
_GREATEST = 3.5


# The least that the highest wave number may be, in units of that where growth turns into decay.
_RESOLVED = 2.0


class KuramotoSivashinsky(BatchSolver):
    """du/dt + u du/dx + d2u/dx2 + hyperviscosity d4u/dx4 = 0 on [0, length), periodic.

    Channel: u [1], the slope of a flame front. All is without units. Parameters: `hyperviscosity`,
    log-uniform in 0.7-2, which makes cells 2 pi sqrt(2 hyperviscosity) wide; and `amplitude`,
    uniform in 0.1-1: the root mean square of the initial state, a random series of eight modes
    drawn from the seed (`random_fields.series`). The second derivative feeds long waves, the fourth
    damps short ones: from time 20 or so on, chaos in space and time with |u| up to 3.5 /
    sqrt(hyperviscosity), in which nearby states part by a factor of e in about 10 units of time.
    The mean of u stays 0. The defaults are resolved: the last modes hold less than 1e-4 of the
    largest. G. I. Sivashinsky, Acta Astronautica 4 (1977).

    Scheme: Fourier pseudo-spectral with the 2/3 rule (exact dealiasing of the square) and ETDRK4
    with the second and the fourth derivative in the exponential, fourth order in time. Stable for
    steps up to 2.78 / (k * greatest |u|), where k is the highest kept wave number that is not
    damped faster than u moves it. Computes in `precision`.
    """

    parameters = ParameterSpace(
        Parameter("hyperviscosity", 0.7, 2.0, prior="log_uniform", minimum=0.0),
        Parameter("amplitude", 0.1, 1.0, minimum=0.0),
    )
    fields = (Field("u"),)
    uses_seed = True
    grid_settings = ("points", "substeps")
    order = Order(space=math.inf, time=4)

    def __init__(
        self,
        points: Annotated[int, Ge(32)] = 128,
        length: Annotated[float, Gt(0)] = 50.0,
        stored_steps: Annotated[int, Ge(2)] = 101,
        final_time: Annotated[float, Gt(0)] = 50.0,
        substeps: Annotated[int, Ge(1)] = 5,
        precision: Precision = "float32",
    ) -> None:
        """`points` of the grid; `stored_steps` times from 0 to `final_time`, with `substeps` time
        steps between two of them."""
        require_memory("points", (points,), 24 * points)
        self.grid = Grid((points,), (length / points,))
        self.length = length
        self.stored_steps = stored_steps
        self.final_time = final_time
        self.substeps = substeps
        self._interval = final_time / (stored_steps - 1)
        self.precision = precision

    def check(self, parameters: ParameterSpace) -> None:
        self._require_stable(parameters.low[0], parameters.high[1])

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.linspace(0.0, self.final_time, self.stored_steps)

    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        box = Box(1, self.grid.shape[0], self.length, self.precision, device)
        values = torch.tensor(parameters, dtype=torch.float64, device=device)
        hyperviscosity, amplitude = values[:, :, None, None].unbind(1)  # [B, 1, 1] each
        self._require_stable(hyperviscosity.min().item(), amplitude.max().item())
        coefficients = np.stack([series(int(seed), _MODES) for seed in seeds])[:, None]
        initial = box.place(coefficients) * amplitude.to(box.real)
        march = Etdrk4(
            linear=box.square - hyperviscosity * box.square**2,
            factor=-0.5j * box.kx * box.inside,
            explicit=lambda state: box.to_modes(box.to_grid(state).square_()),
            step=self._interval / self.substeps,
            dtype=box.complex,
        )
        for state in march.trajectory(initial, self.stored_steps, self.substeps):
            yield box.to_grid(state).cpu().numpy().astype(np.float32)

    def _require_stable(self, hyperviscosity: float, amplitude: float) -> None:
        greatest = max(_GREATEST / math.sqrt(hyperviscosity), amplitude * math.sqrt(2 * _MODES))
        k = kept_wavenumbers(self.grid.shape[0], self.length)
        points = self.grid.shape[0]
        # Modes between 0 and hyperviscosity^-1/2 grow; twice that has to be resolved, or nothing
        # takes up their energy.
        needed = _RESOLVED / math.sqrt(hyperviscosity)
        if k[-1] < needed:
            modes = math.ceil(needed * self.length / (2 * math.pi))
            raise ValueError(
                f"points is {points}: on a length of {self.length:g} it leaves out modes that grow "
                f"or hardly decay; it has to be at least {3 * modes + 1}"
            )
        rate = advective_rate(k, greatest, damping=hyperviscosity * k**4 - k**2)
        require_stable(rate, self._interval, self.substeps)
