"""Heat conduction on the unit line, square or cube, each side held at its own temperature."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from solvers.base import BatchSolver, Field, Grid, Order, Parameter, ParameterSpace
from solvers.limits import require_memory
from solvers.sine_transform import SineTransform

# The L-stable, second-order, two-stage SDIRK of Alexander (SIAM J. Numer. Anal. 14, 1977).
_GAMMA = 1 - 1 / math.sqrt(2)
# The sides at 0 and at 1, along x, y and z.
_SIDES = ("left", "right", "bottom", "top", "front", "back")


def _temperatures(dimensions: int) -> ParameterSpace:
    """Return the initial temperature, and those of the sides of this many axes, as parameters."""
    names = ("initial", *_SIDES[: 2 * dimensions])
    return ParameterSpace(*(Parameter(name, 100.0, 500.0, "K", minimum=0.0) for name in names))


class Heat(BatchSolver):
    """du/dt = laplacian u on the unit line, square or cube, unit diffusivity.

    Channel: temperature u [K]. The axes are (x), (y, x) or (z, y, x), each from 0 to 1, and the
    outermost nodes lie on the sides. Parameters, each uniform in 100-500 K: the uniform `initial`
    temperature of the inside, and the temperatures at which the sides `left` (x = 0), `right`,
    `bottom` (y = 0), `top`, `front` (z = 0) and `back` are held, as many as there are; a node on
    several sides has their mean. By time 0.1 the slowest mode has decayed to exp(-dimensions pi^2
    0.1): 37 %, 14 %, 5 %. In two dimensions it is the study of arXiv 2306.16133.

    Scheme: the three-, five- or seven-point Laplacian (second order in space) and an L-stable SDIRK
    (second order in time, stable for every step, damps the jump between inside and sides). Its
    linear systems are solved exactly, as the sine transform diagonalises them: with w the discrete
    steady state, every sine mode of u - w is multiplied in each step by the scheme's stability
    function R(z) = (1 + (1 - 2 gamma) z) / (1 - gamma z)^2, z = time step * eigenvalue.
    Computes in float64.
    """

    parameters = _temperatures(2)
    fields = (Field("temperature", "K"),)
    grid_settings = ("grid_size",)
    order = Order(space=2, time=2)

    def __init__(
        self,
        grid_size: Annotated[int, Ge(3)] = 64,
        stored_steps: Annotated[int, Ge(2)] = 50,
        final_time: Annotated[float, Gt(0)] = 0.1,
        substeps: Annotated[int, Ge(1)] = 4,
        dimensions: Literal[1, 2, 3] = 2,
    ) -> None:
        """`grid_size` nodes along each axis; `stored_steps` times from 0 to `final_time`, with
        `substeps` time steps of the scheme between two of them. With the defaults the field stays
        within the range of its temperatures; a step four times as long (`substeps=1`) takes it
        out of the range early on, by up to 11 % of the range."""
        shape = (grid_size,) * dimensions
        require_memory("grid_size", shape, 8 * grid_size**dimensions + 3 * grid_size**2)
        self.parameters = _temperatures(dimensions)
        self.grid = Grid(shape, (1 / (grid_size - 1),) * dimensions)
        self.stored_steps = stored_steps
        self.final_time = final_time
        self.substeps = substeps

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.linspace(0.0, self.final_time, self.stored_steps)

    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        # Nothing here is random, so the seeds are not used.
        dimensions, size = len(self.grid.shape), self.grid.shape[0]
        inside = (slice(None), *[slice(1, -1)] * dimensions)
        transform = SineTransform(dimensions, size - 2)

        field, inflow = _held(parameters.astype(np.float64), dimensions, size)
        yield field[:, None].astype(np.float32)
        steady = transform(-transform(inflow) / (self.grid.spacing[0] ** 2 * transform.eigenvalues))
        deviation = transform(field[inside] - steady)
        z = self.final_time / (self.stored_steps - 1) / self.substeps * transform.eigenvalues
        decay = ((1 + (1 - 2 * _GAMMA) * z) / (1 - _GAMMA * z) ** 2) ** self.substeps

        if device != "cpu":
            transform.to(device)
            steady, deviation, decay = _on(device, steady, deviation, decay)
        for _ in range(self.stored_steps - 1):
            deviation *= decay
            now = steady + transform(deviation)
            field[inside] = now if device == "cpu" else now.cpu()
            yield field[:, None].astype(np.float32)


def _on(device: str, *arrays: NDArray[np.float64]) -> list[Any]:
    """Copy arrays to a device of torch."""
    import torch  # takes seconds, and on a CPU nothing here needs it

    return [torch.as_tensor(array, device=device) for array in arrays]


def _held(
    values: NDArray[np.float64], dimensions: int, size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the initial field [B, *grid] of parameters [B, p], and the inflow of the sides.

    The inflow is the sides' contribution to the Laplacian of the inner nodes, in units of the
    squared spacing: [B, *inner nodes].
    """
    batch = len(values)
    initial, *sides = values.T.reshape(-1, batch, *[1] * (dimensions - 1))
    total = np.zeros((batch, *[size] * dimensions))
    count = np.zeros_like(total)
    inflow = np.zeros((batch, *[size - 2] * dimensions))
    for side, temperature in enumerate(sides):
        axis, node = -1 - side // 2, -(side % 2)  # x is the last axis; node 0 or -1
        for array in (total, inflow):
            np.moveaxis(array, axis, 0)[node] += temperature
        np.moveaxis(count, axis, 0)[node] += 1
    return np.where(count > 0, total / np.maximum(count, 1), initial[..., None]), inflow
