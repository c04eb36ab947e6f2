"""First in, first out."""

import numpy as np

from framework.stream.buffers.buffer import Buffer
from framework.stream.buffers.order import Indices


class Fifo(Buffer):
    """Draws the oldest samples, each once."""

    def pick(self, n: int) -> Indices:
        self.counts.size -= n
        return self.order.remove(np.arange(n))
