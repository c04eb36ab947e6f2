"""What a rank trains on: a stream through a buffer, or a store."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from framework.stream.buffers.buffer import Buffer
from framework.stream.ledger import Ledger
from framework.stream.samples import Batch, Samples


class Source(Protocol):
    """Batches to train on, and what is known of where they come from."""

    @property
    def sink(self) -> Buffer | None:
        """The buffer that reception fills; None where nothing is received for training."""

    @property
    def identity(self) -> dict[str, Any] | None:
        """The identity of the store that is trained on; None for a stream."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Held while a batch is drawn."""

    @property
    def received(self) -> int:
        """How many samples have come into memory so far."""

    def __len__(self) -> int:
        """How many samples are in memory."""

    def get(self, seconds: float | None = None) -> Batch | None:
        """Return the next batch; None at the end, and once closed.

        Raises TimeoutError after waiting so many seconds for samples to arrive.
        """

    def close(self) -> None:
        """Wake whoever waits in `get`."""

    def statistics(self) -> Iterator[Samples]:
        """Yield samples to normalise by, before the first batch; none if reception counts them."""

    def progress(self, drawn: float, unique_trained: float) -> float:
        """Return the share done of all there is to train on, from counts over all ranks."""

    def counts(self) -> tuple[int, int]:
        """Count the different samples there are to train on by now, and how many are untrained."""

    def state(self) -> dict[str, Any]:
        """Return what decides the next batches, for `load_state`."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""


class StreamSource(Source):
    """A stream through a buffer, with a ledger of its samples."""

    def __init__(self, buffer: Buffer, ledger: Ledger, expected: int) -> None:
        """`expected`: how many different samples the stream will bring, over all ranks."""
        self._buffer = buffer
        self._ledger = ledger
        self._expected = expected

    @property
    def sink(self) -> Buffer:
        return self._buffer

    @property
    def identity(self) -> None:
        return None

    @property
    def lock(self) -> AbstractContextManager[Any]:
        return self._buffer.lock

    @property
    def received(self) -> int:
        return self._buffer.received

    def __len__(self) -> int:
        return len(self._buffer)

    def get(self, seconds: float | None = None) -> Batch | None:
        return self._buffer.get(seconds)

    def close(self) -> None:
        self._buffer.close()

    def statistics(self) -> Iterator[Samples]:
        return iter(())

    def progress(self, drawn: float, unique_trained: float) -> float:
        return unique_trained / self._expected

    def counts(self) -> tuple[int, int]:
        return self._ledger.count()

    def state(self) -> dict[str, Any]:
        return self._buffer.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self._buffer.load_state(state)
