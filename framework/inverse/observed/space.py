"""Map masks and values between a patient's image and the solver's grid.

*image: the axes of a patient's image; *grid: those of the solver. Affines [4, 4] act on indices or
positions as columns (i, j, k, 1); index i is the middle of a voxel.
"""

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Affine = NDArray[np.float64]

# The least and the most points per axis of a voxel of the grid: two for each voxel of the image.
# The numbers are even, as the middle often lies on a boundary.
_POINTS = (4, 8)


def apply(affine: Affine, points: NDArray[Any]) -> Affine:
    """Apply an affine to points [..., 3]."""
    result: Affine = points @ affine[:3, :3].T + affine[:3, 3]
    return result


def inverse(affine: Affine) -> Affine:
    """Return the inverse of an affine."""
    return np.linalg.inv(affine).astype(np.float64)


def to_grid(mask: NDArray[np.bool_], to_image: Affine, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the voxels of a grid of this shape of which at least half lies in a mask [*image].

    `to_image` maps the grid's indices to the image's. Voxels are boxes and the mask is made of
    whole ones: a voxel of the grid is cut into small boxes, 4 to 8 along each axis, and those whose
    middle lies in the mask are counted.
    """
    where = np.argwhere(mask)
    low, high = where.min(0), where.max(0)
    first, last = _reached(low, high, inverse(to_image), shape)
    result = np.zeros(shape, dtype=np.bool_)
    if not (first < last).all():
        return result
    # The part of the mask that is not empty, with an empty rim, in which points further out fall.
    part = np.pad(mask[_box_of(low, high + 1)], 1)
    voxels = np.moveaxis(np.indices(tuple(last - first)), 0, -1) + first
    # Moved just off the boundaries between voxels, or rounding would decide the side of a point.
    middles = apply(to_image, voxels) - low + 1.5 + 1e-4
    steps = np.linalg.norm(to_image[:3, :3], axis=0).max()
    points = int(np.clip(2 * np.ceil(steps - 1e-3), *_POINTS))
    count = np.zeros(voxels.shape[:3], dtype=np.int64)
    for offset in product((np.arange(points) + 0.5) / points - 0.5, repeat=3):
        at = np.floor(middles + to_image[:3, :3] @ offset).astype(np.intp)
        count += part[tuple(np.moveaxis(at.clip(0, np.array(part.shape) - 1), -1, 0))]
    result[_box_of(first, last)] = 2 * count >= points**3
    return result


def from_grid(
    values: NDArray[np.floating], to_grid: Affine, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Interpolate values [*grid] to the voxels of an image of this shape, 0 outside the grid.

    `to_grid` maps the image's indices to the grid's. The interpolation is trilinear.
    """
    image: NDArray[np.float32] = ndimage.affine_transform(
        values.astype(np.float32),
        to_grid[:3, :3],
        to_grid[:3, 3],
        shape,
        order=1,
        mode="grid-constant",
    )
    return image


def _reached(
    low: NDArray[np.intp], high: NDArray[np.intp], to_grid: Affine, shape: tuple[int, ...]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first voxel of the grid [3], and one past the last, that image voxels reach.

    Those of the image are from `low` to `high` [3].
    """
    corners = apply(to_grid, np.array(list(product(*zip(low - 0.5, high + 0.5, strict=True)))))
    first = np.clip(np.floor(corners.min(0)), 0, shape).astype(np.intp)
    last = np.clip(np.ceil(corners.max(0)) + 1, 0, shape).astype(np.intp)
    return first, last


def _box_of(first: NDArray[np.intp], last: NDArray[np.intp]) -> tuple[slice, ...]:
    return tuple(slice(a, b) for a, b in zip(first, last, strict=True))
