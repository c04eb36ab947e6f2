"""Two-dimensional turbulence: the Navier-Stokes equations with Kolmogorov's forcing."""

import math
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from numpy.typing import NDArray
from torch import Tensor

from solvers.base import BatchSolver, Field, Grid, Order, Parameter, ParameterSpace, Precision
from solvers.limits import require_memory, require_stable
from solvers.random_fields import plane_series
from solvers.spectral import Box, Etdrk4, advective_rate, kept_wavenumbers

_LENGTH = 2 * math.pi
# The wave number of the force, and the rate of the drag.
_FORCED, _DRAG = 4, 0.1
# Modes of the initial vorticity.
_MODES = 4
# The greatest speed [m/s] seen, over forcing^(3/4), and at first over the vorticity's RMS.
# Drag takes out drag * speed^2, and the force brings in about forcing^(3/2) sqrt(m): hence 3/4.
_FASTEST_FORCED, _FASTEST_INITIAL = 4.5, 1.1


class NavierStokes(BatchSolver):
    """dw/dt + u dw/dx + v dw/dy = viscosity laplacian w - 0.1 w - 4 forcing cos(4 y)
    on [0, 2 pi)^2, periodic; w = dv/dx - du/dy, du/dx + dv/dy = 0.

    Channel: vorticity w [1/s], of the velocity (u, v) [m/s]; axis 0 is y, axis 1 is x. The force
    is forcing sin(4 y) along x, and the drag takes out what gathers in large vortices.
    Parameters: `viscosity` [m2/s], log-uniform in 0.025-0.1; `forcing` [m/s2], uniform in 0.5-1.5;
    and `vorticity` [1/s], uniform in 1-4: the root mean square of the initial vorticity, a random
    series of the wave numbers up to 4 drawn from the seed (`random_fields.plane_series`). Over some
    seconds vortices merge and the force's bands appear, which stay, waver or break up with falling
    viscosity. The mean vorticity stays 0. The defaults are resolved to about 1 % where the flow is
    the most lively, and far better elsewhere; smaller viscosities need more `points`. Chandler and
    Kerswell, J. Fluid Mech. 722 (2013).

    Scheme: Fourier pseudo-spectral with the 2/3 rule (exact dealiasing of the products), and ETDRK4
    with viscosity and drag in the exponential, fourth order in time. The advection is written with
    products of velocities only, (d2/dx2 - d2/dy2) u v + d2/dxdy (v^2 - u^2), which takes four
    transforms (Basdevant, J. Comput. Phys. 50, 1983). Stable for steps up to 2.78 / (k * greatest
    speed), where k is the highest kept wave number that is not damped faster than the flow moves
    it, and the speed is the greatest one seen: 1.1 * vorticity or 4.5 * forcing^(3/4) in m/s, the
    greater one; with viscosities of 0.025 it is 3.1 * forcing^(3/4). Computes in `precision`.
    """

    parameters = ParameterSpace(
        Parameter("viscosity", 0.025, 0.1, "m2/s", prior="log_uniform", minimum=0.0),
        Parameter("forcing", 0.5, 1.5, "m/s2", minimum=0.0),
        Parameter("vorticity", 1.0, 4.0, "1/s", minimum=0.0),
    )
    fields = (Field("vorticity", "1/s"),)
    uses_seed = True
    grid_settings = ("points", "substeps")
    order = Order(space=math.inf, time=4)
    time_units = "s"

    def __init__(
        self,
        points: Annotated[int, Ge(32)] = 64,
        stored_steps: Annotated[int, Ge(2)] = 41,
        final_time: Annotated[float, Gt(0)] = 8.0,
        substeps: Annotated[int, Ge(1)] = 12,
        precision: Precision = "float32",
    ) -> None:
        """`points` of the grid along each axis; `stored_steps` times from 0 to `final_time`, with
        `substeps` time steps between two of them."""
        require_memory("points", (points,) * 2, 40 * points**2)
        self.grid = Grid((points,) * 2, (_LENGTH / points,) * 2, "m")
        self.stored_steps = stored_steps
        self.final_time = final_time
        self.substeps = substeps
        self.precision = precision
        self._interval = final_time / (stored_steps - 1)

    def check(self, parameters: ParameterSpace) -> None:
        self._require_stable(parameters.low[0], *parameters.high[1:])

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.linspace(0.0, self.final_time, self.stored_steps)

    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        box = Box(2, self.grid.shape[0], _LENGTH, self.precision, device)
        values = torch.tensor(parameters, dtype=torch.float64, device=device)
        viscosity, forcing, vorticity = values[:, :, None, None].unbind(1)  # [B, 1, 1] each
        least, *_ = values.amin(0).tolist()
        _, *greatest = values.amax(0).tolist()
        self._require_stable(least, *greatest)
        march = Etdrk4(
            linear=-viscosity * box.square - _DRAG,
            factor=box.inside,
            explicit=_Forces(box, forcing),
            step=self._interval / self.substeps,
            dtype=box.complex,
        )
        coefficients = np.stack([plane_series(int(seed), _MODES) for seed in seeds])
        initial = box.place(coefficients) * vorticity.to(box.real)
        for state in march.trajectory(initial, self.stored_steps, self.substeps):
            yield box.to_grid(state)[:, None].cpu().numpy().astype(np.float32)

    def _require_stable(self, viscosity: float, forcing: float, vorticity: float) -> None:
        fastest = max(_FASTEST_FORCED * forcing**0.75, _FASTEST_INITIAL * vorticity)
        k = kept_wavenumbers(self.grid.shape[0], _LENGTH)
        rate = advective_rate(k, fastest, damping=viscosity * k**2)
        require_stable(rate, self._interval, self.substeps)


class _Forces:
    """The forces on a state [B, ...] besides viscosity and drag: advection and the forcing."""

    def __init__(self, box: Box, forcing: Tensor) -> None:
        self._box = box
        square = box.square.clone()
        square[0, 0] = math.inf  # for the mean vorticity, which moves nothing
        velocity = torch.stack([1j * box.ky / square, -1j * box.kx / square])
        self._velocity = velocity.to(box.complex)  # the stream function is w / square
        self._shear = (box.kx**2 - box.ky**2).to(box.complex)
        self._stretch = (box.kx * box.ky).to(box.complex)
        # cos(4 y) is half of each of the modes 4 and -4; the wave numbers are whole numbers here.
        self._push = (-_FORCED * forcing / 2)[:, 0].to(box.complex)

    def __call__(self, state: Tensor) -> Tensor:
        u, v = self._box.to_grid(self._velocity * state[:, None]).unbind(1)
        products = torch.stack([u * v, (v - u).mul_(v + u)], 1)
        shear, stretch = self._box.to_modes(products).unbind(1)
        total = (self._shear * shear).addcmul_(self._stretch, stretch)
        total[:, 0, (_FORCED, -_FORCED)] += self._push
        return total
