"""Samples: windows of consecutive stored steps, as they arrive and as they are drawn.

Shapes: n samples, w stored steps in each (the window), p parameters, C fields, `*grid` the grid's
axes.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class SampleShape:
    """The sizes of one sample."""

    parameters: int  # p
    window: int  # w
    fields: tuple[int, ...]  # (C, *grid)

    @property
    def bytes(self) -> int:
        """The memory of the fields of one sample, in single precision."""
        return 4 * self.window * math.prod(self.fields)


@dataclass(frozen=True)
class Samples:
    """Windows of w consecutive stored steps, each identified by (simulation, first_step)."""

    simulation: NDArray[np.int64]  # [n]
    first_step: NDArray[np.int64]  # [n]
    parameters: NDArray[np.float32]  # [n, p]
    times: NDArray[np.float32]  # [n, w]
    fields: NDArray[np.float32]  # [n, w, C, *grid]

    def __len__(self) -> int:
        return len(self.simulation)

    def part(self, part: slice) -> "Samples":
        """Return some of these samples, as views."""
        return Samples(
            self.simulation[part],
            self.first_step[part],
            self.parameters[part],
            self.times[part],
            self.fields[part],
        )


@dataclass(frozen=True)
class Batch:
    """Samples as they are drawn: tensors where the buffer keeps them, perhaps on a GPU.

    They are a type of their own because `Samples` are views of received blocks, which overlap and
    must not be copied before they are placed, while a batch owns its tensors.
    """

    simulation: NDArray[np.int64]  # [n]
    first_step: NDArray[np.int64]  # [n]
    parameters: Tensor  # [n, p] float32
    times: Tensor  # [n, w] float32
    fields: Tensor  # [n, w, C, *grid] float32

    def __len__(self) -> int:
        return len(self.simulation)
