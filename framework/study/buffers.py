"""The kinds of buffer that a study can name, and which settings each has."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class BufferKind:
    """A kind of buffer, without importing it."""

    path: str  # module:Class
    waits: bool  # has a watermark
    redraws: bool  # draws samples more than once, within the band `replay`


BUFFERS: Mapping[str, BufferKind] = {
    "fifo": BufferKind("framework.stream.buffers.fifo:Fifo", waits=False, redraws=False),
    "firo": BufferKind("framework.stream.buffers.firo:Firo", waits=True, redraws=False),
    "reservoir": BufferKind(
        "framework.stream.buffers.reservoir:Reservoir", waits=True, redraws=True
    ),
}
