"""The sine transform, which diagonalises the Laplacian on a grid with fixed values at its sides.

n: inner nodes along an axis; `...` any leading axes.
"""

import math
from typing import Any

import numpy as np


class SineTransform:
    """A transform over `dimensions` axes of n inner nodes, spacing 1 / (n + 1), in float64.

    It works on numpy arrays, or, once it was moved to a device, on torch's tensors there.
    """

    def __init__(self, dimensions: int, n: int) -> None:
        self._dimensions = dimensions
        mode = np.arange(1.0, n + 1)
        self._sine: Any = math.sqrt(2 / (n + 1)) * np.sin(math.pi / (n + 1) * mode[:, None] * mode)
        along_axis = -((2 * (n + 1) * np.sin(math.pi / (2 * (n + 1)) * mode)) ** 2)
        # The eigenvalues of the second-order Laplacian: [n, ...], one axis each.
        self.eigenvalues: Any = along_axis
        for _ in range(dimensions - 1):
            self.eigenvalues = self.eigenvalues[..., None] + along_axis

    def to(self, device: str) -> "SineTransform":
        """Move it to a device of torch; return it."""
        import torch  # takes seconds, and the solvers that use numpy do without

        self._sine, self.eigenvalues = (
            torch.as_tensor(values, device=device) for values in (self._sine, self.eigenvalues)
        )
        return self

    def __call__(self, values: Any) -> Any:
        """Map values at the inner nodes [..., n, n, ...] to modes; this map is its own inverse."""
        if self._dimensions == 3:
            values = (self._sine @ values.reshape(*values.shape[:-2], -1)).reshape(values.shape)
        if self._dimensions > 1:
            values = self._sine @ values
        return values @ self._sine
