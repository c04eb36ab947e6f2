"""The loops of the search over entries, compiled by numba. They release the GIL.

numba looks only at the file of a kernel to see whether its cache is up to date: after a change in
records.py, whose `record_checksum` is used here, remove the cache (`__pycache__`).

Shapes: M masks, T thresholds of all of them, t those asked for, c cubes, w words of 64 bits for a
cube, N entries, n those of a table or those asked for.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

from framework.inverse.index.records import LOW, ONE, compiled, record_checksum

Result = TypeVar("Result")
_TWO, _FOUR, _TOP_BYTE = np.uint64(2), np.uint64(4), np.uint64(56)
_PAIRS, _QUARTERS = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
_NIBBLES, _BYTES = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)


def in_threads(call: Callable[..., Result], arguments: Iterable[tuple[Any, ...]]) -> list[Result]:
    """Make the calls in as many threads as numba is set to, and return their results.

    They are Python threads, as some builds of numba do not allow two threads to use numba's own.
    """
    calls = list(arguments)
    threads = min(numba.get_num_threads(), len(calls), os.cpu_count() or 1)
    if threads <= 1:
        return [call(*values) for values in calls]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda values: call(*values), calls))


@compiled
def dice(overlap: int, voxels: int) -> float:
    """Return the Dice coefficient of two masks that have `voxels` together; 1 if both are empty.

    It stays monotone in the overlap after rounding: a bound of the overlap bounds the coefficient.
    """
    return 1.0 if voxels == 0 else 2.0 * overlap / voxels


@compiled
def weighted(weights: NDArray[np.float64], dices: NDArray[np.float64]) -> float:
    """Return the score. It stays monotone in every coefficient after rounding."""
    score = 0.0
    for m in range(weights.size):
        score += weights[m] * dices[m]
    return score


@compiled
def bound(
    counts: NDArray[np.uint16],
    rows: NDArray[np.int64],
    query: NDArray[np.uint16],
    sizes: NDArray[np.int32],
    size: int,
    first: int,
    upper: NDArray[np.int32],
    best: NDArray[np.float64],
) -> None:
    """Bound the overlaps and the Dice of a table's entries, for one mask.

    `counts` [t, c, n] of its thresholds, `rows` those of the query's cubes and `query` their
    counts, `sizes` [t, n] voxels of the entries, `size` those of the query. Adds to `upper`
    [t, entries], from entry `first` on, the largest overlap, and writes to `best` [entries] the
    largest Dice of any threshold.
    """
    n = counts.shape[2]
    for t in range(counts.shape[0]):
        for r in range(rows.size):
            row, most = rows[r], query[r]
            for e in range(n):
                upper[t, first + e] += np.int32(min(counts[t, row, e], most))
        for e in range(n):
            largest = dice(upper[t, first + e], sizes[t, e] + size)
            best[first + e] = max(best[first + e], largest)


@compiled
def _ones(x: np.uint64) -> np.uint64:
    """Count the bits that are set. LLVM knows the pattern and makes it one instruction."""
    x = x - ((x >> ONE) & _PAIRS)
    x = (x & _QUARTERS) + ((x >> _TWO) & _QUARTERS)
    x = (x + (x >> _FOUR)) & _NIBBLES
    count: np.uint64 = (x * _BYTES) >> _TOP_BYTE
    return count


@compiled
def overlap(
    record: NDArray[np.uint64], bits: NDArray[np.uint64], counts: NDArray[np.uint16]
) -> int:
    """Count the voxels that a record shares with a query: cubes' `bits` [c, w], `counts` [c]."""
    shared = 0
    if record.size == 0:
        return shared
    words, partial, cubes = bits.shape[1], np.int64(record[0]), np.int64(record[0] + record[1])
    start = 2 + (cubes + 1) // 2
    for i in range(cubes):
        cube = np.int64((record[2 + i // 2] >> np.uint64(32 * (i % 2))) & LOW)
        if i >= partial:
            shared += int(counts[cube])
        elif counts[cube] > 0:
            ones = np.uint64(0)
            for w in range(words):
                ones += _ones(record[start + i * words + w] & bits[cube, w])
            shared += int(ones)
    return shared


@compiled
def _whole(
    record: NDArray[np.uint64],
    checksums: NDArray[np.uint64],
    checked: NDArray[np.bool_],
    threshold: int,
    entry: int,
) -> bool:
    """Return whether the record is undamaged; only the first call for it computes that."""
    if not checked[threshold, entry]:
        if record_checksum(record) != checksums[threshold, entry]:
            return False
        checked[threshold, entry] = True
    return True


@compiled
def overlaps(
    voxels: NDArray[np.uint64],
    ends: NDArray[np.int64],
    checksums: NDArray[np.uint64],
    checked: NDArray[np.bool_],
    thresholds: NDArray[np.int64],
    owners: NDArray[np.int64],
    bits: NDArray[np.uint64],
    counts: NDArray[np.uint16],
    entries: NDArray[np.int64],
    shared: NDArray[np.int64],
) -> int:
    """Write to `shared` [entries, thresholds] the overlaps with the query.

    For each of the `thresholds` (numbers among T), `owners` says which of the query's masks it
    belongs to; `bits` [M, c, w] and `counts` [M, c] are the query's. Records of an entry lie one
    after the other in `voxels`, in the order of thresholds: that of threshold t is from `ends[t]`
    to `ends[t + 1]`. Returns an entry that is damaged, or -1.
    """
    for i in range(entries.size):
        e = entries[i]
        for j in range(thresholds.size):
            t, m = thresholds[j], owners[j]
            record = voxels[ends[t, e] : ends[t + 1, e]]
            if not _whole(record, checksums, checked, t, e):
                return int(e)
            shared[i, j] = overlap(record, bits[m], counts[m])
    return -1


@compiled
def exact_scores(
    voxels: NDArray[np.uint64],
    ends: NDArray[np.int64],
    checksums: NDArray[np.uint64],
    checked: NDArray[np.bool_],
    thresholds: NDArray[np.int64],
    firsts: NDArray[np.int64],
    bits: NDArray[np.uint64],
    counts: NDArray[np.uint16],
    entries: NDArray[np.int64],
    sizes: NDArray[np.int32],
    query: NDArray[np.int64],
    upper: NDArray[np.int32],
    weights: NDArray[np.float64],
    floor: float,
    scores: NDArray[np.float64],
) -> int:
    """Write the exact scores of entries to `scores`, or -inf for one that is below `floor`.

    Arguments are as in `overlaps`. Mask m has the thresholds from `firsts[m]` to `firsts[m + 1]`;
    `query` [M] has the voxels in the query, and `upper` [thresholds, entries] the most that
    overlaps can be. An entry's thresholds are looked at in the order of their bounds, and only
    until no other can be better; a bound of no overlap is exact.
    """
    for i in range(entries.size):
        e = entries[i]
        scores[i] = -np.inf
        left = np.empty(thresholds.size)  # the bounds of those not looked at yet, else -1
        dices = np.zeros(weights.size)
        for m in range(weights.size):
            for j in range(firsts[m], firsts[m + 1]):
                left[j] = dice(upper[j, e], sizes[thresholds[j], e] + query[m])
                dices[m] = max(dices[m], left[j])
        for m in range(weights.size):
            found = 0.0
            while weights[m] > 0 and weighted(weights, dices) >= floor:
                j = firsts[m] + np.argmax(left[firsts[m] : firsts[m + 1]])
                if left[j] <= found:
                    break
                t, exact = thresholds[j], left[j]
                if upper[j, e] > 0:
                    record = voxels[ends[t, e] : ends[t + 1, e]]
                    if not _whole(record, checksums, checked, t, e):
                        return int(e)
                    exact = dice(overlap(record, bits[m], counts[m]), sizes[t, e] + query[m])
                left[j], found = -1.0, max(found, exact)
                dices[m] = max(found, left[firsts[m] : firsts[m + 1]].max())
        if weighted(weights, dices) >= floor:
            scores[i] = weighted(weights, dices)
    return -1
