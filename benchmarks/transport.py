"""How fast frames get from a solver to the buffer, next to other ways to move the same bytes.

    python benchmarks/transport.py [--rounds N] [--quick]

A frame is one stored time step. Every way ends with each frame copied into its place in an array
of BUFFER_BYTES in this process. Every sender has its frame ready: no solver is measured.

- millstream: the project's own path. A solver that yields the same field again and again, in a
  solver actor; there the copy into a block, a checksum of every step and the look for NaN; Ray; the
  receive thread with ledger, window cutter and a fifo buffer. This thread draws from the buffer,
  but for the copy of a batch that training would get.
- short: the same with simulations of SHORT_STEPS steps, each a call to the actor.
- Ray alone: an actor yields an array of the size of the project's messages again and again.
- zmq 1: pyzmq PUSH and PULL over TCP loopback between two processes, one frame a message.
- zmq n: the same with messages of 1 MiB, where frames are smaller.
- ring: slots in memory that two processes share.
- memcpy: the copy into place alone, in one process.

The last four move bare bytes: nothing says which frame is which, and none is checked.

All of them are started first, and wait while they are not drawn from. In every round each has a
turn: what has piled up is taken, then the next TRIAL_BYTES are timed.

How to read it: rates are medians over the rounds, in MB/s (10^6 bytes a second). A ratio is the
median of the rounds' own ratios, with the quarters below and above: on a shared machine rates go up
and down together, ratios less so. The goal is 0.5 of pyzmq at every size.
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from peers import Copy, Frames, PushPull, PushPullSeveral, Ring, Way
from stream import Repeater, SameField, Stream
from table import print_table, spread

from framework.simulation.cluster import ray_for
from framework.simulation.ensemble import MESSAGE_BYTES
from framework.simulation.pool import CREDIT
from framework.stream.buffers.fifo import Fifo
from framework.stream.samples import SampleShape
from framework.study.design import Simulation
from framework.study.sections import EnsembleConfig

FRAME_BYTES = (4 * 2**10, 16 * 2**10, 256 * 2**10, 4 * 2**20)
BUFFER_BYTES = 64 * 2**20
SIMULATION_BYTES = 64 * 2**20
SHORT_STEPS = 100
TRIAL_BYTES = 256 * 2**20
# Rounds at the start that do not count: memory is touched for the first time in them.
UNCOUNTED = 2
# What may have piled up of any way while others had their turn.
PILED_UP = BUFFER_BYTES + (CREDIT + 2) * MESSAGE_BYTES


class Millstream(Way):
    """The project's path, with simulations of so many steps; `held` is not used."""

    def __init__(self, held: Frames, steps: int | None = None) -> None:
        super().__init__(held)
        side, places = math.isqrt(self.size), len(held)
        self._batch = max(places // 16, 1)
        shape = SampleShape(1, 1, (1, side, side))
        self._buffer = _Drained(shape, np.random.default_rng(0), places, self._batch)
        self._stream = Stream(
            partial(SameField, side, steps or SIMULATION_BYTES // (4 * self.size)),
            # As many as the machine has to spare for them: the other actors only wait.
            EnsembleConfig(cpus_per_actor=0.1),
            (Simulation(id, np.zeros(1), id) for id in itertools.count()),
            1,
            self._buffer,
            window=1,
        )
        self._stream.statistics.freeze()  # as training does with its first batch

    def take(self, count: int) -> None:
        for _ in range(0, count, self._batch):
            self._buffer.get()

    def close(self) -> None:
        self._stream.close()


class _Drained(Fifo):
    """A fifo of which the batches hold nothing."""

    def pick(self, n: int) -> NDArray[np.int64]:
        return super().pick(n)[:0]


class RayAlone(Way):
    """What Ray takes for messages of the same size, with the same credit."""

    def __init__(self, held: Frames) -> None:
        super().__init__(held)
        make: Any = ray.remote(Repeater)
        self._actor = make.options(num_cpus=0.1).remote()
        run = self._actor.run.options(
            num_returns="streaming", _generator_backpressure_num_objects=CREDIT
        )
        self._messages = run.remote(self.size)

    def take(self, count: int) -> None:
        taken = 0
        while taken < count:
            message: Frames = ray.get(next(self._messages))
            self.keep(message)
            taken += len(message)

    def close(self) -> None:
        ray.kill(self._actor)


WAYS: dict[str, Callable[[Frames], Way]] = {
    "millstream": Millstream,
    "short": partial(Millstream, steps=SHORT_STEPS),
    "Ray alone": RayAlone,
    "zmq 1": PushPull,
    "zmq n": PushPullSeveral,
    "ring": Ring,
    "memcpy": Copy,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Solver to buffer, against other ways.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="2 rounds of a quarter of the bytes")
    arguments = parser.parse_args()
    rounds, trial = (2, TRIAL_BYTES // 4) if arguments.quick else (arguments.rounds, TRIAL_BYTES)
    rates = {frame: measure(frame, rounds, trial) for frame in FRAME_BYTES}
    report(rates)


def measure(frame_bytes: int, rounds: int, trial: int) -> dict[str, NDArray[np.float64]]:
    """Bytes a second of every way in every round."""
    count, piled_up = trial // frame_bytes, PILED_UP // frame_bytes
    shape = (BUFFER_BYTES // frame_bytes, frame_bytes // 4)
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    with ray_for(EnsembleConfig(), other_cpus=1):
        ways = {name: make(np.ones(shape, dtype=np.float32)) for name, make in WAYS.items()}
        for number in range(UNCOUNTED + rounds):
            for name, way in ways.items():
                way.take(piled_up)
                started = time.perf_counter()
                way.take(count)
                seconds = time.perf_counter() - started
                if number >= UNCOUNTED:
                    rates[name].append(count * frame_bytes / seconds)
        for way in ways.values():
            way.close()
    return {name: np.array(of_rounds) for name, of_rounds in rates.items()}


def report(rates: dict[int, dict[str, NDArray[np.float64]]]) -> None:
    print("\nMB/s, medians")
    print_table(
        ["frame", *WAYS],
        [
            [_size(frame), *(f"{np.median(of_way[name]) / 1e6:,.0f}" for name in WAYS)]
            for frame, of_way in rates.items()
        ],
    )
    print("\nmillstream: frames a second, and its rate as a part of another's")
    others = ("Ray alone", "zmq 1", "zmq n", "ring", "memcpy")
    print_table(
        ["frame", "frames/s", *others],
        [
            [
                _size(frame),
                f"{np.median(of_way['millstream']) / frame:,.0f}",
                *(spread(of_way["millstream"] / of_way[other]) for other in others),
            ]
            for frame, of_way in rates.items()
        ],
    )


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 2**20 else f"{count >> 10} KiB"


if __name__ == "__main__":
    main()
