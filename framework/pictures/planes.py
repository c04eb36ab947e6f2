"""Planes through a three-dimensional grid, as pictures show them."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from solvers.base import Solver

# Along the three axes of a grid that lies in a scanner's space, the planes across them.
PLANES = ("sagittal", "coronal", "axial")


def ground(solver: Solver) -> NDArray[np.float32] | None:
    """What lies under a field [*grid]: the static fields, if there are any."""
    sum: NDArray[np.float32] | None = None
    for static in solver.static_fields.values():
        # Later fields count for less, so that two that share a voxel differ in shade.
        sum = static if sum is None else sum + np.float32(0.5) * static
    return sum


def plane(volume: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    """Across an axis, the first axis that is left to the right and the second one up."""
    plane: NDArray[Any] = volume.take(index, axis).T
    return plane


def others(axis: int) -> tuple[int, int]:
    first, second = (n for n in range(3) if n != axis)
    return first, second


def aspect(solver: Solver, axis: int) -> float:
    """How much longer than wide a voxel is in the plane across an axis."""
    first, second = others(axis)
    return solver.grid.spacing[second] / solver.grid.spacing[first]


def outline(axes: Axes, mask: NDArray[np.bool_], **look: Any) -> None:
    """The outline of a plane of a mask, if it has one."""
    if mask.any() and not mask.all() and min(mask.shape) > 1:
        axes.contour(mask, levels=[0.5], **look)


def crop(axes: Axes, ground: NDArray[np.float32], axis: int) -> None:
    """Show of the plane across an axis only as far as there is ground [*grid], if there is any."""
    if not ground.any():
        return
    across, up = (np.flatnonzero(ground.any(axis=others(n))) for n in others(axis))
    axes.set_xlim(across[0] - 1.5, across[-1] + 1.5)
    axes.set_ylim(up[0] - 1.5, up[-1] + 1.5)


def empty(axes: Axes) -> None:
    """Without ticks and frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
