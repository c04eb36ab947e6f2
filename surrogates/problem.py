"""The facts about a solver that a surrogate needs; imports no torch.

Shapes: p parameters, S static fields, `*grid` the grid's axes.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Mode = Literal["direct", "autoregressive"]


@dataclass(frozen=True)
class Problem:
    """The facts about simulations that a surrogate needs before the first one arrives."""

    names: tuple[str, ...]  #: of the p parameters
    low: tuple[float, ...]  #: [p]
    high: tuple[float, ...]  #: [p]
    log: tuple[bool, ...]  #: [p], true where the prior is log-uniform
    times: tuple[float, float]  #: the earliest and the latest stored time
    steps: tuple[float, float]  #: the shortest and the longest time between two stored steps
    channels: int
    grid: tuple[int, ...]
    static: NDArray[np.float32]  #: [S, *grid]
