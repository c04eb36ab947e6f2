"""From a patient's image to the solver's grid and back.

*image: the axes of a patient's image; *grid: those of the solver. Affines [4, 4] act on indices or
positions as columns (i, j, k, 1); index i is the middle of a voxel.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Affine = NDArray[np.float64]

# A voxel is looked at in this many points along each axis, or in as many as make them closer than
# half a voxel of the image, up to the second number.
_POINTS = (4, 8)


def apply(affine: Affine, points: NDArray[Any]) -> Affine:
    """An affine on points [..., 3]."""
    result: Affine = points @ affine[:3, :3].T + affine[:3, 3]
    return result


def inverse(affine: Affine) -> Affine:
    """The affine that undoes this one."""
    result = np.linalg.inv(affine).astype(np.float64)
    return result


def to_grid(mask: NDArray[np.bool_], to_image: Affine, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The voxels of a grid of this shape of which at least half lies in a mask [*image].

    `to_image` maps the grid's indices to the image's. Voxels are boxes and the mask is made of
    whole ones: a voxel of the grid is cut into small boxes, 4 to 8 along each axis, and the share
    of those is counted whose middle lies in the mask.
    """
    result = np.zeros(shape, dtype=np.bool_)
    where = np.argwhere(mask)
    low, high = where.min(0), where.max(0) + 1
    corners = np.stack(np.meshgrid(*zip(low - 0.5, high - 0.5, strict=True), indexing="ij"), -1)
    reached = apply(inverse(to_image), corners.reshape(-1, 3))
    first = np.clip(np.floor(reached.min(0)), 0, shape).astype(int)
    last = np.clip(np.ceil(reached.max(0)) + 1, 0, shape).astype(int)
    if not (first < last).all():
        return result
    box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    # The part of the mask that is not empty, within a rim that is, where all that lies outside is
    # looked up.
    part = np.pad(mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], 1)
    steps = np.linalg.norm(to_image[:3, :3], axis=0).max()
    points = int(np.clip(np.ceil(2 * steps), *_POINTS))
    offsets = (np.arange(points) + 0.5) / points - 0.5
    grid = np.stack(
        np.meshgrid(*(np.arange(a, b) for a, b in zip(first, last, strict=True)), indexing="ij"), -1
    )
    # Just off the boundaries between voxels, lest rounding decide on which side a point is.
    middles = apply(to_image, grid) - low + 1.5 + 1e-6
    count = np.zeros(grid.shape[:3], dtype=np.int64)
    for offset in np.stack(np.meshgrid(offsets, offsets, offsets), -1).reshape(-1, 3):
        at = np.floor(middles + to_image[:3, :3] @ offset).astype(np.intp)
        x, y, z = (at[..., n].clip(0, part.shape[n] - 1) for n in range(3))
        count += part[x, y, z]
    result[box] = 2 * count >= points**3
    return result


def from_grid(
    values: NDArray[np.generic], to_grid: Affine, shape: tuple[int, ...]
) -> NDArray[np.generic]:
    """Values [*grid] in the voxels of an image of this shape, 0 outside the grid.

    `to_grid` maps the image's indices to the grid's. Trilinear; a mask is where that is a half or
    more.
    """
    image: NDArray[np.float32] = ndimage.affine_transform(
        values.astype(np.float32),
        to_grid[:3, :3],
        to_grid[:3, 3],
        shape,
        order=1,
        mode="grid-constant",
    )
    return image >= 0.5 if values.dtype == np.bool_ else image
