"""Windows: the parts of the grid that are computed, a box around each tumour that grows with it.

B: simulations, n: voxels in a box.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

# The density below which a voxel counts as empty. A box's rim lies where there is less, and nothing
# flows through it, so no cell is lost; but cells that would have run ahead of the front are held
# up. Over 80/rho a planar front then moves 0.4-0.9 % more slowly than with 1e-12; with 1e-5 it is
# 1.0-1.8 %.
EMPTY = 1e-6
# How many voxels a box is wider than needed, so that it need not grow at every time step.
_SLACK = 3


@dataclass(frozen=True)
class Windows:
    """A box for each simulation of a batch, all of one shape, within the grid."""

    first: NDArray[np.intp]  # the first voxel [B, 3]
    shape: tuple[int, int, int]

    @property
    def strides(self) -> tuple[int, int, int]:
        """The distance of neighbours along each axis when a box is one row of n voxels."""
        _, ny, nz = self.shape
        return (ny * nz, nz, 1)

    def slices(self, simulation: int) -> tuple[slice, slice, slice]:
        """Return a simulation's box in the grid."""
        x, y, z = (
            slice(int(first), int(first) + length)
            for first, length in zip(self.first[simulation], self.shape, strict=True)
        )
        return x, y, z

    def cut(self, whole: torch.Tensor) -> torch.Tensor:
        """Cut the boxes [B, n] out of one array for all [*grid], or out of one for each."""
        each = whole.dim() == 4
        boxes = [(whole[b] if each else whole)[self.slices(b)] for b in range(len(self.first))]
        return _rows(boxes)

    def paste(self, boxes: torch.Tensor, whole: NDArray[np.float32]) -> None:
        """Put the boxes [B, n] into their places in `whole` [B, *grid]."""
        values = boxes.reshape(-1, *self.shape).cpu().numpy()
        for b in range(len(self.first)):
            whole[b][self.slices(b)] = values[b]

    def moved(self, boxes: torch.Tensor, other: "Windows") -> torch.Tensor:
        """Cut the boxes [B, n] to the windows `other`; 0 where they had nothing."""
        moved = []
        for b, box in enumerate(boxes.reshape(-1, *self.shape)):
            before = self.first[b] - other.first[b]
            after = np.array(other.shape) - before - self.shape
            padding = np.stack([before, after], 1)[::-1].ravel().tolist()
            moved.append(torch.nn.functional.pad(box, padding))
        return _rows(moved)

    def occupied(self, fields: Sequence[torch.Tensor]) -> NDArray[np.intp]:
        """Return the ranges of voxels of the grid [B, 3, 2] where fields [B, n] are not empty."""
        most = fields[0] if len(fields) == 1 else torch.stack(list(fields)).amax(0)
        boxes = most.reshape(-1, *self.shape)
        flat = boxes.amax(3)  # [B, nx, ny]
        ends = np.empty((len(boxes), 3, 2), dtype=np.intp)
        for axis, profile in enumerate((flat.amax(2), flat.amax(1), boxes.amax(1).amax(1))):
            full = (profile > EMPTY).cpu().numpy()
            any_full = full.any(1)
            middle = full.shape[1] // 2  # an empty simulation has to lie somewhere
            ends[:, axis, 0] = np.where(any_full, full.argmax(1), middle)
            ends[:, axis, 1] = np.where(any_full, full.shape[1] - full[:, ::-1].argmax(1), middle)
        return ends + self.first[:, :, None]

    def has_room(
        self, ends: NDArray[np.intp], margin: NDArray[np.intp], limits: NDArray[np.intp]
    ) -> bool:
        """Return whether boxes reach `margin` [3] beyond `ends` [B, 3, 2] wherever tissue does."""
        low, high = _wider(ends, margin, limits)
        return bool((self.first <= low).all() and (self.first + self.shape >= high).all())


def _rows(boxes: Sequence[torch.Tensor]) -> torch.Tensor:
    """Copy boxes of one shape to rows [B, n]."""
    if len(boxes) == 1:
        return boxes[0].clone(memory_format=torch.contiguous_format).view(1, -1)
    return torch.stack(list(boxes)).view(len(boxes), -1)


def windows_around(
    ends: NDArray[np.intp], margin: NDArray[np.intp], limits: NDArray[np.intp]
) -> Windows:
    """Make windows with room for a margin [3] around `ends` [B, 3, 2], and for some growth."""
    low, high = _wider(ends, margin + _SLACK, limits)
    lengths = (high - low).max(0)
    first = np.minimum(low, limits[:, 1] - lengths)
    return Windows(first, (int(lengths[0]), int(lengths[1]), int(lengths[2])))


def _wider(
    ends: NDArray[np.intp], margin: NDArray[np.intp], limits: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Move `ends` [B, 3, 2] apart by `margin` [3], within `limits` [3, 2]: low and high [B, 3]."""
    low = np.clip(ends[:, :, 0] - margin, limits[:, 0], limits[:, 1] - 1)
    high = np.clip(ends[:, :, 1] + margin, limits[:, 0] + 1, limits[:, 1])
    return low, high
