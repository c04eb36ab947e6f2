"""First in, random out."""

from framework.stream.buffers.buffer import Buffer
from framework.stream.buffers.order import Indices


class Firo(Buffer):
    """Draws any samples, each once, while more than the watermark are held."""

    def pick(self, n: int) -> Indices:
        places = self.order.remove(self.choose(n, self.counts.size))
        self.counts.size -= n
        return places
