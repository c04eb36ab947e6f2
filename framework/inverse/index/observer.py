"""Observe the masks of a solver's fields, at every threshold that is tried.

Shapes: C fields, T thresholds of all masks together, `*grid` the grid's axes, `*box` those of a
part of it.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from framework.errors import RunError, StudyError
from framework.inverse.index.cubes import Cubes
from solvers.base import Solver


class Observer:
    """Makes masks of fields.

    A mask at a higher threshold lies within the mask at the lowest one, so the higher thresholds
    are observed only in a box around that mask.
    """

    def __init__(self, solver: Solver, masks: Mapping[str, tuple[float, ...]]) -> None:
        self._solver, self._masks = solver, masks
        sides = Cubes(solver.grid.shape).sides
        self._sides = np.array(sides[3 - len(solver.grid.shape) :])

    def masks(self, fields: NDArray[np.float32]) -> tuple[NDArray[np.bool_], tuple[int, ...]]:
        """Return all masks [T, *box] of fields [C, *grid] in a box around them, and its corner.

        Raises StudyError if the solver cannot observe them at these thresholds, and RunError if it
        returns something else than a mask, or a mask that grows with its threshold.
        """
        lowest = {
            name: self._observe(fields, name, values[0]) for name, values in self._masks.items()
        }
        somewhere = np.logical_or.reduce(list(lowest.values()))
        corner, end = _bounding_box(somewhere)
        corner -= corner % self._sides
        box = tuple(slice(a, b) for a, b in zip(corner.tolist(), end.tolist(), strict=True))
        part = np.ascontiguousarray(fields[(slice(None), *box)])
        masks = []
        for name, values in self._masks.items():
            mask = lowest[name][box]
            masks.append(mask)
            for value in values[1:]:
                larger, mask = mask, self._observe(part, name, value)
                if (mask & ~larger).any():
                    raise RunError(
                        f"the solver's mask {name} grows where its threshold goes up to {value:g}: "
                        "a higher one has to make a mask smaller"
                    )
                masks.append(mask)
        return np.stack(masks), tuple(corner.tolist())

    def _observe(self, fields: NDArray[np.float32], name: str, value: float) -> NDArray[np.bool_]:
        try:
            image = self._solver.observe(fields, **{name: value})[name]
        except ValueError as error:
            raise StudyError(f"the solver cannot observe {name} at {value:g}: {error}") from None
        if image.dtype != np.bool_ or image.shape != fields.shape[1:]:
            raise RunError(
                f"the solver's image {name} is of type {image.dtype} and shape {image.shape}: it "
                f"has to be a mask of shape {fields.shape[1:]}"
            )
        return image.astype(bool, copy=False)


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first voxel of a mask on each axis, and one past its last; 0 and 1 if empty."""
    begins, ends = [], []
    for axis in range(mask.ndim):
        along = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        begins.append(along[0] if len(along) else 0)
        ends.append(along[-1] + 1 if len(along) else 1)
    return np.array(begins), np.array(ends)
