"""A buffer that keeps drawn samples, and draws them again until newer ones need the room."""

import numpy as np

from framework.stream.buffers.buffer import Buffer
from framework.stream.buffers.limiter import ReplayBand
from framework.stream.buffers.order import Indices


class Reservoir(Buffer):
    """Draws any samples, within a band of draws per sample; overwrites seen samples only.

    After Meyer et al. (arXiv 2306.16133), with the band in place of a fixed number of draws.
    """

    limiter = ReplayBand

    def place(self, n: int) -> Indices:
        counts = self.counts
        free = min(n, self.capacity - counts.size)
        overwritten = self.choose(n - free, counts.seen)
        counts.seen -= len(overwritten)
        return np.concatenate([self.order.swap(overwritten, counts.seen), super().place(free)])

    def pick(self, n: int) -> Indices:
        counts = self.counts
        positions = self.choose(n, counts.size)
        places = self.order.at(positions)
        seen = positions[positions < counts.seen]
        unseen = positions[positions >= counts.seen]
        self.order.swap(unseen, counts.seen)
        if self.over:  # each is drawn once more
            drawn = np.arange(counts.seen, counts.seen + len(unseen))
            self.order.remove(np.concatenate([seen, drawn]))
            counts.size -= n
            counts.seen -= len(seen)
        else:
            counts.seen += len(unseen)
        return places
