"""The exact look-up: which entries of an index are most like segmentations.

The score of an entry is the weighted mean of the Dice coefficients of its masks with those that
were observed, each mask at the threshold where it is most alike. Two masks have at most
sum(min(count_A, count_Q)) voxels in common, by the counts of voxels in each cube of the grid, which
bounds every entry's score from above. Bounds are computed for all entries, exact scores from the
voxels' bits in the order of the bounds, until the next bound is below the last score wanted. So the
answer is that of comparing every voxel of every entry. Overlaps are whole numbers, and bounds and
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
from framework.inverse.index.index import Index, damaged
from framework.inverse.search import kernels

Observed = Mapping[str, NDArray[np.bool_]]
# How many entries are refined before it is seen how far to go.
_BATCH = 128


@dataclass(frozen=True)
class Match:
    """An entry: its number in the index, simulation, position of the step among those kept, score,
    and for each mask observed the threshold that is best (of equals the lowest) and its Dice."""

    entry: int
    simulation: int
    step: int
    score: float
    thresholds: Mapping[str, float]
    dice: Mapping[str, float]


@dataclass(frozen=True)
class Answer:
    """Matches, the best first; of equal scores the first simulation and step."""

    matches: list[Match]
    entries: int  # that were compared
    refined: int  # of them voxel by voxel
    seconds: float
    exact: bool = True


def search(
    index: Index,
    observed: Observed,
    weights: Mapping[str, float] | None = None,
    top: int = 10,
    leave_out: int | None = None,
) -> Answer:
    """The `top` best entries for masks [*grid] by name, exactly.

    `weights` of the masks, equal if None, are scaled to a sum of 1. `leave_out`: a simulation that
    is not to be found. Raises StudyError on masks, weights or a number that cannot be, and RunError
    if the index is damaged.
    """
    started = time.perf_counter()
    asked = _Search(index, observed, weights, leave_out)
    if not 1 <= top <= asked.entries:
        raise StudyError(
            f"the {top} best matches are asked for: it must be from 1 to {asked.entries}, the "
            "entries of the index"
        )
    return asked.answer(*asked.best(top), started)


def dice(
    index: Index, observed: Observed, entries: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Exact Dice coefficients of some entries at all thresholds: mask -> [entries, thresholds].

    Raises StudyError on masks that cannot be, RunError if the index is damaged.
    """
    return _dices(index, _Query(index, observed), entries)


class _Query:
    """Masks that were observed, cut into cubes: `bits` [M, c, w], `counts` [M, c], `sizes` [M].

    `thresholds` [t]: the numbers in the index of all that belong to these masks; `owners` [t] says
    to which; mask m's are those from `firsts[m]` to `firsts[m + 1]`.
    """

    def __init__(self, index: Index, observed: Observed) -> None:
        """Raises StudyError."""
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
            kernels.pack(cubes.whole(observed[name]), cubes.sides, cubes.words)
            for name in self.names
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
        """Where mask m's thresholds are among all."""
        return slice(int(self.firsts[m]), int(self.firsts[m + 1]))


def _dices(
    index: Index, query: _Query, entries: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """As `dice`."""
    shared = np.empty((len(entries), len(query.thresholds)), np.int64)
    records = (index.voxels, index.ends, index.checksums, index.checked, query.thresholds)
    asked = (query.owners, query.bits, query.counts)
    arguments = ((*records, *asked, entries[p], shared[p]) for p in _parts(len(entries)))
    _raise_if_damaged(index, kernels.in_threads(kernels.overlaps, arguments))
    voxels = index.sizes[query.thresholds][:, entries].T + query.sizes[query.owners]
    values = np.where(voxels == 0, 1.0, 2.0 * shared / np.maximum(voxels, 1))
    return {name: values[:, query.slice(m)] for m, name in enumerate(query.names)}


class _Search:
    """One search: the bounds of all entries, and the scores of those that were refined."""

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
        """The entries of the `top` best scores, and the scores, in order."""
        count = min(max(_BATCH, 2 * top), self.entries)
        # Selecting from the other end takes 20 times as long where most bounds are equal.
        found = np.argpartition(-self.bounds, count - 1)[:count]
        scores = self._scores(found, -math.inf)
        floor = np.partition(scores, count - top)[count - top]
        left = self.bounds >= floor
        left[found] = False
        rest = np.flatnonzero(left)
        rest = rest[np.argsort(-self.bounds[rest], kind="stable")]
        size = max(_BATCH, top)
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
    ) -> Answer:
        """With what else is told of each match."""
        index = self._index
        of_masks = _dices(index, self._query, entries)
        best = {name: values.argmax(axis=1) for name, values in of_masks.items()}
        simulations, steps = index.keys[entries].T.tolist()
        matches = [
            Match(
                int(entries[i]),
                simulations[i],
                steps[i],
                float(scores[i]),
                {name: index.masks[name][which[i]] for name, which in best.items()},
                {name: float(of_masks[name][i, which[i]]) for name, which in best.items()},
            )
            for i in range(len(entries))
        ]
        refined, seconds = int(self._refined.sum()), time.perf_counter() - started
        return Answer(matches, self.entries, refined, seconds)

    def _scores(self, entries: NDArray[np.int64], floor: float) -> NDArray[np.float64]:
        """Exact scores; -inf for those that are seen to be below `floor`."""
        index, query = self._index, self._query
        scores = np.empty(len(entries))
        records = (index.voxels, index.ends, index.checksums, index.checked, query.thresholds)
        asked = (query.firsts, query.bits, query.counts)
        known = (index.sizes, query.sizes, self._upper, self._weights, float(floor))
        arguments = (
            (*records, *asked, entries[p], *known, scores[p]) for p in _parts(len(entries))
        )
        _raise_if_damaged(index, kernels.in_threads(kernels.refine, arguments))
        # Without an overlap by the bounds there is none, and no voxel was looked at.
        self._refined[entries] = self._upper[:, entries].any(axis=0)
        return scores

    def _sorted(
        self, entries: NDArray[np.int64], scores: NDArray[np.float64], floor: float, top: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        entries, scores = entries[scores >= floor], scores[scores >= floor]
        simulations, steps = self._index.keys[entries].T
        order = np.lexsort((steps, simulations, -scores))[:top]
        return entries[order], scores[order]


def _normalised(weights: Mapping[str, float] | None, names: list[str]) -> NDArray[np.float64]:
    """The weights of these masks, with a sum of 1. Raises StudyError."""
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
    """Small parts of so many entries, as some take much longer than others."""
    size = max(16, count // 64)
    return [slice(start, start + size) for start in range(0, count, size)]


def _raise_if_damaged(index: Index, results: list[int]) -> None:
    for entry in results:
        if entry >= 0:
            simulation, step = index.keys[entry].tolist()
            what = f"the checksum of simulation {simulation}, kept step {step}, is wrong"
            raise damaged(index.folder / "voxels", what)
