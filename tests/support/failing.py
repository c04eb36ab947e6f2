"""Solvers of which some simulations fail."""

from collections.abc import Iterator

import numpy as np
from light import Light
from numpy.typing import NDArray


class Mild(Light):
    """`Light` that is not finite at step 4 where it is hotter inside than `hottest` [K]."""

    hottest = 470

    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        for step, fields in enumerate(super().solve_batch(parameters, seeds, device)):
            if step == 4:
                fields[parameters[:, 0] > self.hottest] = np.nan
            yield fields


class Bad(Mild):
    """Fails for most parameters."""

    hottest = 200
