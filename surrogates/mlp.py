"""A fully connected network."""

import math
from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from surrogates.base import Mode, Problem, Surrogate


class Mlp(Surrogate):
    """Fully connected layers with ReLU between them, from the conditions to every grid point.

    With the default widths and in mode `direct` it is the surrogate of the heat-equation study of
    arXiv 2306.16133: the parameters and the time (6 inputs), 256, 256, one output a grid point.
    """

    def __init__(
        self,
        problem: Problem,
        mode: Mode = "direct",
        hidden: tuple[Annotated[int, Ge(1)], ...] = (256, 256),
    ) -> None:
        """`hidden`: the widths of the hidden layers."""
        super().__init__(problem, mode)
        points = math.prod(problem.grid)
        widths = (self.conditions + self.state_channels * points, *hidden)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], problem.channels * points))

    def forward(self, conditions: Tensor, state: Tensor) -> Tensor:
        outputs: Tensor = self.layers(torch.cat([conditions, state.flatten(1)], 1))
        return outputs.view(-1, self.problem.channels, *self.problem.grid)
