"""How the index keeps a mask: as counts of voxels, cube by cube, and as a record of bits.

A record says how many cubes are partly set and how many are full; then come the numbers of these
cubes, two a word, those partly set first; then the bits of the cubes partly set. The record of an
empty mask has no words.

The loops over voxels are compiled by numba, which takes about half a second to import. A loop is
compiled at its first call and kept in numba's cache, beside this file or in the user's own.

Shapes: T thresholds of all masks, c cubes, w words of 64 bits for a cube, N entries, n those asked
for.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
# The length of a record in words is a multiple of this: `record_checksum` takes four at a time.
STRIDE = 4
# The lower half of a word, and its first bit.
LOW, ONE = np.uint64(0xFFFFFFFF), np.uint64(1)
_PRIME, _HALF = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)


def compiled(function: Kernel) -> Kernel:
    """Return a function that numba compiles at its first call, and caches if it can."""
    try:
        return cast(Kernel, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:
        return cast(Kernel, numba.njit(nogil=True)(function))


@compiled
def pack(
    mask: NDArray[np.bool_], sides: tuple[int, int, int], words: int
) -> tuple[NDArray[np.uint16], NDArray[np.uint64]]:
    """Return the counts [c] and the bits [c, w] of the cubes of a mask [X, Y, Z].

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
                    bits[cube, bit >> 6] |= ONE << np.uint64(bit & 63)
    return counts, bits


def record_of(
    ids: NDArray[np.int64],
    counts: NDArray[np.uint16],
    volumes: NDArray[np.int64],
    bits: NDArray[np.uint64],
) -> NDArray[np.uint64]:
    """Return the record of a mask that lies within some cubes.

    `ids` [c] are the cubes' numbers, `counts` [c] and `bits` [c, w] as from `pack`, and `volumes`
    [c] how many voxels the cubes have.
    """
    partial, full = (counts > 0) & (counts < volumes), (counts > 0) & (counts == volumes)
    numbers = np.concatenate([ids[partial], ids[full]]).astype(np.uint32)
    if not len(numbers):
        return np.empty(0, np.uint64)
    numbers = np.append(numbers, np.zeros(len(numbers) % 2, np.uint32))
    head = np.array([partial.sum(), full.sum()], np.uint64)
    words = np.concatenate([head, numbers.view(np.uint64), bits[partial].ravel()])
    return np.append(words, np.zeros(-len(words) % STRIDE, np.uint64))


@compiled
def record_checksum(words: NDArray[np.uint64]) -> np.uint64:
    """Return the checksum of a record: a changed word changes one of four sums.

    It is part of the format of an index.
    """
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
    """Add the moments of masks to `sums` [entries, thresholds, 7].

    The moments are the number of voxels, the sums of their indices on the three axes, and the sums
    of these squared. Records lie as in `search.kernels.overlaps`, and are not checked; `across` [3]
    cubes of `sides` [3] cover the `grid` [3].
    """
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
                cube = np.int64((record[2 + k // 2] >> np.uint64(32 * (k % 2))) & LOW)
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
        rest, bit = bits[w], 64 * w
        while rest:
            if rest & ONE:
                place = bit
                total[0] += 1
                for axis in range(2, -1, -1):
                    at = first[axis] + place % sides[axis]
                    place //= sides[axis]
                    total[1 + axis] += at
                    total[4 + axis] += at * at
            rest >>= ONE
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
