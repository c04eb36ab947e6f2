"""Planes through a three-dimensional grid, for pictures."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from solvers.base import Solver

# The planes across the three axes of a grid that lies in a scanner's space.
PLANES = ("sagittal", "coronal", "axial")


def ground(solver: Solver) -> NDArray[np.float32] | None:
    """Add up the static fields [*grid], to draw under a field; return None if there are none."""
    total: NDArray[np.float32] | None = None
    for static in solver.static_fields.values():
        # Later fields count for less, so that two that share a voxel differ in shade.
        total = static if total is None else total + np.float32(0.5) * static
    return total


def plane(volume: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    """Return the plane of a volume [*grid] across `axis` at `index`, as an image.

    The first of the other two axes runs to the right, the second upwards.
    """
    image: NDArray[Any] = volume.take(index, axis).T
    return image


def others(axis: int) -> tuple[int, int]:
    """Return the other two axes."""
    first, second = (n for n in range(3) if n != axis)
    return first, second


def aspect(solver: Solver, axis: int) -> float:
    """Return the height of a voxel over its width, in the plane across an axis."""
    first, second = others(axis)
    return solver.grid.spacing[second] / solver.grid.spacing[first]


def outline(axes: Axes, mask: NDArray[np.bool_], **look: Any) -> None:
    """Draw the outline of a plane of a mask, if it has one; `look` is for `contour`."""
    if mask.any() and not mask.all() and min(mask.shape) > 1:
        axes.contour(mask, levels=[0.5], **look)


def crop(axes: Axes, ground: NDArray[np.float32], axis: int) -> None:
    """Limit a picture of the plane across `axis` to where there is ground [*grid]."""
    if not ground.any():
        return
    across, up = (np.flatnonzero(ground.any(axis=others(n))) for n in others(axis))
    axes.set_xlim(across[0] - 1.5, across[-1] + 1.5)
    axes.set_ylim(up[0] - 1.5, up[-1] + 1.5)


def empty(axes: Axes) -> None:
    """Remove the ticks and the frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
