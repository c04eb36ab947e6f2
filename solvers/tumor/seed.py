"""Where a tumour starts: a small smooth sphere of cells, c = cos(pi r / 2 RADIUS)^2, in tissue."""

import math

import numpy as np
from numpy.typing import NDArray

from solvers.tumor.atlas import Tissue

RADIUS = 6.0  # mm
# The number of cells in the sphere, as the volume in mm3 that they would fill.
CELLS = 4 * math.pi * RADIUS**3 * (1 / 6 - 1 / math.pi**2)
# Their mean squared distance from the middle along one axis, mm2.
VARIANCE = RADIUS**2 * (1 / 5 - 4 / math.pi**2 + 24 / math.pi**4) / (1 - 6 / math.pi**2)
# The largest distance in mm between the points that a voxel's mean is taken over.
_SAMPLING = 0.5


def seed(tissue: Tissue, position: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the density of cells [*grid] of a sphere at a position [3].

    The position is in shares of the grid's sides. Every voxel of tissue has the mean over its
    volume, so that grids of any spacing start with as many cells; there are none outside tissue.
    Raises ValueError if the position is not in tissue.
    """
    shape, spacing = np.array(tissue.mask.shape), np.array(tissue.spacing)
    voxel = np.floor(position * shape).astype(int)
    if (voxel < 0).any() or (voxel >= shape).any() or not tissue.mask[tuple(voxel)]:
        raise ValueError(
            f"the seed ({', '.join(f'{share:g}' for share in position)}) lies outside tissue: x, y "
            "and z, as shares of the grid's sides, have to name a voxel with white or grey matter"
        )
    middle = position * shape * spacing  # mm
    first = np.maximum(np.floor((middle - RADIUS) / spacing).astype(int), 0)
    last = np.minimum(np.ceil((middle + RADIUS) / spacing).astype(int), shape)
    counts = np.ceil(spacing / _SAMPLING).astype(int)
    squares = [
        ((np.arange(a * n, b * n) + 0.5) * h / n - x) ** 2
        for a, b, n, h, x in zip(first, last, counts, spacing, middle, strict=True)
    ]
    radius = np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2])
    density = np.where(radius < RADIUS, (1 + np.cos(math.pi / RADIUS * radius)) / 2, 0)
    voxels = np.stack([last - first, counts], 1).ravel()  # [nx, samples, ny, samples, ...]
    cells = np.zeros(shape, dtype=np.float32)
    box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    cells[box] = density.reshape(voxels).mean((1, 3, 5)) * tissue.mask[box]
    return cells
