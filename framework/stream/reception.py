"""The receive thread: takes blocks from the ensemble and fills the buffer.

Ledger, statistics, buffer and the kept ends of blocks are changed under the buffer's lock, so that
they agree for whoever holds it.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from framework.simulation.block import Block
from framework.stream.buffers.buffer import Buffer, Closed
from framework.stream.ledger import Ledger, ReplayMismatchError
from framework.stream.source import Source
from framework.stream.statistics import FieldStatistics
from framework.stream.windows import WindowCutter
from framework.threads import Background


class Blocks(Protocol):
    """Where blocks come from: an `Ensemble`."""

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks of every simulation, each simulation's in order."""

    def restart(self, simulation: int) -> None:
        """Run a simulation again, from step 0, of which a block was just yielded."""


class Reception:
    """Takes the ensemble's blocks, lets each step count once, and puts the samples in the buffer.

    Held-out simulations go to `hold_out` instead, block by block. An error that ends the thread is
    kept in `error`, and closes the source, so that the training loop ends too.
    """

    def __init__(
        self,
        ensemble: Blocks,
        ledger: Ledger,
        source: Source,
        statistics: FieldStatistics,
        cutter: WindowCutter,
        hold_out: Callable[[Block, bool], None],
        complete: Callable[[Block], None] = lambda block: None,
    ) -> None:
        """`cutter` makes the samples, and keeps the last steps of the simulations under way.

        `hold_out` is called with each new block of a held-out simulation, and whether it is the
        last one; `complete` with the last block of every other simulation.
        """
        self.over = threading.Event()
        self._ensemble = ensemble
        self._ledger = ledger
        self._source = source
        self._statistics = statistics
        self._hold_out = hold_out
        self._complete = complete
        self._cutter = cutter
        self._thread = Background("reception", self._receive, source.close)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def error(self) -> BaseException | None:
        """The error that ended the thread early, if any."""
        return self._thread.error

    def wait(self) -> None:
        """Wait for the thread to end."""
        self._thread.wait()

    def _receive(self) -> None:
        try:
            self._fill(self._source.sink)
        except Closed:  # by the training loop, which has reached its stop
            pass
        finally:
            self.over.set()

    def _fill(self, buffer: Buffer | None) -> None:
        """Receive to the end; without a buffer all simulations are held out."""
        if buffer is not None and (pending := buffer.take_pending()):
            buffer.put(pending, self._statistics.add)
        for block in self._ensemble.blocks():
            if block.held_out:
                new = self._enter(block, buffer)
                if new is not None:
                    self._hold_out(new, self._ledger.complete(new.simulation))
                continue
            assert buffer is not None
            with buffer.lock:
                new = self._enter(block, buffer)
                if new is not None:
                    self._put(new, buffer)
        if buffer is not None:
            buffer.end_reception()

    def _enter(self, block: Block, buffer: Buffer | None) -> Block | None:
        """Enter a block in the ledger; return the part not received before, if any."""
        try:
            return self._ledger.receive(block)
        except ReplayMismatchError:
            # The simulation came out different on another processor: a trajectory must not mix two
            # runs, so it starts anew.
            self._ledger.forget(block.simulation)
            self._cutter.forget(block.simulation)
            if buffer is not None:
                buffer.discard(block.simulation)
            self._ensemble.restart(block.simulation)
            return None

    def _put(self, new: Block, buffer: Buffer) -> None:
        last = self._ledger.complete(new.simulation)
        samples = self._cutter.cut(new, last)
        if last:
            self._complete(new)
        # Not a block ahead: when the buffer is full just at the end of one, it would depend on the
        # threads' speed whether the next block counts.
        buffer.put(samples, self._statistics.add)


def receive_all(ensemble: Blocks, ledger: Ledger, take: Callable[[Block, bool], None]) -> None:
    """Receive an ensemble's blocks to the end, without training.

    `take` is called with each new block, and whether it is the last of its simulation.
    """
    for block in ensemble.blocks():
        try:
            new = ledger.receive(block)
        except ReplayMismatchError:  # see `Reception`: a trajectory must not mix two runs
            ledger.forget(block.simulation)
            ensemble.restart(block.simulation)
            continue
        if new is not None:
            take(new, ledger.complete(new.simulation))
