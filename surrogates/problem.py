"""What a surrogate has to know of a solver; imports no torch.

Shapes: p parameters, S static fields, `*grid` the grid's axes.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Mode = Literal["direct", "autoregressive"]


@dataclass(frozen=True)
class Problem:
    """What a surrogate has to know of the simulations it learns from, before the first arrives."""

    names: tuple[str, ...]  #: of the p parameters
    low: tuple[float, ...]  #: [p]
    high: tuple[float, ...]  #: [p]
    log: tuple[bool, ...]  #: [p], true where the prior is log-uniform
    times: tuple[float, float]  #: the earliest and the latest stored time
    steps: tuple[float, float]  #: the shortest and the longest time between two stored steps
    channels: int
    grid: tuple[int, ...]
    static: NDArray[np.float32]  #: [S, *grid]
