"""Build the look-up index of a store, or add the simulations that it lacks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from framework.errors import StudyError
from framework.inverse.index.index import Index
from framework.inverse.index.layout import MANIFEST, index_folder
from framework.inverse.index.observer import Observer
from framework.inverse.index.writer import IndexWriter
from framework.store.attributes import solver_of
from framework.store.reader import StoreReader
from solvers.base import ImagedSolver


def imaged_solver(reader: StoreReader) -> ImagedSolver:
    """Make the solver of a store that is compared with masks. Raises StudyError if it has none."""
    solver = solver_of(reader)
    if not isinstance(solver, ImagedSolver) or not solver.masks:
        raise StudyError(
            f"{reader.path} is a store of {reader.study['solver']['name']}, whose solver has no "
            "masks to compare with segmentations: it cannot be indexed; ask it by --field"
        )
    return solver


def build(
    store: str,
    thresholds: Mapping[str, Sequence[float]] | None = None,
    tell: Callable[[int, int], None] = lambda done, simulations: None,
) -> dict[str, Any]:
    """Index every complete simulation that is not in the index yet; return what is indexed now.

    `thresholds` by mask replace those of the solver, or of the index if there is one. `tell` is
    called after each simulation. After an interrupt, the next call continues a few seconds before
    the point reached. Raises StudyError if the store cannot be indexed with these thresholds, and
    RunError if the store or the index is damaged, or the index cannot be written.
    """
    reader = StoreReader(store)
    folder = index_folder(reader.path)
    solver = imaged_solver(reader)
    if not len(reader.complete):
        raise StudyError(f"the store {reader.path} has no complete simulation to index yet")
    masks = _indexed_masks(solver, reader, thresholds)
    if (folder / MANIFEST).exists():
        index = Index(folder)
        index.check(reader)
        masks = masks if thresholds else index.masks
    observer = Observer(solver, masks)
    with IndexWriter(folder, reader.identity["hash"], solver.grid.shape, masks) as writer:
        # Looked up under the writer's lock: another process may just have added some.
        missing = np.setdiff1d(reader.complete, writer.simulations).tolist()
        for done, simulation in enumerate(missing):
            for position, fields in enumerate(reader.fields(simulation)):
                writer.add(simulation, position, *observer.masks(fields))
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
    }


def _indexed_masks(
    solver: ImagedSolver, reader: StoreReader, thresholds: Mapping[str, Sequence[float]] | None
) -> Mapping[str, tuple[float, ...]]:
    """Return the masks to index, each with its thresholds, ascending. Raises StudyError."""
    if thresholds is None:
        return solver.masks
    name = reader.study["solver"]["name"]
    for mask, values in thresholds.items():
        if mask not in solver.masks:
            raise StudyError(f"{mask} is not a mask of {name}, which has {', '.join(solver.masks)}")
        if not values:
            raise StudyError(f"no threshold is given for {mask}: give one at least")
    if not thresholds:
        raise StudyError(f"no mask is given: give one at least of {', '.join(solver.masks)}")
    return {
        mask: tuple(sorted(set(map(float, thresholds[mask]))))
        for mask in solver.masks
        if mask in thresholds
    }
