"""The Gray-Scott reaction in two dimensions."""

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
from solvers.random_fields import blobs
from solvers.spectral import Box, Etdrk4

# Diffusivities of substrate and activator.
_DIFFUSIVITIES = (2e-5, 1e-5)
# The fastest rate seen of reaction and removal together, v^2 + feed.
_RATE = 0.25
# The blobs of the initial activator, and their width [the units of length].
_BLOBS, _WIDTH = 3, 0.03


class GrayScott(BatchSolver):
    """du/dt = 2e-5 laplacian u - u v^2 + feed (1 - u),
    dv/dt = 1e-5 laplacian v + u v^2 - (feed + kill) v on [0, length)^2, periodic.

    Channels: substrate u and activator v [1], concentrations relative to the feed's. All is without
    units, as in Pearson. Parameters: `feed`, uniform in 0.025-0.045, and `kill`, uniform in
    0.055-0.06, the rates at which substrate is supplied and activator removed. At first u = 1 and
    v = 0 but for three blobs at places drawn from the seed (`random_fields.blobs`), in which u
    falls to 0.5 and v rises to 0.25. Spots grow out of them, divide, or stretch into stripes, about
    0.1 in size, over some thousand units of time. Both concentrations stay within 0 and 1, but for
    the overshoot of a truncated series, less than 0.001. The defaults are resolved to about 1 %.
    J. E. Pearson, Science 261 (1993).

    Scheme: Fourier pseudo-spectral with the 2/3 rule, and ETDRK4 with the diffusion in the
    exponential, fourth order in time. In the product of three the rule leaves aliases of high modes
    with high modes; if the grid resolves the patterns, they are as small as the truncated modes.
    Stable for steps up to 2.78 / 0.25 = 11 within these bounds. Computes in `precision`.
    """

    parameters = ParameterSpace(
        Parameter("feed", 0.025, 0.045, minimum=0.0),
        Parameter("kill", 0.055, 0.06, minimum=0.0),
    )
    fields = (Field("substrate"), Field("activator"))
    uses_seed = True
    grid_settings = ("points", "substeps")
    order = Order(space=math.inf, time=4)

    def __init__(
        self,
        points: Annotated[int, Ge(32)] = 64,
        length: Annotated[float, Gt(0)] = 0.5,
        stored_steps: Annotated[int, Ge(2)] = 41,
        final_time: Annotated[float, Gt(0)] = 2000.0,
        substeps: Annotated[int, Ge(1)] = 10,
        precision: Precision = "float32",
    ) -> None:
        """`points` of the grid along each axis; `stored_steps` times from 0 to `final_time`, with
        `substeps` time steps between two of them."""
        require_memory("points", (points,) * 2, 40 * points**2)
        self.grid = Grid((points,) * 2, (length / points,) * 2)
        self.length = length
        self.stored_steps = stored_steps
        self.final_time = final_time
        self.substeps = substeps
        self.precision = precision
        self._interval = final_time / (stored_steps - 1)

    def check(self, parameters: ParameterSpace) -> None:
        # Removal is fastest with both rates high, consumption with a low kill rate.
        (feed, high_kill), (_, low_kill) = parameters.high, parameters.low
        self._require_stable(np.array([[feed, high_kill], [feed, low_kill]]))

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.linspace(0.0, self.final_time, self.stored_steps)

    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        self._require_stable(parameters)
        box = Box(2, self.grid.shape[0], self.length, self.precision, device)
        values = torch.tensor(parameters, dtype=torch.float64, device=device)
        feed, kill = values[:, :, None, None].unbind(1)  # [B, 1, 1] each
        # The state is u - 1 and v, for which the feed has no constant part. Feed and removal stay
        # outside the exponential: there they nearly cancel the reaction, and the error is a fifth.
        removal = -torch.stack([feed, feed + kill], 1).to(box.complex)
        diffusivity = torch.tensor(_DIFFUSIVITIES, dtype=torch.float64, device=device)
        gain = torch.tensor([-1.0, 1.0], dtype=box.complex, device=device)[:, None, None]

        def reaction(state: Tensor) -> Tensor:
            u, v = box.to_grid(state).unbind(1)
            square = v.square()
            modes = box.to_modes(torch.addcmul(square, u, square))[:, None]
            return (gain * modes).addcmul_(removal, state)

        march = Etdrk4(
            linear=-diffusivity[:, None, None] * box.square,
            factor=box.inside,
            explicit=reaction,
            step=self._interval / self.substeps,
            dtype=box.complex,
        )
        places = np.arange(self.grid.shape[0]) / self.grid.shape[0]
        width = _WIDTH / self.length
        spots = np.stack([blobs(int(seed), _BLOBS, width, places) for seed in seeds])
        mixture = torch.tensor(np.stack([-0.5 * spots, 0.25 * spots], 1), device=device)
        initial = (box.to_modes(mixture) * box.inside).to(box.complex)
        for state in march.trajectory(initial, self.stored_steps, self.substeps):
            concentrations = box.to_grid(state)
            concentrations[:, 0] += 1
            yield concentrations.cpu().numpy().astype(np.float32)

    def _require_stable(self, parameters: NDArray[np.float64]) -> None:
        feed, kill = parameters.T
        removal = feed + kill
        # Where v is as high as all the feed can keep it, substrate is consumed at this rate.
        consumed = feed + np.divide(feed, removal, where=removal > 0, out=np.zeros_like(feed)) ** 2
        rate = max(_RATE, float(removal.max()), float(consumed.max()))
        require_stable(rate, self._interval, self.substeps)
