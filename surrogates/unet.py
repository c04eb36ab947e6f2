"""A U-Net.

Shapes: n samples, h channels of a level, k conditions, s channels of state, C fields, `*grid` the
axes of the grid or of a coarser one.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional

from surrogates.base import Mode, Problem, Surrogate
from surrogates.coordinates import coordinates

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Takes the channels before and after; more by keyword.
_Convolution = Callable[..., nn.Module]


class UNet(Surrogate):
    """A U-Net of residual blocks (Ronneberger et al., arXiv 1505.04597), in 1-D, 2-D and 3-D.

    As in Gupta and Brandstetter (arXiv 2209.15616) the conditions scale and shift the normalised
    channels of every block. As constant channels they would enter once, and the normalisation would
    remove much of them. The grid's coordinates are channels beside the state.
    """

    def __init__(
        self,
        problem: Problem,
        mode: Mode = "direct",
        hidden_channels: Annotated[int, Ge(1)] = 32,
        levels: Annotated[int, Ge(1)] = 2,
        periodic: bool = False,
    ) -> None:
        """The grid is halved `levels` times, and `hidden_channels` doubled as often.

        `periodic`: every axis is a circle; otherwise there are zeros around the grid.
        """
        super().__init__(problem, mode)
        _check(problem.grid, levels)
        convolution = partial(
            _CONVOLUTIONS[len(problem.grid) - 1],
            kernel_size=3,
            padding=1,
            padding_mode="circular" if periodic else "zeros",
        )
        widths = [hidden_channels * 2**level for level in range(levels + 1)]
        embedding = 2 * hidden_channels
        self.x: Tensor
        self.register_buffer("x", coordinates(problem.grid, periodic))
        self.embed = nn.Sequential(nn.Linear(self.conditions, embedding), nn.SiLU())
        self.first = convolution(len(self.x) + self.state_channels, hidden_channels)
        self.down = nn.ModuleList(_Block(convolution, h, h, embedding) for h in widths)
        self.coarsen = nn.ModuleList(convolution(*pair, stride=2) for pair in pairwise(widths))
        self.up = nn.ModuleList(
            _Block(convolution, fine + coarse, fine, embedding) for fine, coarse in pairwise(widths)
        )
        self.last = convolution(hidden_channels, problem.channels)

    def forward(self, conditions: Tensor, state: Tensor) -> Tensor:
        condition = self.embed(conditions)
        x = self.x.expand(state.shape[0], *self.x.shape)
        fields = self.first(torch.cat([x, state], 1))
        finer = []
        for block, coarsen in zip(self.down[:-1], self.coarsen, strict=True):
            finer.append(block(fields, condition))
            fields = coarsen(finer[-1])
        fields = self.down[-1](fields, condition)
        for block, beside in zip(reversed(self.up), reversed(finer), strict=True):
            # Halving rounds a size up: the finer array has the size to return to.
            fields = functional.interpolate(fields, beside.shape[2:])
            fields = block(torch.cat([beside, fields], 1), condition)
        outputs: Tensor = self.last(fields)
        return outputs


class _Block(nn.Module):
    """Two convolutions, each after a normalisation and SiLU, beside a short cut."""

    def __init__(self, convolution: _Convolution, before: int, after: int, embedding: int) -> None:
        super().__init__()
        self.normalise_first, self.normalise_second = _normalisation(before), _normalisation(after)
        self.first, self.second = convolution(before, after), convolution(after, after)
        self.modulate = nn.Linear(embedding, 2 * after)
        self.short_cut = (
            nn.Identity()
            if before == after
            else convolution(before, after, kernel_size=1, padding=0)
        )

    def forward(self, fields: Tensor, condition: Tensor) -> Tensor:
        """Map fields [n, h, *grid] and embedded conditions [n, e] to fields [n, h', *grid]."""
        hidden = self.first(functional.silu(self.normalise_first(fields)))
        modulation = self.modulate(condition).view(fields.shape[0], 2, -1, *[1] * (fields.ndim - 2))
        scale, shift = modulation.unbind(1)
        hidden = self.normalise_second(hidden) * (1 + scale) + shift
        outputs: Tensor = self.short_cut(fields) + self.second(functional.silu(hidden))
        return outputs


def _normalisation(channels: int) -> nn.Module:
    # A group of one channel on a grid of one point would have nothing to normalise by.
    return nn.GroupNorm(math.gcd(8, channels) if channels >= 16 else 1, channels)


def _check(grid: tuple[int, ...], levels: int) -> None:
    if not 1 <= len(grid) <= 3:
        raise ValueError(
            f"a U-Net takes grids of 1 to 3 axes, but this one has {len(grid)}, {grid}: take the "
            "surrogate mlp"
        )
    most = min(grid).bit_length() - 1
    if levels > most:
        remedy = f"lower it to at most {most}" if most else "take the surrogate mlp"
        raise ValueError(
            f"levels is {levels}, but a grid of {grid} can be halved {most} times: {remedy}"
        )
