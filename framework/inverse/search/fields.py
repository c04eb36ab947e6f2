"""Exact look-up of a field observation: find the nearest entries of a store.

An entry is one kept step of one complete simulation. Every entry is compared, so the answer is
exact; the store is read once, each thread reading a chunk at a time.

Shapes: n entries, K kept steps, C fields, `*grid` the grid's axes.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framework.errors import StudyError
from framework.inverse.observed.fields import FieldObservation
from framework.store.reader import StoreReader

# On two cores two threads are 1.3-1.4 times as fast as one for a store of float16, and 1.0-1.2
# times for one of float32; four are no faster.
_THREADS = min(2, os.cpu_count() or 1)


@dataclass(frozen=True)
class FieldMatch:
    """An entry, and its distance from the observation; see observed/fields.py."""

    simulation: int
    position: int  # of its step among the kept steps
    distance: float


@dataclass(frozen=True)
class FieldAnswer:
    """The nearest entries, nearest first; of equal ones the earlier simulation and position."""

    matches: tuple[FieldMatch, ...]
    entries: int  # how many may be what was observed
    refined: int  # how many were compared in full
    seconds: float
    keys: NDArray[np.int64]  # of all entries [n, 2]: simulation, position
    distances: NDArray[np.float64]  # of these entries [n]
    exact: bool = True


def search_fields(reader: StoreReader, observation: FieldObservation, top: int) -> FieldAnswer:
    """Find the `top` entries with the least distance.

    Raises StudyError if there are fewer, or none at the observation's time, and
    DamagedError if the store is damaged.
    """
    started = time.perf_counter()
    keys = _entries(reader, observation)
    if not 1 <= top <= len(keys):
        raise StudyError(
            f"top is {top}: it has to be from 1 to {len(keys)}, the number of entries that "
            f"{reader.path} has for this observation"
        )
    distances = _distances(reader, observation, keys)
    # Stable, so that equal distances stay in the order of the entries.
    best = np.argsort(distances, kind="stable")[:top]
    if not np.isfinite(distances[best]).all():
        raise StudyError(
            "the distance of an entry is too large for a number: the noise is too small for how "
            "far the observation is from what is stored"
        )
    matches = tuple(FieldMatch(int(keys[i, 0]), int(keys[i, 1]), float(distances[i])) for i in best)
    seconds = time.perf_counter() - started
    return FieldAnswer(matches, len(keys), len(keys), seconds, keys, distances)


def _entries(reader: StoreReader, observation: FieldObservation) -> NDArray[np.int64]:
    """Return the entries [n, 2], as (simulation, position), that may be what was observed."""
    if not len(reader.complete):
        raise StudyError(
            f"the store {reader.path} has no complete simulation: go on with its study, by "
            "millstream simulate"
        )
    t = reader.t[reader.complete]
    row, position = np.nonzero(observation.at(t))
    if not len(row):
        assert observation.time is not None
        nearest = t.ravel()[np.argmin(abs(t.ravel() - observation.time))]
        raise StudyError(
            f"the time of the observation is {observation.time:g}, at which {reader.path} has no "
            f"entry: the nearest stored time is {nearest:g}"
        )
    return np.stack([reader.complete[row], position], 1).astype(np.int64)


def _distances(
    reader: StoreReader, observation: FieldObservation, keys: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the distances [n] of entries."""
    distances = np.empty(len(keys))
    starts = np.flatnonzero(np.diff(keys[:, 0], prepend=-1))
    ends = np.append(starts[1:], len(keys))

    def fill(start: int, end: int) -> None:
        """Compute the distances of one simulation."""
        distances[start:end] = _of_simulation(
            reader, observation, int(keys[start, 0]), keys[start:end, 1]
        )

    pool = ThreadPoolExecutor(_THREADS)
    try:
        for _ in pool.map(fill, starts.tolist(), ends.tolist()):
            pass
    finally:
        # After an error or an interrupt the rest is not read.
        pool.shutdown(cancel_futures=True)
    return distances


def _of_simulation(
    reader: StoreReader,
    observation: FieldObservation,
    simulation: int,
    positions: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the distances of a simulation at some positions, which ascend."""
    distances = np.zeros(len(positions))
    for chunk in reader.chunks():
        first, last = np.searchsorted(positions, (chunk.start, chunk.stop)).tolist()
        if first == last:
            continue
        for channel, seen in observation.fields.items():
            values = reader.values(simulation, channel, chunk)
            for i in range(first, last):
                distances[i] += seen.distance(values[positions[i] - chunk.start])
    return distances
