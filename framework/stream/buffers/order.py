"""Which places of a buffer hold seen samples, unseen ones, or none.

A sample stays in its place; what changes is the order of the places. It is a ring that starts at
`head`: first the places with samples drawn before, then those with samples not drawn yet, then the
free ones. Positions count from `head`. Only `drop` takes longer in a larger buffer. n: samples.
"""

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class Order:
    """The places 0 ... capacity - 1 in an order, as a ring."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._head = 0
        self._places: Indices = np.arange(capacity)

    def at(self, positions: Indices) -> Indices:
        """Return the places at these positions [n]."""
        return self._places[self._ring(positions)]

    def first(self, n: int) -> Indices:
        """Return the places at the first n positions."""
        return self.at(np.arange(n))

    def swap(self, positions: Indices, start: int) -> Indices:
        """Exchange the places at n different positions for those from `start` on; return them."""
        n = len(positions)
        places = self.at(positions)
        inside = (positions >= start) & (positions < start + n)  # of the target
        kept = np.zeros(n, dtype=bool)
        kept[positions[inside] - start] = True
        target = np.arange(start, start + n)
        left, displaced = positions[~inside], target[~kept]
        self._places[self._ring(left)] = self._places[self._ring(displaced)]
        self._places[self._ring(target)] = places
        return places

    def remove(self, positions: Indices) -> Indices:
        """Move the places at n different positions to the end of the ring; return them."""
        places = self.swap(positions, 0)
        self._head += len(places)
        return places

    def drop(self, size: int, dropped: NDArray[np.bool_]) -> None:
        """Move those of the first `size` places that are `dropped` [size] to the end of the ring.

        The others keep their order. Takes O(size).
        """
        held = self._ring(np.arange(size))
        places = self._places[held]
        self._places[held] = np.concatenate([places[dropped], places[~dropped]])
        self._head += int(dropped.sum())

    def _ring(self, positions: Indices) -> Indices:
        return (self._head + positions) % self._capacity
