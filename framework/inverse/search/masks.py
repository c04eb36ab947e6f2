"""Exact look-up of masks: the entries of an index that are most like what was observed.

The score of an entry is the weighted mean of the Dice coefficients of its masks with those
observed, each mask at its best threshold. From the counts of voxels in each cube of the grid, two
masks have at most sum(min(count_A, count_Q)) voxels in common, which bounds every entry's score
from above. Bounds are computed for all entries; exact scores are computed from the voxels' bits, in
the order of the bounds, until the next bound is below the last score wanted. So the answer is the
same as if every voxel of every entry were compared. Overlaps are whole numbers, and bounds and
scores are the same expression of them, so rounding cannot put a bound below its score.

Shapes: N entries, M masks observed, t thresholds of them together, c cubes.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framework.errors import StudyError
from framework.inverse.index.index import Index
from framework.inverse.index.layout import damaged_index
from framework.inverse.index.records import pack
from framework.inverse.search import kernels

Observed = Mapping[str, NDArray[np.bool_]]
# How many entries are refined before it is checked again how far to go.
BATCH = 128


@dataclass(frozen=True)
class MaskMatch:
    """An entry, and how similar its masks are to those observed."""

    entry: int  # its number in the index
    simulation: int
    position: int  # of its step among the kept steps
    score: float
    # For each mask observed: the best threshold (of equal ones the lowest), and its Dice.
    thresholds: Mapping[str, float]
    dice: Mapping[str, float]


@dataclass(frozen=True)
class MaskAnswer:
    """The best entries, the best first; of equal scores the earlier simulation and position."""

    matches: tuple[MaskMatch, ...]
    entries: int  # how many were compared
    refined: int  # how many of them voxel by voxel
    seconds: float
    exact: bool = True


def search_masks(
    index: Index,
    observed: Observed,
    weights: Mapping[str, float] | None = None,
    top: int = 10,
    leave_out: int | None = None,
) -> MaskAnswer:
    """Find the `top` best entries for masks [*grid] by name, exactly.

    `weights` by mask, equal if None, are scaled to a sum of 1. `leave_out`: a simulation whose
    entries do not count. Raises StudyError if masks, weights or `top` do not suit the index, and
    DamagedError if it is damaged.
    """
    started = time.perf_counter()
    search = _Search(index, observed, weights, leave_out)
    if not 1 <= top <= search.entries:
        raise StudyError(
            f"the {top} best matches are asked for: it must be from 1 to {search.entries}, the "
            "entries of the index"
        )
    return search.answer(*search.best(top), started)


def dice_coefficients(
    index: Index, observed: Observed, entries: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Return exact Dice coefficients of some entries: mask -> [entries, thresholds].

    Raises StudyError if the masks do not suit the index, DamagedError if it is damaged.
    """
    return _dices(index, _Query(index, observed), entries)


class _Query:
    """Masks that were observed, cut into cubes: `bits` [M, c, w], `counts` [M, c], `sizes` [M].

    `thresholds` [t]: the numbers, in the index, of the thresholds of these masks; `owners` [t]: the
    mask that each belongs to. Mask m has those from `firsts[m]` to `firsts[m + 1]`.
    """

    def __init__(self, index: Index, observed: Observed) -> None:
        """Raise StudyError if the masks do not suit the index."""
        self.names = [name for name in index.masks if name in observed]
        for name, mask in observed.items():
            if name not in index.masks:
                raise StudyError(
                    f"{name} is not a mask of the index {index.folder}, which has "
                    f"{', '.join(index.masks)}"
                )
            if mask.shape != index.grid or mask.dtype != np.bool_:
                raise StudyError(
                    f"the observed {name} is of shape {mask.shape} and type {mask.dtype}: it must "
                    f"be a mask on the grid {index.grid}"
                )
        if not observed:
            raise StudyError(f"no mask was observed: give at least one of {', '.join(index.masks)}")
        cubes = index.cubes
        packed = [
            pack(cubes.whole(observed[name]), cubes.sides, cubes.words) for name in self.names
        ]
        self.counts = np.stack([counts for counts, _ in packed])
        self.bits = np.stack([bits for _, bits in packed])
        self.sizes = self.counts.sum(axis=1, dtype=np.int64)
        lengths = [len(index.masks[name]) for name in self.names]
        self.firsts = np.cumsum([0, *lengths])
        self.owners = np.repeat(np.arange(len(lengths)), lengths)
        self.thresholds = np.concatenate(
            [index.first[name] + np.arange(len(index.masks[name])) for name in self.names]
        )

    def slice(self, m: int) -> slice:
        """Return where the thresholds of mask m are among `thresholds`."""
        return slice(int(self.firsts[m]), int(self.firsts[m + 1]))


def _dices(
    index: Index, query: _Query, entries: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Compute `dice_coefficients`."""
    shared = np.empty((len(entries), len(query.thresholds)), np.int64)
    records = (index.voxels, index.ends, index.checksums, index.checked, query.thresholds)
    asked = (query.owners, query.bits, query.counts)
    arguments = ((*records, *asked, entries[p], shared[p]) for p in _parts(len(entries)))
    _raise_if_damaged(index, kernels.in_threads(kernels.overlaps, arguments))
    voxels = index.sizes[query.thresholds][:, entries].T + query.sizes[query.owners]
    values = np.where(voxels == 0, 1.0, 2.0 * shared / np.maximum(voxels, 1))
    return {name: values[:, query.slice(m)] for m, name in enumerate(query.names)}


class _Search:
    """One search: the bounds of all entries, and which of them were refined."""

    def __init__(
        self,
        index: Index,
        observed: Observed,
        weights: Mapping[str, float] | None,
        leave_out: int | None,
    ) -> None:
        self._index, self._query = index, _Query(index, observed)
        self._weights = _normalised(weights, self._query.names)
        query, n = self._query, index.entries
        self._upper = np.zeros((len(query.thresholds), n), np.int32)
        dices = np.zeros((len(query.names), n))
        arguments = []
        first = 0
        for table in index.tables:
            for m, name in enumerate(query.names):
                reached = np.flatnonzero(query.counts[m])
                rows, there = table.rows(reached)
                start = index.first[name]
                thresholds = slice(start, start + len(index.masks[name]))
                upper = self._upper[query.slice(m)]
                of_query = query.counts[m, reached[there]]
                counts, sizes = table.counts(thresholds, rows), table.sizes[thresholds]
                size = int(query.sizes[m])
                arguments.append((counts, rows, of_query, sizes, size, first, upper, dices[m]))
            first += table.entries
        kernels.in_threads(kernels.bound, arguments)
        self.bounds = np.zeros(n)
        for weight, values in zip(self._weights, dices, strict=True):
            self.bounds += weight * values
        self._refined = np.zeros(n, dtype=bool)
        self.entries = n
        if leave_out is not None:
            own = index.keys[:, 0] == leave_out
            self.bounds[own] = -1.0
            self.entries = n - int(own.sum())

    def best(self, top: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the entries with the `top` best scores, and the scores, in order."""
        count = min(max(BATCH, 2 * top), self.entries)
        # Selecting from the other end takes 20 times as long where most bounds are equal.
        found = np.argpartition(-self.bounds, count - 1)[:count]
        scores = self._scores(found, -math.inf)
        floor = np.partition(scores, count - top)[count - top]
        left = self.bounds >= floor
        left[found] = False
        rest = np.flatnonzero(left)
        rest = rest[np.argsort(-self.bounds[rest], kind="stable")]
        size = max(BATCH, top)
        for start in range(0, len(rest), size):
            batch = rest[start : start + size]
            batch = batch[self.bounds[batch] >= floor]
            if not len(batch):
                break
            kept = scores >= floor
            found = np.append(found[kept], batch)
            scores = np.append(scores[kept], self._scores(batch, floor))
            floor = np.partition(scores, len(scores) - top)[len(scores) - top]
        return self._sorted(found, scores, floor, top)

    def answer(
        self, entries: NDArray[np.int64], scores: NDArray[np.float64], started: float
    ) -> MaskAnswer:
        """Make the answer from these entries and their scores."""
        index = self._index
        of_masks = _dices(index, self._query, entries)
        best = {name: values.argmax(axis=1) for name, values in of_masks.items()}
        simulations, positions = index.keys[entries].T.tolist()
        matches = [
            MaskMatch(
                int(entries[i]),
                simulations[i],
                positions[i],
                float(scores[i]),
                {name: index.masks[name][which[i]] for name, which in best.items()},
                {name: float(of_masks[name][i, which[i]]) for name, which in best.items()},
            )
            for i in range(len(entries))
        ]
        refined, seconds = int(self._refined.sum()), time.perf_counter() - started
        return MaskAnswer(tuple(matches), self.entries, refined, seconds)

    def _scores(self, entries: NDArray[np.int64], floor: float) -> NDArray[np.float64]:
        """Return the exact scores of entries; -inf for those that turn out to be below `floor`."""
        index, query = self._index, self._query
        scores = np.empty(len(entries))
        records = (index.voxels, index.ends, index.checksums, index.checked, query.thresholds)
        asked = (query.firsts, query.bits, query.counts)
        known = (index.sizes, query.sizes, self._upper, self._weights, float(floor))
        arguments = (
            (*records, *asked, entries[p], *known, scores[p]) for p in _parts(len(entries))
        )
        _raise_if_damaged(index, kernels.in_threads(kernels.exact_scores, arguments))
        # Where the bounds allow no overlap, no voxel was looked at.
        self._refined[entries] = self._upper[:, entries].any(axis=0)
        return scores

    def _sorted(
        self, entries: NDArray[np.int64], scores: NDArray[np.float64], floor: float, top: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        entries, scores = entries[scores >= floor], scores[scores >= floor]
        simulations, positions = self._index.keys[entries].T
        order = np.lexsort((positions, simulations, -scores))[:top]
        return entries[order], scores[order]


def _normalised(weights: Mapping[str, float] | None, names: list[str]) -> NDArray[np.float64]:
    """Scale the weights of these masks to a sum of 1. Raises StudyError."""
    given = dict.fromkeys(names, 1.0) if weights is None else weights
    for name, weight in given.items():
        if name not in names:
            raise StudyError(f"{name} has a weight, but was not observed: {', '.join(names)}")
        if not 0 <= weight < math.inf:
            raise StudyError(f"the weight of {name} is {weight}: it must be a number of at least 0")
    values = np.array([float(given.get(name, 0.0)) for name in names])
    if not values.any():
        raise StudyError(f"the weights of {', '.join(names)} are all 0: one must be positive")
    if not math.isfinite(sum(values.tolist())):
        raise StudyError(f"the weights of {', '.join(names)} are too large to be added up")
    return np.asarray(values / values.sum())


def _parts(count: int) -> list[slice]:
    """Cut this many entries into small parts, as some take much longer than others."""
    size = max(16, count // 64)
    return [slice(start, start + size) for start in range(0, count, size)]


def _raise_if_damaged(index: Index, results: list[int]) -> None:
    for entry in results:
        if entry >= 0:
            simulation, position = index.keys[entry].tolist()
            what = f"the checksum of simulation {simulation}, kept step {position}, is wrong"
            raise damaged_index(index.folder / "voxels", what)
