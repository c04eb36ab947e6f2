"""Builds the look-up index of a store, or extends it by the simulations that it lacks.

Shapes: K kept steps, C fields, T thresholds of all masks together, `*grid` the grid's axes.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.errors import RunError, StudyError
from framework.inverse.index import MANIFEST, Cubes, Index, index_folder
from framework.inverse.index_writer import IndexWriter
from framework.store_identity import solver_of
from framework.store_reader import StoreReader
from solvers.base import Solver


def build(
    store: str,
    thresholds: Mapping[str, Sequence[float]] | None = None,
    tell: Callable[[int, int], None] = lambda done, simulations: None,
) -> dict[str, Any]:
    """Index every complete simulation of a store that is not in its index yet; what there is now.

    `thresholds` of the solver's masks, in place of its own or of those of the index that there is.
    `tell` is called after each simulation. Interrupted, it goes on where it was, but for some
    seconds. Raises StudyError if the store cannot be indexed so, and RunError if the store or the
    index is damaged, or the latter cannot be written.
    """
    started = time.monotonic()
    reader = StoreReader(store)
    folder = index_folder(reader.path)
    solver = solver_of(reader)
    if not len(reader.complete):
        raise StudyError(f"the store {reader.path} has no complete simulation to index yet")
    known = np.empty(0, np.int64)
    masks = _masks(solver, reader, thresholds)
    if (folder / MANIFEST).exists():
        index = Index(folder)
        index.check(reader)
        known = index.keys[:, 0]
        masks = masks if thresholds else index.masks
    missing = np.setdiff1d(reader.complete, known).tolist()
    observer = _Observer(solver, masks)
    with IndexWriter(folder, reader.identity["hash"], solver.grid.shape, masks) as writer:
        for done, simulation in enumerate(missing):
            for step, fields in enumerate(reader.fields(simulation)):
                writer.add(simulation, step, *observer.masks(fields))
            if writer.full or done + 1 == len(missing):
                writer.commit()
            tell(done + 1, len(missing))
    index = Index(folder)
    return {
        "store": reader.path,
        "index": str(folder),
        "simulations": {"indexed": len(reader.complete), "added": len(missing)},
        "entries": index.entries,
        "masks": {name: list(values) for name, values in index.masks.items()},
        "bytes": index.bytes,
        "seconds": time.monotonic() - started,
    }


def _masks(
    solver: Solver, reader: StoreReader, thresholds: Mapping[str, Sequence[float]] | None
) -> Mapping[str, tuple[float, ...]]:
    """Those to index, each with ascending thresholds. Raises StudyError."""
    name = reader.study["solver"]["name"]
    if not solver.masks:
        raise StudyError(
            f"{reader.path} is a store of {name}, whose solver has no masks to compare with "
            "segmentations: it cannot be indexed"
        )
    if thresholds is None:
        return solver.masks
    for mask, values in thresholds.items():
        if mask not in solver.masks:
            raise StudyError(f"{mask} is not a mask of {name}, which has {', '.join(solver.masks)}")
        if not values:
            raise StudyError(f"no threshold is given for {mask}: give one at least")
    if not thresholds:
        raise StudyError(f"no mask is given: give one at least of {', '.join(solver.masks)}")
    return {
        mask: tuple(sorted(set(thresholds[mask]))) for mask in solver.masks if mask in thresholds
    }


class _Observer:
    """Makes masks of fields, all but the first of each only where the first one is."""

    def __init__(self, solver: Solver, masks: Mapping[str, tuple[float, ...]]) -> None:
        self._solver, self._masks = solver, masks
        sides = Cubes(solver.grid.shape).sides
        self._sides = np.array(sides[3 - len(solver.grid.shape) :])

    def masks(self, fields: NDArray[np.float32]) -> tuple[NDArray[np.bool_], tuple[int, ...]]:
        """All masks [T, *box] of fields [C, *grid] in a box around them, and the box's corner."""
        lowest = {
            name: self._observe(fields, name, values[0]) for name, values in self._masks.items()
        }
        somewhere = np.logical_or.reduce(list(lowest.values()))
        corner, end = _box(somewhere)
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


def _box(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where on each axis a mask begins and ends; the first voxel if it is empty."""
    begins, ends = [], []
    for axis in range(mask.ndim):
        along = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        begins.append(along[0] if len(along) else 0)
        ends.append(along[-1] + 1 if len(along) else 1)
    return np.array(begins), np.array(ends)
