"""Patients with a known truth: stored simulations, seen by a rater who moves boundaries.

Shapes: C fields, `*grid` the grid's axes.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from framework.inverse.index.index import Index
from framework.inverse.posterior.posterior import quantities_of
from framework.inverse.search.masks import Observed
from framework.store.reader import StoreReader
from solvers.base import Solver

# How a boundary is moved: standard deviation and correlation length, in the grid's units (mm).
# Five automatic raters of a glioma differed from their fusion by 0.1-1.4 mm in the mean.
NOISE, CORRELATION = 1.0, 10.0
# How many entries are tried for one patient, on average.
_TRIES_EACH = 20
# The fewest voxels of a patient's mask: anything smaller would not be segmented.
_VISIBLE = 27


def patients(
    index: Index,
    reader: StoreReader,
    solver: Solver,
    count: int,
    random: np.random.Generator,
) -> Iterator[tuple[int, int, Observed]]:
    """Make at most `count` patients: the simulation, the position, and the masks observed."""
    lowest = index.sizes[list(index.first.values())]
    possible = lowest.all(axis=0)  # in the others some mask is empty at every threshold
    # A posterior leaves out seeds that have not grown, however large they are.
    for quantity in quantities_of(reader, solver, index.keys).values():
        possible &= (quantity.values > 0) | (not quantity.positive)
    for entry in random.permutation(np.flatnonzero(possible))[: _TRIES_EACH * count].tolist():
        simulation, position = index.keys[entry].tolist()
        observed = segment(solver, reader.fields_at(simulation, position), index.masks, random)
        if observed is not None:
            yield simulation, position, observed
            count -= 1
            if not count:
                return


def segment(
    solver: Solver,
    fields: NDArray[np.float32],
    masks: Mapping[str, tuple[float, ...]],
    random: np.random.Generator,
) -> Observed | None:
    """Segment fields [C, *grid] as a rater would; return None if there is too little to see."""
    observed = {}
    for name, thresholds in masks.items():
        value = random.uniform(thresholds[0], thresholds[-1])
        mask = np.asarray(solver.observe(fields, **{name: value})[name], dtype=bool)
        mask = move_boundary(mask, solver.grid.spacing, random)
        if np.count_nonzero(mask) < _VISIBLE:
            return None
        observed[name] = mask
    return observed


def move_boundary(
    mask: NDArray[np.bool_], spacing: tuple[float, ...], random: np.random.Generator
) -> NDArray[np.bool_]:
    """Move the boundary of a mask [*grid] by a smooth random field, out or in."""
    if not mask.any():
        return mask
    where = np.argwhere(mask)
    rim = np.ceil((4 * NOISE) / np.array(spacing)).astype(int) + 1
    low = np.maximum(where.min(0) - rim, 0)
    box = tuple(map(slice, low, where.max(0) + 1 + rim))
    part = mask[box]
    # Signed distances from the boundary, which lies half a voxel from the nearest middles.
    half = min(spacing) / 2
    inside = ndimage.distance_transform_edt(part, spacing)
    outside = ndimage.distance_transform_edt(~part, spacing)
    distance = np.where(part, inside - half, half - outside)
    # The correlation of white noise after a Gaussian filter is a Gaussian, wider by sqrt(2).
    sigma = CORRELATION / np.sqrt(2) / np.array(spacing)
    pad = np.ceil(3 * sigma).astype(int)
    white = random.standard_normal(np.add(part.shape, 2 * pad))
    smooth = ndimage.gaussian_filter(white, sigma, truncate=3.0)
    smooth = smooth[tuple(slice(p, p + n) for p, n in zip(pad, part.shape, strict=True))]
    smooth *= np.prod(np.sqrt(2 * np.sqrt(np.pi) * sigma))  # to a deviation of 1
    result = np.zeros_like(mask)
    result[box] = distance + NOISE * smooth > 0
    return result
