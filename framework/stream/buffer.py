"""The bounded buffer: a receive thread puts samples into it, a training thread draws batches.

- fifo: put waits while it is full; get takes the oldest and removes it.
- firo: put waits while it is full; get waits while the size is at or below the watermark, takes
  any and removes it.
- reservoir: what was drawn is seen, and stays until it is overwritten. put waits while every place
  holds an unseen sample, and overwrites any seen one once it is full. get waits until the size was
  first above the watermark and takes any. From then on both also keep within a band: put waits
  while too few were drawn per sample received, get while too many were.

Any: all with the same probability. The end of reception waives what get waits for, and the
reservoir then removes what it draws. Each rule holds sample by sample: get takes a batch once all
its picks are permitted one after another; put places what is permitted, waits, and goes on.

In turn: a get waits as long as a put is permitted, and samples are placed one by one. What is drawn
is then a function of the samples put, however fast the two threads are, and of a band it is the
least that holds.

Shapes: n samples, w time steps in each, p parameters, C fields (channels), `*grid` the grid's axes.
"""

import json
import threading
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from framework.simulation.block import Samples
from framework.study.sections import BufferConfig

Indices = NDArray[np.int64]


class Closed(Exception):  # noqa: N818 - news, not an error
    """The buffer takes no more samples: it was closed, or reception is over."""


@dataclass(frozen=True)
class Batch:
    """n samples, each identified by (simulation, first_step); tensors on the buffer's device."""

    simulation: NDArray[np.int64]  # [n]
    first_step: NDArray[np.int64]  # [n]
    parameters: Tensor  # [n, p] float32
    times: Tensor  # [n, w] float32
    fields: Tensor  # [n, w, C, *grid] float32

    def __len__(self) -> int:
        return len(self.simulation)


class Batches(Protocol):
    """What the training loop draws from: a buffer, or a store (`offline.StoredSamples`)."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Held while a batch is drawn."""

    def get(self) -> Batch | None:
        """The next batch; None at the end, and once it is closed."""

    def close(self) -> None:
        """Wake whoever waits in `get`."""


class Buffer(ABC):
    """A buffer of any kind; `make_buffer` makes one. Its methods may be called from any thread.

    `received` and `drawn` count samples since the beginning and may be read at any time. Whoever
    holds `lock` sees the buffer, and whatever else is only changed under it, stand still; a put or
    get that waits lets go of it.
    """

    def __init__(
        self,
        config: BufferConfig,
        batch_size: int,
        window: int,
        parameters: int,
        field_shape: tuple[int, ...],
        seed: int,
        in_turn: bool = False,
    ) -> None:
        """`window` is w, `parameters` is p and `field_shape` is (C, *grid).

        Raises ValueError if a full batch would never be permitted.
        """
        if config.capacity < config.watermark + batch_size:
            raise ValueError(
                f"buffer.capacity is {config.capacity}: it has to be at least buffer.watermark + "
                f"training.batch_size, {config.watermark} + {batch_size}"
            )
        self.received = 0
        self.drawn = 0
        self._config = config
        self._batch_size = batch_size
        self._random = np.random.default_rng(seed)
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._in_turn = in_turn
        self._pending: Samples | None = None  # what a put under way has not placed yet
        self._over = False
        self._closed = False

        # A sample stays in its place; what changes is the order of the places. It is a ring that
        # starts at `_head`: first `_seen` places with samples drawn before, then those, up to
        # `_size`, with samples not drawn yet, then the free ones. Positions count from `_head`.
        self._order: Indices = np.arange(config.capacity)
        self._head = 0
        self._seen = 0
        self._size = 0
        self._discarded = 0  # samples that were not drawn yet

        self._simulation: Indices = np.empty(config.capacity, dtype=np.int64)
        self._first_step: Indices = np.empty(config.capacity, dtype=np.int64)
        self._tensors = tuple(
            torch.empty(config.capacity, *shape, dtype=torch.float32, device=config.device)
            for shape in ((parameters,), (window,), (window, *field_shape))
        )

    def __len__(self) -> int:
        """How many samples are held."""
        return self._size

    def put(self, samples: Samples) -> None:
        """Copy samples in, waiting for room as often as needed. Raises Closed."""
        with self._changed:
            while len(samples):
                self._pending = samples
                self._changed.wait_for(lambda: self._closed or self._over or self._free() > 0)
                if self._closed or self._over:
                    raise Closed
                n = min(self._free(), len(samples))
                self._write(self._place(n), samples.part(slice(n)))
                samples = samples.part(slice(n, None))
                self.received += n
                self._changed.notify_all()
            self._pending = None

    def get(self) -> Batch | None:
        """Draw a batch, waiting until it is permitted; no sample is twice in it.

        None once reception is over and every sample was drawn, and once the buffer is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._over or self._may_get())
            if self._closed or not self._size:
                return None
            batch = self._read(self._pick(min(self._batch_size, self._size)))
            self.drawn += len(batch)
            self._changed.notify_all()
            return batch

    def discard(self, simulation: int) -> None:
        """Drop what is still held of a simulation that starts anew. Takes O(capacity)."""
        with self._changed:
            held = self._ring(np.arange(self._size))
            places = self._order[held]
            dropped = self._simulation[places] == simulation
            # Those that stay keep their order: a fifo's by age, a reservoir's by seen or not.
            self._order[held] = np.concatenate([places[dropped], places[~dropped]])
            self._head += int(dropped.sum())
            self._size -= int(dropped.sum())
            self._discarded += int(dropped[self._seen :].sum())
            self._seen -= int(dropped[: self._seen].sum())
            self._changed.notify_all()

    def end_reception(self) -> None:
        """Nothing more will be put: get draws what is left, then returns None."""
        with self._changed:
            if self._in_turn:
                self._changed.wait_for(lambda: self._closed or not self._may_get())
            # Reception that ends because the buffer was closed is not over: a resume goes on.
            self._over = not self._closed
            self._changed.notify_all()

    def close(self) -> None:
        """Wake whoever waits: from now on get returns None and put raises Closed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def state(self) -> dict[str, Any]:
        """Everything that decides what is drawn next, as tensors and plain values.

        What a put under way has not placed yet is `pending`: it counts as received by whoever put
        it, so after `load_state` it has to be put first (`take_pending`).
        """
        with self.lock:
            held = self._read(self._order[self._ring(np.arange(self._size))])
            return {
                "seen": self._seen,
                "over": self._over,
                "discarded": self._discarded,
                "received": self.received,
                "drawn": self.drawn,
                "random": json.dumps(self._random.bit_generator.state),
                "held": _tensors(held),
                "pending": None if self._pending is None else _tensors(self._pending),
            }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, in a buffer that is still empty."""
        with self.lock:
            held = _samples(state["held"])
            self._size = len(held)
            self._write(self._order[: self._size], held)
            self._seen = state["seen"]
            self._over = state["over"]
            self._discarded = state["discarded"]
            self.received = state["received"]
            self.drawn = state["drawn"]
            self._random.bit_generator.state = json.loads(state["random"])
            self._pending = None if state["pending"] is None else _samples(state["pending"])

    def take_pending(self) -> Samples | None:
        """What was still to be put when the state was taken."""
        with self.lock:
            pending, self._pending = self._pending, None
            return pending

    def _free(self) -> int:
        """How many samples a put may place at once."""
        return min(self._room(), 1) if self._in_turn else self._room()

    def _may_get(self) -> bool:
        """Whether a batch may be drawn while reception lasts."""
        return self._ready() and not (self._in_turn and self._room() > 0)

    # What the kinds decide. Called with the lock held; as it is here, that of fifo and firo.

    def _room(self) -> int:
        """How many samples may be put now; put waits while it is not positive."""
        return self._config.capacity - self._size

    def _ready(self) -> bool:
        """Whether a full batch may be drawn while reception lasts."""
        return self._size >= self._config.watermark + self._batch_size

    def _place(self, n: int) -> Indices:
        """The places [n] for the next samples; n is at most the room."""
        self._size += n
        return self._order[self._ring(np.arange(self._size - n, self._size))]

    @abstractmethod
    def _pick(self, n: int) -> Indices:
        """The places [n] of the next batch, all different; n is at most the size."""

    # Steps that those are made of; none takes longer in a larger buffer.

    def _ring(self, positions: Indices) -> Indices:
        """Where positions are in `_order`."""
        return (self._head + positions) % self._config.capacity

    def _choose(self, n: int, count: int) -> Indices:
        """n of the positions 0 ... count - 1: different, and all with the same probability."""
        return self._random.choice(count, n, replace=False, shuffle=False)

    def _swap(self, positions: Indices, start: int) -> Indices:
        """Exchange the places at n different positions for those from `start` on; return them."""
        n = len(positions)
        places = self._order[self._ring(positions)]
        inside = (positions >= start) & (positions < start + n)  # of the target
        kept = np.zeros(n, dtype=bool)
        kept[positions[inside] - start] = True
        target = np.arange(start, start + n)
        left, displaced = positions[~inside], target[~kept]
        self._order[self._ring(left)] = self._order[self._ring(displaced)]
        self._order[self._ring(target)] = places
        return places

    def _remove(self, positions: Indices) -> Indices:
        """Free the places at n different positions; return them."""
        places = self._swap(positions, 0)
        self._head += len(places)
        self._size -= len(places)
        return places

    def _write(self, places: Indices, samples: Samples) -> None:
        self._simulation[places] = samples.simulation
        self._first_step[places] = samples.first_step
        arrays = (samples.parameters, samples.times, samples.fields)
        for held, array in zip(self._tensors, arrays, strict=True):
            # The arrays may be views that overlap: numpy copies those without a detour.
            if held.device.type == "cpu":
                held.numpy()[places] = array
            else:
                held[torch.from_numpy(places)] = torch.tensor(array, device=held.device)

    def _read(self, places: Indices) -> Batch:
        # On a GPU this and `_write` run one after another, both being on the default stream.
        index = torch.from_numpy(places).to(self._config.device)
        return Batch(
            self._simulation[places],
            self._first_step[places],
            *(held.index_select(0, index) for held in self._tensors),
        )


class Fifo(Buffer):
    """First in, first out."""

    def _pick(self, n: int) -> Indices:
        return self._remove(np.arange(n))


class Firo(Buffer):
    """First in, random out."""

    def _pick(self, n: int) -> Indices:
        return self._remove(self._choose(n, self._size))


class Reservoir(Buffer):
    """Keeps what it has drawn, and draws it again, until newer samples need the place.

    Put and get never both wait:
    - Both for the band: drawn < least * net and drawn > most * net exclude each other.
    - Put for a place, get for the band: a get leaves a batch of samples seen. From then on the
      unseen ones and `_net` grow and shrink together. So once every place is unseen again, `_net`
      has grown by a batch or more, and as most >= 1 the band permits the next get. The first get
      is permitted then, too: the capacity is above the watermark.
    - Put for the band, get for enough samples, after a discard: there the band does not bind put.
    """

    @property
    def _net(self) -> int:
        """Samples received since the watermark was first passed; below 0 before that.

        Nothing is drawn before, so that the band makes get wait for the watermark, too. Samples
        discarded undrawn do not count. A watermark below a batch counts as a batch less one sample:
        else it would be passed, and the band stop put, with too few for a batch.
        """
        passing = max(self._config.watermark + 1, self._batch_size)
        return self.received - self._discarded - passing

    def _room(self) -> int:
        unseen = self._size - self._seen
        # One more, since a sample may be put as long as the ratio before it is not too low.
        in_band = int(self.drawn // self._config.replay[0]) - self._net + 1
        return min(self._config.capacity - unseen, max(in_band, self._batch_size - self._size))

    def _ready(self) -> bool:
        return self._size >= self._batch_size and self.drawn <= self._config.replay[1] * self._net

    def _place(self, n: int) -> Indices:
        free = min(n, self._config.capacity - self._size)
        overwritten = self._choose(n - free, self._seen)
        self._seen -= len(overwritten)
        return np.concatenate([self._swap(overwritten, self._seen), super()._place(free)])

    def _pick(self, n: int) -> Indices:
        positions = self._choose(n, self._size)
        if self._over:  # nothing is put any more, so `_seen` is not needed any more
            return self._remove(positions)
        places = self._order[self._ring(positions)]
        unseen = positions[positions >= self._seen]
        self._swap(unseen, self._seen)
        self._seen += len(unseen)
        return places


def make_buffer(
    config: BufferConfig,
    batch_size: int,
    window: int,
    parameters: int,
    field_shape: tuple[int, ...],
    seed: int,
    in_turn: bool = False,
) -> Buffer:
    """An empty buffer of the kind that `config` names; arguments and errors as for `Buffer`."""
    kinds: dict[str, type[Buffer]] = {"fifo": Fifo, "firo": Firo, "reservoir": Reservoir}
    make = kinds[config.kind]
    return make(config, batch_size, window, parameters, field_shape, seed, in_turn)


def _tensors(samples: Samples | Batch) -> dict[str, Tensor]:
    """Copies, on the CPU."""
    return {
        name: array.cpu() if isinstance(array, Tensor) else torch.tensor(array)
        for name, array in vars(samples).items()
    }


def _samples(tensors: dict[str, Tensor]) -> Samples:
    return Samples(**{name: tensor.numpy() for name, tensor in tensors.items()})
