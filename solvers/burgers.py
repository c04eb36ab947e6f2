"""The advection-Burgers equation in one dimension."""

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

# Modes of the initial velocity.
_MODES = 4


class Burgers(BatchSolver):
    """du/dt + c du/dx + u du/dx = viscosity d2u/dx2 on [0, 1), periodic.

    Channel: velocity u [m/s], relative to that of the medium. Parameters: `viscosity` [m2/s],
    log-uniform in 0.005-0.05; `advection`, the medium's velocity c [m/s], uniform in -1 to 1; and
    `amplitude` [m/s], uniform in 0.2-0.5: the root mean square of the initial velocity, a random
    series of four modes drawn from the seed (`random_fields.series`). Waves steepen into fronts of
    a width of viscosity / amplitude, which travel, merge and decay; the mean of u stays 0, and its
    square falls. The defaults resolve the thinnest front (relative errors of 1e-5); smaller
    viscosities need more `points`. J. M. Burgers, Adv. Appl. Mech. 1 (1948).

    Scheme: Fourier pseudo-spectral with the 2/3 rule (exact dealiasing of the square) and ETDRK4
    with the diffusion in the exponential, fourth order in time; the advection is exact, a shift of
    the phases. Stable for steps up to 2.78 / (k * greatest velocity), where the velocity cannot
    exceed amplitude * sqrt(2 * 4), and k is the highest kept wave number that is not damped faster
    than the velocity moves it. Computes in `precision`.
    """

    parameters = ParameterSpace(
        Parameter("viscosity", 0.005, 0.05, "m2/s", prior="log_uniform", minimum=0.0),
        Parameter("advection", -1.0, 1.0, "m/s"),
        Parameter("amplitude", 0.2, 0.5, "m/s", minimum=0.0),
    )
    fields = (Field("velocity", "m/s"),)
    uses_seed = True
    grid_settings = ("points", "substeps")
    order = Order(space=math.inf, time=4)
    time_units = "s"

    def __init__(
        self,
        points: Annotated[int, Ge(16)] = 256,
        stored_steps: Annotated[int, Ge(2)] = 51,
        final_time: Annotated[float, Gt(0)] = 1.0,
        substeps: Annotated[int, Ge(1)] = 4,
        precision: Precision = "float32",
    ) -> None:
        """`points` of the grid; `stored_steps` times from 0 to `final_time`, with `substeps` time
        steps between two of them."""
        require_memory("points", (points,), 24 * points)
        self.grid = Grid((points,), (1 / points,), "m")
        self.stored_steps = stored_steps
        self.final_time = final_time
        self.substeps = substeps
        self._interval = final_time / (stored_steps - 1)
        self.precision = precision

    def check(self, parameters: ParameterSpace) -> None:
        self._require_stable(parameters.low[0], parameters.high[2])

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.linspace(0.0, self.final_time, self.stored_steps)

    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        box = Box(1, self.grid.shape[0], 1.0, self.precision, device)
        values = torch.tensor(parameters, dtype=torch.float64, device=device)
        viscosity, advection, amplitude = values[:, :, None, None].unbind(1)  # [B, 1, 1] each
        self._require_stable(viscosity.min().item(), amplitude.max().item())
        coefficients = np.stack([series(int(seed), _MODES) for seed in seeds])[:, None]
        initial = box.place(coefficients) * amplitude.to(box.real)
        march = Etdrk4(
            linear=-viscosity * box.square,
            factor=-0.5j * box.kx * box.inside,
            explicit=lambda state: box.to_modes(box.to_grid(state).square_()),
            step=self._interval / self.substeps,
            dtype=box.complex,
        )
        for step, state in enumerate(march.trajectory(initial, self.stored_steps, self.substeps)):
            # The state is in a frame that moves with the medium, where there is no advection.
            shift = torch.exp(-1j * box.kx * advection * (step * self._interval))
            yield box.to_grid(state * shift.to(box.complex)).cpu().numpy().astype(np.float32)

    def _require_stable(self, viscosity: float, amplitude: float) -> None:
        fastest = amplitude * math.sqrt(2 * _MODES)  # by the inequality of Cauchy and Schwarz
        k = kept_wavenumbers(self.grid.shape[0], 1.0)
        rate = advective_rate(k, fastest, damping=viscosity * k**2)
        require_stable(rate, self._interval, self.substeps)
