"""The loops over voxels and entries, compiled by numba. They release the GIL.

Only this file imports numba, which takes about half a second. The first call of each kernel
compiles it and keeps the result in numba's cache, beside this file or in the user's own.

Shapes: M masks, T thresholds of all of them, c cubes, w words of 64 bits for a cube, n entries.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
Result = TypeVar("Result")
# A record is so many words long, or a multiple of it: `checksum` takes four at a time.
STRIDE = 4
_PRIME, _HALF = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)
_ONE, _TWO, _FOUR, _TOP = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)
_PAIRS, _QUARTERS = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
_NIBBLES, _BYTES = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)
_LOW = np.uint64(0xFFFFFFFF)


def compiled(function: Kernel) -> Kernel:
    """Compile when first called; not kept where numba can write to none of its places."""
    try:
        return cast(Kernel, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:
        return cast(Kernel, numba.njit(nogil=True)(function))


def in_threads(call: Callable[..., Result], arguments: Iterable[tuple[Any, ...]]) -> list[Result]:
    """The results of the calls, made by as many threads as numba is set to.

    Threads of Python's, as numba's own may not be used by two threads at once in all its builds.
    """
    calls = list(arguments)
    threads = min(numba.get_num_threads(), len(calls), os.cpu_count() or 1)
    if threads <= 1:
        return [call(*values) for values in calls]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda values: call(*values), calls))


@compiled
def pack(
    mask: NDArray[np.bool_], sides: tuple[int, int, int], words: int
) -> tuple[NDArray[np.uint16], NDArray[np.uint64]]:
    """Voxels set in each cube [c] and the cubes' bits [c, w], of a mask [X, Y, Z].

    The first cube begins at the mask's first voxel; cubes at its end may be cut off.
    """
    nx, ny, nz = mask.shape
    a, b, c = sides
    across, along = (ny + b - 1) // b, (nz + c - 1) // c
    cubes = ((nx + a - 1) // a) * across * along
    counts, bits = np.zeros(cubes, np.uint16), np.zeros((cubes, words), np.uint64)
    for x in range(nx):
        for y in range(ny):
            row, place = ((x // a) * across + y // b) * along, ((x % a) * b + y % b) * c
            for z in range(nz):
                if mask[x, y, z]:
                    cube, bit = row + z // c, place + z % c
                    counts[cube] += np.uint16(1)
                    bits[cube, bit >> 6] |= _ONE << np.uint64(bit & 63)
    return counts, bits


@compiled
def checksum(words: NDArray[np.uint64]) -> np.uint64:
    """Of a record: four independent sums, each changed by whatever changes one of its words."""
    a, b, c, d = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    for i in range(0, words.size, 4):
        a = (a ^ words[i]) * _PRIME
        b = (b ^ words[i + 1]) * _PRIME
        c = (c ^ words[i + 2]) * _PRIME
        d = (d ^ words[i + 3]) * _PRIME
        a, b, c, d = a ^ (a >> _HALF), b ^ (b >> _HALF), c ^ (c >> _HALF), d ^ (d >> _HALF)
    total: np.uint64 = ((a * _PRIME ^ b) * _PRIME ^ c) * _PRIME ^ d
    return total


@compiled
def dice(overlap: int, voxels: int) -> float:
    """Dice's coefficient of two masks of together so many `voxels`; 1 if both are empty.

    It grows with the overlap, rounded as it is: from a bound of the one follows one of the other.
    """
    return 1.0 if voxels == 0 else 2.0 * overlap / voxels


@compiled
def weighted(weights: NDArray[np.float64], dices: NDArray[np.float64]) -> float:
    """The score; rounding keeps it monotone in every one of the coefficients, too."""
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
    """Bounds of a table's entries for one mask: what the cubes' counts allow at most.

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
    """How many bits are set; LLVM knows the pattern and makes it one instruction."""
    x = x - ((x >> _ONE) & _PAIRS)
    x = (x & _QUARTERS) + ((x >> _TWO) & _QUARTERS)
    x = (x + (x >> _FOUR)) & _NIBBLES
    count: np.uint64 = (x * _BYTES) >> _TOP
    return count


@compiled
def overlap(
    record: NDArray[np.uint64], bits: NDArray[np.uint64], counts: NDArray[np.uint16]
) -> int:
    """Voxels that a record shares with a query of cubes' `bits` [c, w] and `counts` [c].

    A record: how many cubes are partly set, how many are full, two cubes' numbers a word, the
    former ones first, then the bits of those partly set. Nothing, if the mask is empty.
    """
    shared = 0
    if record.size == 0:
        return shared
    words, partial, cubes = bits.shape[1], np.int64(record[0]), np.int64(record[0] + record[1])
    start = 2 + (cubes + 1) // 2
    for i in range(cubes):
        cube = np.int64((record[2 + i // 2] >> np.uint64(32 * (i % 2))) & _LOW)
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
    """Whether the record is what was written; looked at once."""
    if not checked[threshold, entry]:
        if checksum(record) != checksums[threshold, entry]:
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
    after the other in `voxels`, in the order of thresholds, and end at `ends` [1 + T, entries], of
    which the first is the beginning. Returns an entry that is damaged, or -1.
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
def refine(
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
    """Write to `scores` the entries' exact ones, or -inf for one that is below `floor`.

    As `overlaps`; mask m has the thresholds from `firsts[m]` to `firsts[m + 1]`, `query` [M] voxels
    in the query, and overlaps are at most `upper` [thresholds, entries]. An entry's thresholds are
    looked at in the order of their bounds, and only until no other can be better; a bound of no
    overlap is exact.
    """
    for i in range(entries.size):
        e = entries[i]
        scores[i] = -np.inf
        left = np.empty(thresholds.size)  # bounds of those that were not looked at, else -1
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


@compiled
def moments(
    voxels: NDArray[np.uint64],
    ends: NDArray[np.int64],
    thresholds: NDArray[np.int64],
    entries: NDArray[np.int64],
    sides: NDArray[np.int64],
    across: NDArray[np.int64],
    grid: NDArray[np.int64],
    sums: NDArray[np.int64],
) -> None:
    """Add to `sums` [entries, thresholds, 7] the number of voxels of each mask, and the sums of
    their indices on the three axes and of these squared. Records are as in `overlaps`, and not
    checked here; `across` [3] cubes of `sides` [3] cover the `grid` [3]."""
    first, length = np.empty(3, np.int64), np.empty(3, np.int64)
    words = (sides[0] * sides[1] * sides[2] + 63) // 64
    for i in range(entries.size):
        for j in range(thresholds.size):
            e, t = entries[i], thresholds[j]
            record, total = voxels[ends[t, e] : ends[t + 1, e]], sums[i, j]
            if record.size == 0:
                continue
            partial, cubes = np.int64(record[0]), np.int64(record[0] + record[1])
            start = 2 + (cubes + 1) // 2
            for k in range(cubes):
                cube = np.int64((record[2 + k // 2] >> np.uint64(32 * (k % 2))) & _LOW)
                for axis in range(2, -1, -1):
                    first[axis] = cube % across[axis] * sides[axis]
                    length[axis] = min(sides[axis], grid[axis] - first[axis])
                    cube //= across[axis]
                if k < partial:
                    bits = record[start + k * words : start + (k + 1) * words]
                    _add_bits(bits, first, sides, total)
                else:
                    _add_box(first, length, total)


@compiled
def _add_bits(
    bits: NDArray[np.uint64],
    first: NDArray[np.int64],
    sides: NDArray[np.int64],
    total: NDArray[np.int64],
) -> None:
    """Add the moments of the voxels that are set in a cube that begins at `first` [3]."""
    for w in range(bits.size):
        left, bit = bits[w], 64 * w
        while left:
            if left & _ONE:
                place = bit
                total[0] += 1
                for axis in range(2, -1, -1):
                    at = first[axis] + place % sides[axis]
                    place //= sides[axis]
                    total[1 + axis] += at
                    total[4 + axis] += at * at
            left >>= _ONE
            bit += 1


@compiled
def _add_box(first: NDArray[np.int64], length: NDArray[np.int64], total: NDArray[np.int64]) -> None:
    """Add the moments of a box of voxels that begins at `first` [3]."""
    count = length[0] * length[1] * length[2]
    total[0] += count
    for axis in range(3):
        for at in range(first[axis], first[axis] + length[axis]):
            total[1 + axis] += count // length[axis] * at
            total[4 + axis] += count // length[axis] * at * at
