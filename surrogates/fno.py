"""The Fourier neural operator of the neuraloperator library."""

from typing import Annotated

import torch
from annotated_types import Ge
from neuralop.models import FNO
from tensorly.plugins import use_default_einsum
from torch import Tensor

from surrogates.base import Mode, Problem, Surrogate

# neuraloperator has every product planned and kept for each size of a batch. A product of two
# needs no plan, and a program for batches of any size cannot have one for each.
use_default_einsum()


class Fno(Surrogate):
    """A Fourier neural operator (Li et al., arXiv 2010.08895), as neuraloperator implements it.

    Every condition becomes a constant channel beside the state; the library adds the coordinates.
    """

    # The library keeps its spectral weights and coefficients in single precision, even if the rest
    # is in bfloat16.
    precisions = ("float32", "bfloat16")

    def __init__(
        self,
        problem: Problem,
        mode: Mode = "direct",
        modes: Annotated[int, Ge(1)] = 16,
        hidden_channels: Annotated[int, Ge(1)] = 32,
        layers: Annotated[int, Ge(1)] = 4,
    ) -> None:
        """`modes` Fourier modes along every axis, `layers` blocks of `hidden_channels` channels.

        `modes` counts both signs of a frequency.
        """
        super().__init__(problem, mode)
        if modes > min(problem.grid):
            raise ValueError(
                f"modes is {modes}, but a grid of {problem.grid} has at most {min(problem.grid)} "
                "along its shortest axis, counting both signs of a frequency: lower modes, or "
                "refine the grid"
            )
        self.network = FNO(
            n_modes=(modes,) * len(problem.grid),
            in_channels=self.conditions + self.state_channels,
            out_channels=problem.channels,
            hidden_channels=hidden_channels,
            n_layers=layers,
        )

    def forward(self, conditions: Tensor, state: Tensor) -> Tensor:
        shape = (*conditions.shape, *[1] * len(self.problem.grid))
        constant = conditions.view(shape).expand(*conditions.shape, *self.problem.grid)
        outputs: Tensor = self.network(torch.cat([constant, state], 1))
        return outputs
