"""A sound buffer of a user's, and buffers that are each broken in one way."""

import threading
from dataclasses import replace
from typing import Any

import numpy as np

from framework.stream.buffers.buffer import Buffer
from framework.stream.buffers.firo import Firo
from framework.stream.buffers.limiter import Counts, OnceEach
from framework.stream.buffers.order import Indices
from framework.stream.buffers.reservoir import Reservoir
from framework.stream.samples import Batch


class Newest(Buffer):
    """Draws the newest samples first, each once."""

    def pick(self, n: int) -> Indices:
        self.counts.size -= n
        return self.order.remove(np.arange(self.counts.size, self.counts.size + n))


class RefusesAll(Firo):
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        raise ValueError("no room")


class OverwritesUnseen(Reservoir):
    def place(self, n: int) -> Indices:
        if self.counts.size < self.capacity:
            return super().place(n)
        return self.order.at(self.choose(n, self.counts.size))


class WithoutDevice(Firo):
    def __init__(
        self,
        shape: Any,
        random: Any,
        capacity: int,
        batch_size: int,
        watermark: int = 0,
        replay: tuple[float, float] = (1.0, 1.0),
        in_turn: bool = False,
    ) -> None:
        super().__init__(shape, random, capacity, batch_size, watermark, replay, "cpu", in_turn)


class PowersOfTwo(OverwritesUnseen):
    """Loses samples, where the capacity leaves room for it."""

    def __init__(self, shape: Any, random: Any, capacity: int, *rest: Any, **more: Any) -> None:
        if capacity & (capacity - 1):
            raise ValueError("the capacity is no power of two")
        super().__init__(shape, random, capacity, *rest, **more)


class AcceptsAnything(Firo):
    def __init__(self, shape: Any, random: Any, capacity: int, *rest: Any, **more: Any) -> None:
        super().__init__(shape, random, max(capacity, 100), *rest, **more)


class Twice(Newest):
    def pick(self, n: int) -> Indices:
        places = super().pick(n)
        places[-1] = places[0]
        return places


class TooFew(Newest):
    def pick(self, n: int) -> Indices:
        return super().pick(max(n - 1, 1))


class FreePlaces(Newest):
    """Returns places beyond those that hold samples."""

    def pick(self, n: int) -> Indices:
        super().pick(n)
        return self.order.at(np.arange(self.counts.size, self.counts.size + n) + 1)


class AltersFields(Newest):
    def get(self) -> Batch | None:
        batch = super().get()
        return None if batch is None else replace(batch, fields=batch.fields + 1)


class NeverRemoves(Firo):
    def pick(self, n: int) -> Indices:
        if self.over:
            return super().pick(n)
        return self.order.at(self.choose(n, self.counts.size))


class ClosedLimiter(OnceEach):
    def room(self, counts: Counts) -> int:
        return self.capacity - counts.size if counts.received < 50 else 0


class Stalls(Firo):
    limiter = ClosedLimiter


class OwnRandom(Firo):
    def choose(self, n: int, count: int) -> Indices:
        return np.random.default_rng().choice(count, n, replace=False)


class IgnoresDiscard(Firo):
    def discard(self, simulation: int) -> None:
        """Keep what is held."""


class HiddenState(Newest):
    """Draws the oldest and the newest in turn."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.odd = False

    def pick(self, n: int) -> Indices:
        self.odd = not self.odd
        if self.odd:
            return super().pick(n)
        self.counts.size -= n
        return self.order.remove(np.arange(n))


class UnsavedLock(Newest):
    def state(self) -> dict[str, Any]:
        return {**super().state(), "lock": threading.Lock()}


class IgnoresClose(Newest):
    def close(self) -> None:
        """Wake nobody."""


class FailsAtTheEnd(Newest):
    def get(self) -> Batch | None:
        batch = super().get()
        if batch is None and not self.counts.received:
            raise OSError("nothing was put")
        return batch


class StateOfArrays(HiddenState):
    """Sound: its state has an array, which a checkpoint gives back as a tensor."""

    def state(self) -> dict[str, Any]:
        return {**super().state(), "odd": np.array([self.odd])}

    def load_state(self, state: dict[str, Any]) -> None:
        self.odd = bool(state.pop("odd")[0])
        super().load_state(state)
