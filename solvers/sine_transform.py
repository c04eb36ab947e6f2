"""The sine transform, which diagonalises the Laplacian on a grid with fixed values at its sides.

n: inner nodes along an axis; `...` any leading axes.
"""

import math

import torch
from torch import Tensor


class SineTransform:
    """A transform over `dimensions` axes of n inner nodes, spacing 1 / (n + 1), in float64."""

    def __init__(self, dimensions: int, n: int, device: str) -> None:
        self._dimensions = dimensions
        mode = torch.arange(1, n + 1, dtype=torch.float64, device=device)
        self._sine = math.sqrt(2 / (n + 1)) * torch.sin(math.pi / (n + 1) * mode[:, None] * mode)
        along_axis = -((2 * (n + 1) * torch.sin(math.pi / (2 * (n + 1)) * mode)) ** 2)
        # The eigenvalues of the second-order Laplacian: [n, ...], one axis each.
        self.eigenvalues = along_axis
        for _ in range(dimensions - 1):
            self.eigenvalues = self.eigenvalues[..., None] + along_axis

    def __call__(self, values: Tensor) -> Tensor:
        """Map values at the inner nodes [..., n, n, ...] to modes; this map is its own inverse."""
        if self._dimensions == 3:
            values = (self._sine @ values.flatten(-2)).view(values.shape)
        if self._dimensions > 1:
            values = self._sine @ values
        return values @ self._sine
