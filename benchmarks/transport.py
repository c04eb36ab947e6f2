"""How fast frames get from a solver to the buffer, next to other ways to move the same bytes.

    python benchmarks/transport.py [--rounds N] [--quick]

A frame is one stored time step. Every way ends with the frame copied into its place in an array of
BUFFER_BYTES in the receiving process, and every sender has its frame ready, so that no solver is
measured. The ways, run in turn in every round:

- millstream: a solver that yields the same field over and over, in a real solver actor; blocks,
  their checksums and the look for NaN; Ray; the receive thread with ledger, window cutter and
  buffer. A fifo, from which a thread draws everything, without the copy that training would get.
- Ray alone: an actor that yields one array of a message's size again and again, received and
  copied: the most that the above can reach.
- pyzmq, 1 a message: PUSH and PULL over TCP loopback, two processes, bare bytes.
- pyzmq, several: the same with messages of 1 MiB where frames are smaller.
- ring: slots in memory that two processes share, no system calls but to wait.
- memcpy: one process copies.

How to read it: rates are medians over the rounds, in MB/s (10^6 bytes). The ratios are medians of
the rounds' own ratios, with the least and the greatest: on a shared machine rates go up and down
together, ratios less. The goal is a ratio of 0.5 or more to pyzmq at every size.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import peers
import ray
from numpy.typing import NDArray
from peers import Frames
from stream import Repeater, SameField, Stream, local_ray

from framework.block import Simulation
from framework.buffer import Batch, BufferConfig, Fifo
from framework.ensemble import CREDIT, EnsembleConfig

FRAME_BYTES = (4 * 2**10, 16 * 2**10, 256 * 2**10, 4 * 2**20)
BUFFER_BYTES = 64 * 2**20  # twice the cache of the machine that this was first run on
# Frames that make this many bytes are one simulation.
SIMULATION_BYTES = 64 * 2**20


class Drained(Fifo):
    """A fifo whose batches hold nothing."""

    def _read(self, places: NDArray[np.int64]) -> Batch:
        return super()._read(places[:0])


def millstream(held: Frames, count: int) -> float:
    """Seconds for `count` frames, after one simulation that is not counted; `held` is not used."""
    places, size = held.shape
    side, steps = math.isqrt(size), SIMULATION_BYTES // (4 * size)
    simulations = [Simulation(id, np.zeros(1), id) for id in range(1 + count // steps)]
    batch = max(places // 8, 1)
    buffer = Drained(BufferConfig(kind="fifo", capacity=places), batch, 1, 1, (1, side, side), 0)
    make_solver = partial(SameField, side, steps)
    taken, started = 0, 0.0
    with Stream(make_solver, EnsembleConfig(), simulations, buffer, window=1) as stream:
        while buffer.get() is not None:
            taken += batch
            if taken == steps:
                started = time.perf_counter()
                stream.statistics.freeze()  # as training does when it starts
        seconds = time.perf_counter() - started
    assert stream.ledger.count()[0] == taken == count + steps
    return seconds


def ray_alone(held: Frames, count: int) -> float:
    """Seconds for `count` frames through a streaming generator, after some that do not count."""
    places, size = held.shape
    actor = ray.remote(Repeater).remote()
    run = actor.run.options(num_returns="streaming", _generator_backpressure_num_objects=CREDIT)
    for number in (places, count):
        started, place = time.perf_counter(), 0
        for reference in run.remote(size, number):
            message = ray.get(reference)
            held[place : place + len(message)] = message
            place = (place + len(message)) % places
        seconds = time.perf_counter() - started
    ray.kill(actor)
    return seconds


WAYS: dict[str, Callable[[Frames, int], float]] = {
    "millstream": millstream,
    "Ray alone": ray_alone,
    "pyzmq, 1 a message": peers.push_one,
    "pyzmq, several": peers.push_several,
    "ring": peers.ring,
    "memcpy": peers.copy,
}
