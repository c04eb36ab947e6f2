"""The message-passing neural PDE solver, between the neighbours on a grid.

Shapes: n samples, h hidden features, r neighbours on either side, k conditions, s channels of
state, K steps predicted at once, C fields, `*grid` the grid's axes.
"""

import math
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional

from surrogates.base import Mode, Problem, Surrogate
from surrogates.coordinates import coordinates


class MessagePassing(Surrogate):
    """The message-passing PDE solver of Brandstetter, Worrall and Welling (arXiv 2202.03376).

    Every grid point hears of its neighbours along the axes, in each layer:

        m_ij = phi(f_i, f_j, u_i - u_j, x_i - x_j, conditions)
        f_i <- f_i + psi(f_i, mean over j of m_ij, conditions)

    with features f, state u, places x. A multilayer perceptron then reads the next K steps from the
    features of each point. Beyond an edge, unless the axis is periodic, there are points with
    learned features.
    It differs from the paper: the linear layer that phi ends in commutes with the mean and is
    merged into the first layer of psi, so that a pair costs two sums and a SiLU; features are
    normalised point by point, before a layer, and not over the grid.
    """

    def __init__(
        self,
        problem: Problem,
        mode: Mode = "direct",
        bundle: Annotated[int, Ge(1)] = 1,
        pushforward: bool = False,
        neighbours: Annotated[int, Ge(1)] = 2,
        hidden: Annotated[int, Ge(1)] = 64,
        layers: Annotated[int, Ge(1)] = 4,
        periodic: bool = False,
    ) -> None:
        """`neighbours` on either side along each axis, `layers` of `hidden` features.

        In mode autoregressive, `bundle` steps are predicted at once, and with `pushforward` the
        network learns from its own predictions, too. `periodic`: every axis is a circle.
        """
        super().__init__(problem, mode, bundle, pushforward)
        most = min(problem.grid) - 1
        if neighbours > most:
            remedy = "lower it" if most else "take the surrogate mlp"
            raise ValueError(
                f"neighbours is {neighbours}, but on a grid of {problem.grid} a point has at most "
                f"{most} on one side: {remedy}"
            )
        self.x: Tensor
        self.register_buffer("x", coordinates(problem.grid, periodic).movedim(0, -1).clone())
        inputs = self.x.shape[-1] + self.state_channels + self.conditions
        self.encode = nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        sizes = self.state_channels, self.conditions, len(problem.grid), neighbours, hidden
        self.layers = nn.ModuleList(_Layer(*sizes, periodic) for _ in range(layers))
        outputs = self.bundle * problem.channels
        self.decode = nn.Sequential(
            nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, outputs)
        )

    def forward(self, conditions: Tensor, state: Tensor) -> Tensor:
        u = state.movedim(1, -1)  # [n, *grid, s]
        axes = u.shape[1:-1]
        x = self.x.expand(u.shape[0], *self.x.shape)
        everywhere = conditions.view(u.shape[0], *[1] * len(axes), -1)
        features = self.encode(torch.cat([x, u, everywhere.expand(u.shape[0], *axes, -1)], -1))
        for layer in self.layers:
            features = layer(features, u, everywhere)
        outputs: Tensor = self.decode(features)
        return outputs.movedim(-1, 1)


class _Layer(nn.Module):
    """One round of messages.

    The first layer of phi is split into parts that depend on i, on j, and on the place of j
    relative to i.
    """

    def __init__(
        self, state: int, conditions: int, axes: int, neighbours: int, hidden: int, periodic: bool
    ) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.normalise = nn.LayerNorm(hidden)
        self.of_point = nn.Linear(hidden, 2 * hidden)
        self.of_state = nn.Linear(state, hidden, bias=False) if state else None
        self.of_conditions = nn.Linear(conditions, 2 * hidden, bias=False)
        self.of_place = nn.Parameter(_random(axes, 2 * neighbours, hidden))
        # The messages of the points beyond an edge.
        self.outside = None if periodic else nn.Parameter(_random(hidden))
        self.update_first = nn.Linear(2 * hidden, hidden)
        self.update_second = nn.Linear(hidden, hidden)

    def forward(self, features: Tensor, u: Tensor, conditions: Tensor) -> Tensor:
        """Map features [n, *grid, h], state [n, *grid, s], conditions [n, 1, .., k] to features."""
        normal = self.normalise(features)
        receiving, sending = self.of_point(normal).chunk(2, -1)
        in_message, in_update = self.of_conditions(conditions).chunk(2, -1)
        receiving = receiving + in_message
        if self.of_state is not None:
            state = self.of_state(u)
            receiving, sending = receiving + state, sending - state
        heard = self._heard(receiving, sending)
        hidden = self.update_first(torch.cat([normal, heard], -1)) + in_update
        outputs: Tensor = features + self.update_second(functional.silu(hidden))
        return outputs

    def _heard(self, receiving: Tensor, sending: Tensor) -> Tensor:
        """Return the mean over neighbours of SiLU(part of i + part of j + part of j's place)."""
        total = torch.zeros_like(receiving)
        for axis, of_places in enumerate(self.of_place, 1):
            size = receiving.shape[axis]
            wide = self._widened(sending, axis)
            starts = [start for start in range(2 * self.neighbours + 1) if start != self.neighbours]
            for start, of_place in zip(starts, of_places, strict=True):
                neighbour = wide.narrow(axis, start, size)
                total = total + functional.silu(receiving + of_place + neighbour)
        return total / self.of_place[..., 0].numel()

    def _widened(self, sending: Tensor, axis: int) -> Tensor:
        """Return the array with r more points at both ends of the axis."""
        size, more = sending.shape[axis], self.neighbours
        if self.outside is None:
            left, right = sending.narrow(axis, size - more, more), sending.narrow(axis, 0, more)
        else:
            beside = sending.narrow(axis, 0, more)
            left = right = self.outside.to(sending.dtype).expand_as(beside)
        return torch.cat([left, sending, right], axis)


def _random(*shape: int) -> Tensor:
    return torch.randn(shape) / math.sqrt(shape[-1])
