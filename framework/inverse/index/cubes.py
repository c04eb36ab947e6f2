"""Cut a grid into cubes, whose counts of voxels bound the overlap of two masks.

Shapes: c cubes, `*grid` the grid's axes.
"""

import math

import numpy as np
from numpy.typing import NDArray

from framework.errors import StudyError

# Cubes along an axis. More of them give tighter bounds, but take more memory and time to scan.
CUBES = 8
# The most voxels of a cube, as counts have 16 bits, and of a grid, as sizes have 31.
_CUBE_VOXELS, _GRID_VOXELS = 2**16 - 1, 2**31 - 1


class Cubes:
    """A grid cut into cubes; those at the end of an axis may be cut off.

    Everything has three axes: grids with fewer get leading ones of length 1.
    """

    def __init__(self, grid: tuple[int, ...]) -> None:
        """Cut a grid of this shape. Raises StudyError if it is too large."""
        if math.prod(grid) > _GRID_VOXELS:
            raise StudyError(
                f"the grid {grid} has more than {_GRID_VOXELS} points: it is too large for an index"
            )
        largest = int(_CUBE_VOXELS ** (1 / len(grid)))
        lengths = (1,) * (3 - len(grid)) + grid
        a, b, c = (min(-(-length // CUBES), largest) for length in lengths)
        self.sides = (a, b, c)
        self.across = tuple(-(-n // side) for n, side in zip(lengths, self.sides, strict=True))
        self.words = -(-a * b * c // 64)  # of 64 bits, for a cube's bits
        along = [
            np.diff(np.minimum(np.arange(count + 1) * side, n))
            for n, side, count in zip(lengths, self.sides, self.across, strict=True)
        ]
        self.volumes = np.einsum("i,j,k->ijk", *along).ravel()  # voxels in each cube [c]

    def __len__(self) -> int:
        return len(self.volumes)

    def whole(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return a mask [*grid] with three axes."""
        return np.ascontiguousarray(mask).reshape((1,) * (3 - mask.ndim) + mask.shape)
