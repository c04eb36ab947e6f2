"""Rules for how many samples may be put into a buffer, and when a batch may be drawn.

They depend on counts alone.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace


@dataclass
class Counts:
    """What has happened to a buffer's samples. `received` and `drawn` count since the beginning."""

    size: int = 0  # samples held
    seen: int = 0  # of them, those drawn before
    received: int = 0
    drawn: int = 0
    discarded: int = 0  # samples dropped before they were drawn
    drained: int = 0  # of `drawn`, those after reception was over, which no rule binds

    @property
    def drawn_while_receiving(self) -> int:
        """Draws that count for the rules."""
        return self.drawn - self.drained


@dataclass(frozen=True)
class Limiter(ABC):
    """The rules that put and get wait for while reception lasts."""

    capacity: int  # samples
    batch_size: int
    watermark: int  # samples
    replay: tuple[float, float] = (1.0, 1.0)  # draws per sample received: least, most

    @abstractmethod
    def room(self, counts: Counts) -> int:
        """Return how many samples may be put now; put waits while it is not positive."""

    @abstractmethod
    def ready(self, counts: Counts) -> bool:
        """Return whether a full batch may be drawn."""

    def permitted(self, counts: Counts) -> Counts:
        """Return counts with as many draws as the rules ask for and permit."""
        return counts


class OnceEach(Limiter):
    """Every sample is drawn once: put waits for a free place, get for the watermark."""

    def room(self, counts: Counts) -> int:
        return self.capacity - counts.size

    def ready(self, counts: Counts) -> bool:
        return counts.size >= self.watermark + self.batch_size


class ReplayBand(Limiter):
    """Samples are drawn again: put and get keep the draws per sample within the band `replay`.

    Put and get never both wait:
    - Both for the band: drawn < least * net and drawn > most * net exclude each other.
    - Put for a place, get for the band: a get leaves a batch of samples seen. From then on the
      unseen ones and `net` grow and shrink together. So once every place is unseen again, `net` has
      grown by a batch or more, and as most >= 1 the band permits the next get. The first get is
      permitted then, too: the capacity is above the watermark.
    - Put for the band, get for enough samples, after a discard: there the band does not bind put.
    """

    def net(self, counts: Counts) -> int:
        """Count the samples received since the watermark was first passed; below 0 before that.

        Nothing is drawn before, so the band makes get wait for the watermark, too. Samples
        discarded undrawn do not count. A watermark below a batch counts as a batch less one sample:
        otherwise the band could stop put, once the watermark is passed, with too few samples for a
        batch.
        """
        passing = max(self.watermark + 1, self.batch_size)
        return counts.received - counts.discarded - passing

    def permitted(self, counts: Counts) -> Counts:
        net = max(self.net(counts), 0)
        least, most = math.ceil(self.replay[0] * net), math.floor(self.replay[1] * net)
        drawn = min(max(counts.drawn_while_receiving, least), most)
        return replace(counts, drawn=drawn + counts.drained)

    def room(self, counts: Counts) -> int:
        unseen = counts.size - counts.seen
        # One more, since a sample may be put as long as the ratio before it is not too low.
        in_band = int(counts.drawn_while_receiving // self.replay[0]) - self.net(counts) + 1
        return min(self.capacity - unseen, max(in_band, self.batch_size - counts.size))

    def ready(self, counts: Counts) -> bool:
        in_band = counts.drawn_while_receiving <= self.replay[1] * self.net(counts)
        return counts.size >= self.batch_size and in_band
