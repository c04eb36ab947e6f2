"""Flow through a porous medium, by Darcy's law, in two dimensions."""

import math
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from torch import Tensor

from solvers.base import BatchSolver, Field, Grid, Order, Parameter, ParameterSpace
from solvers.limits import require_memory
from solvers.random_fields import cosine_field, cosine_series
from solvers.sine_transform import SineTransform

# Modes of the permeability's logarithm, along each axis.
_MODES = 16
# The linear system's residual relative to the source, and the iterations until it is given up.
_TOLERANCE, _MOST_ITERATIONS = 1e-9, 500


class Darcy(BatchSolver):
    """-div(permeability grad p) = 1 on the unit square, p = 0 on its sides.

    Channels: the natural logarithm of the permeability [1], and the pressure p [1]; axis 0 is y,
    axis 1 is x, the outermost nodes lie on the sides. All is without units: lengths are in sides
    of the square, the permeability in units of its geometric mean, the pressure in units of source
    * side^2 * viscosity / that mean. The logarithm is `contrast` times a random field, drawn from
    the seed, of 16 cosines along each axis (`random_fields.cosine_series`). Parameters:
    `correlation_length` of that field, log-uniform in 0.05-0.3, and `contrast`, its standard
    deviation, uniform in 0.2-1.5. The pressure is positive, 0.07 at its highest where the medium is
    uniform. The set-up of Li et al., arXiv 2010.08895, with a lognormal medium.

    A flow has no time: the stored steps are the medium with the pressure still 0, then the flow.
    The permeability is a field of its own in every simulation, while a solver's `static_fields` are
    the same in all of them and a few parameters could not hold it. As a channel of the first step
    it is what an autoregressive surrogate starts from: its one step is the operator from the
    permeability to the pressure. (A direct surrogate sees parameters alone and cannot know it.)

    Scheme: finite volumes around the nodes with the harmonic mean of the permeability on their
    faces, second order in space; there is no time to have an order in. The system is solved to a
    residual of 1e-9 by conjugate gradients with a sine transform of the Laplacian, scaled by the
    permeability, as preconditioner: about 30 iterations on any grid. Computes in float64.
    """

    parameters = ParameterSpace(
        Parameter("correlation_length", 0.05, 0.3, prior="log_uniform", minimum=0.0),
        Parameter("contrast", 0.2, 1.5, minimum=0.0),
    )
    fields = (Field("log_permeability"), Field("pressure"))
    uses_seed = True
    grid_settings = ("grid_size",)
    order = Order(space=2, time=math.inf)
    stored_steps = 2

    def __init__(self, grid_size: Annotated[int, Ge(5)] = 64) -> None:
        """`grid_size` nodes along each axis."""
        require_memory("grid_size", (grid_size,) * 2, 20 * grid_size**2)
        self.grid = Grid((grid_size,) * 2, (1 / (grid_size - 1),) * 2)

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([0.0, 1.0])

    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        coefficients = [
            contrast * cosine_series(int(seed), _MODES, length)
            for seed, (length, contrast) in zip(seeds, parameters.tolist(), strict=True)
        ]
        nodes = np.linspace(0.0, 1.0, self.grid.shape[0])
        logarithm = torch.tensor(cosine_field(np.stack(coefficients), nodes), device=device)
        fields = torch.stack([logarithm, torch.zeros_like(logarithm)], 1)
        yield fields.cpu().numpy().astype(np.float32)
        source = torch.ones_like(logarithm[:, 1:-1, 1:-1])
        fields[:, 1, 1:-1, 1:-1] = pressure(logarithm.exp(), source)
        yield fields.cpu().numpy().astype(np.float32)


def pressure(permeability: Tensor, source: Tensor) -> Tensor:
    """Return the pressure [B, n, n] at the inner nodes, in float64.

    For a permeability [B, n + 2, n + 2] and a source [B, n, n]. Raises ArithmeticError if the
    iteration does not converge.
    """
    n = source.shape[-1]
    laplacian = SineTransform(2, n).to(str(source.device))
    scale = permeability[:, 1:-1, 1:-1].rsqrt()
    down, right = (_between(permeability, axis) * (n + 1) ** 2 for axis in (1, 2))

    def precondition(residual: Tensor) -> Tensor:
        modes = laplacian(scale * residual) / -laplacian.eigenvalues
        solved: Tensor = scale * laplacian(modes)
        return solved

    # Conjugate gradients, of all systems of the batch side by side.
    solution, residual = torch.zeros_like(source), source
    direction = preconditioned = precondition(residual)
    size = _dot(residual, preconditioned)
    target = _TOLERANCE**2 * _dot(source, source)
    for _ in range(_MOST_ITERATIONS):
        if (_dot(residual, residual) <= target).all():
            return solution
        flow = _divergence(direction, down, right)
        # A system that is solved before the others gives 0 / 0.
        length = torch.nan_to_num(size / _dot(direction, flow), 0.0, 0.0, 0.0)
        solution = solution + length * direction
        residual = residual - length * flow
        preconditioned = precondition(residual)
        previous, size = size, _dot(residual, preconditioned)
        direction = preconditioned + torch.nan_to_num(size / previous, 0.0, 0.0, 0.0) * direction
    raise ArithmeticError(
        f"the pressure did not converge in {_MOST_ITERATIONS} iterations: the permeability varies "
        f"by a factor of {(permeability.amax() / permeability.amin()).item():.3g}"
    )


def _between(permeability: Tensor, axis: int) -> Tensor:
    """Return harmonic means on the faces across an axis, beside the inner nodes of the other."""
    inner = permeability[:, :, 1:-1] if axis == 1 else permeability[:, 1:-1]
    faces = inner.shape[axis] - 1
    before, after = inner.narrow(axis, 0, faces), inner.narrow(axis, 1, faces)
    return 2 * before * after / (before + after)


def _divergence(values: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Return -div(permeability grad) of values [B, n, n], with the faces' conductances."""
    padded = torch.nn.functional.pad(values, (1, 1, 1, 1))
    along_y = (down * padded[:, :, 1:-1].diff(dim=1)).diff(dim=1)
    along_x = (right * padded[:, 1:-1].diff(dim=2)).diff(dim=2)
    return -along_y - along_x


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2), keepdim=True)
