"""What all kinds of buffer share: two threads that wait for each other.

With `in_turn`, get waits as long as a put is permitted, and samples are placed one by one. The
samples drawn then depend on the samples put alone, not on the speed of the threads, and the draws
per sample stay at the lower end of a band.
"""

import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from framework.stream.buffers.limiter import Counts, Limiter, OnceEach
from framework.stream.buffers.order import Indices, Order
from framework.stream.buffers.storage import Storage, as_samples, as_tensors
from framework.stream.samples import Batch, Samples, SampleShape


class Closed(Exception):  # noqa: N818 - news, not an error
    """The buffer takes no more samples: it was closed, or reception is over."""


class Buffer(ABC):
    """A buffer of any kind. Its methods may be called from any thread.

    A subclass chooses a limiter and writes `pick`, and `place` if it overwrites samples; both are
    called with the lock held. While a thread holds `lock`, nothing changes in the buffer, nor in
    anything else that is only changed under the lock; a put or get that waits releases it.
    """

    limiter: Callable[[int, int, int, tuple[float, float]], Limiter] = OnceEach

    def __init__(
        self,
        shape: SampleShape,
        random: np.random.Generator,
        capacity: int,
        batch_size: int,
        watermark: int = 0,
        replay: tuple[float, float] = (1.0, 1.0),
        device: str = "cpu",
        in_turn: bool = False,
    ) -> None:
        """`capacity` and `watermark` in samples; `random` decides what is drawn.

        Raises ValueError if a full batch would never be permitted.
        """
        if capacity < watermark + batch_size:
            raise ValueError(
                f"buffer.capacity is {capacity}: it has to be at least buffer.watermark + "
                f"training.batch_size, {watermark} + {batch_size}"
            )
        self.lock = threading.RLock()
        self.counts = Counts()
        self.order = Order(capacity)
        self.random = random
        self.capacity = capacity
        self._batch_size = batch_size
        self._limiter = type(self).limiter(capacity, batch_size, watermark, replay)
        self._storage = Storage(capacity, shape, device)
        self._changed = threading.Condition(self.lock)
        self._waiting = 0
        self._in_turn = in_turn
        self._pending: Samples | None = None  # what a put under way has not placed yet
        self._over = False
        self._closed = False

    @abstractmethod
    def pick(self, n: int) -> Indices:
        """Return the places [n] of the next batch, all different; n is at most the size.

        Keeps `counts` and `order` true: removes the places, or marks them as seen.
        """

    def place(self, n: int) -> Indices:
        """Return places [n] for the next samples: free ones; n is at most the limiter's room."""
        counts = self.counts
        counts.size += n
        return self.order.at(np.arange(counts.size - n, counts.size))

    @property
    def received(self) -> int:
        """Samples put since the beginning; may be read at any time."""
        return self.counts.received

    @property
    def drawn(self) -> int:
        """Samples drawn since the beginning; may be read at any time."""
        return self.counts.drawn

    @property
    def waiting(self) -> int:
        """How many threads wait in put or get after having seen every change so far."""
        with self.lock:
            return self._waiting

    @property
    def over(self) -> bool:
        """Whether reception is over, so that nothing more will be put."""
        return self._over

    def __len__(self) -> int:
        """How many samples are held."""
        return self.counts.size

    def put(
        self, samples: Samples, placed: Callable[[Samples], None] = lambda samples: None
    ) -> None:
        """Copy samples in, waiting for room as often as needed. Raises Closed.

        `placed` is called with those that have found their places, each once, before any is drawn.
        """
        with self._changed:
            while len(samples):
                self._pending = samples
                self._wait(lambda: self._closed or self._over or self._room() > 0)
                if self._closed or self._over:
                    raise Closed
                n = min(self._room(), len(samples))
                self._storage.write(self.place(n), samples.part(slice(n)))
                placed(samples.part(slice(n)))
                samples = samples.part(slice(n, None))
                self.counts.received += n
                self._wake()
            self._pending = None

    def get(self, seconds: float | None = None) -> Batch | None:
        """Draw a batch, waiting until it is permitted; no sample is in it twice.

        Returns None once reception is over and every sample was drawn, or once the buffer is
        closed. Raises TimeoutError if it has waited so many seconds.
        """
        with self._changed:
            self._wait(lambda: self._closed or self._over or self._may_get(), seconds)
            if self._closed or not self.counts.size:
                return None
            batch = self._storage.read(self.pick(min(self._batch_size, self.counts.size)))
            self.counts.drawn += len(batch)
            self.counts.drained += len(batch) if self._over else 0
            self._wake()
            return batch

    def discard(self, simulation: int) -> None:
        """Drop the samples still held of a simulation that starts anew. Takes O(capacity)."""
        with self._changed:
            counts = self.counts
            dropped = self._storage.simulation[self.order.first(counts.size)] == simulation
            # The samples that stay keep their order: a fifo's by age, a reservoir's by seen or not.
            self.order.drop(counts.size, dropped)
            counts.size -= int(dropped.sum())
            counts.discarded += int(dropped[counts.seen :].sum())
            counts.seen -= int(dropped[: counts.seen].sum())
            self._wake()

    def clear(self) -> None:
        """Drop all samples: the run that put them has ended."""
        with self._changed:
            counts = self.counts
            counts.discarded += counts.size - counts.seen
            counts.size = counts.seen = 0
            self._pending = None
            self._wake()

    def reopen(self) -> None:
        """Take samples again after reception was over; call before any thread uses the buffer."""
        self._over = False

    def end_reception(self) -> None:
        """Say that nothing more will be put: get draws what is left, then returns None."""
        with self._changed:
            if self._in_turn:
                self._wait(lambda: self._closed or not self._may_get())
            # Reception that ends because the buffer was closed is not over: a resume goes on.
            self._over = not self._closed
            self._wake()

    def close(self) -> None:
        """Wake whoever waits: from now on get returns None and put raises Closed."""
        with self._changed:
            self._closed = True
            self._wake()

    def state(self) -> dict[str, Any]:
        """Return everything that decides what is drawn next, as tensors and plain values.

        `pending` is what a put under way has not placed yet: whoever put it counts it as received,
        so after `load_state` it has to be put first (`take_pending`).
        """
        with self.lock:
            return {
                "counts": vars(self.counts).copy(),
                "over": self._over,
                "random": json.dumps(self.random.bit_generator.state),
                "held": as_tensors(self._storage.read(self.order.first(self.counts.size))),
                "pending": None if self._pending is None else as_tensors(self._pending),
            }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, in a buffer that is still empty."""
        with self.lock:
            held = as_samples(state["held"])
            self._storage.write(self.order.first(len(held)), held)
            self.counts = Counts(**state["counts"])
            self._over = state["over"]
            self.random.bit_generator.state = json.loads(state["random"])
            self._pending = None if state["pending"] is None else as_samples(state["pending"])

    def permitted(self, counts: Counts) -> Counts:
        """Return counts for a state made by hand: with as many draws as are due and permitted."""
        return self._limiter.permitted(counts)

    def take_pending(self) -> Samples | None:
        """Return what was still to be put when the state was taken, if anything."""
        with self.lock:
            pending, self._pending = self._pending, None
            return pending

    def choose(self, n: int, count: int) -> Indices:
        """Choose n of the positions 0 ... count - 1: different ones, with equal probability."""
        return self.random.choice(count, n, replace=False, shuffle=False)

    def _wait(self, until: Callable[[], bool], seconds: float | None = None) -> None:
        """Wait, with the lock let go, until a condition holds.

        Raises TimeoutError if it does not hold after so many seconds.
        """
        end = None if seconds is None else time.monotonic() + seconds
        while not until():
            self._waiting += 1
            if not self._changed.wait(None if end is None else end - time.monotonic()):
                self._waiting = max(self._waiting - 1, 0)
                raise TimeoutError

    def _wake(self) -> None:
        """Let whoever waits check again."""
        self._waiting = 0
        self._changed.notify_all()

    def _room(self) -> int:
        """Return how many samples a put may place at once."""
        room = self._limiter.room(self.counts)
        return min(room, 1) if self._in_turn else room

    def _may_get(self) -> bool:
        """Return whether a batch may be drawn while reception lasts."""
        return self._limiter.ready(self.counts) and not (self._in_turn and self._room() > 0)
