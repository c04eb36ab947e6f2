"""A race: one thread puts numbered samples into a buffer, and one draws batches from it."""

import contextlib
import time
from collections.abc import Callable

from framework.check.clock import Clock, TooSlow
from framework.check.numbered import numbered, numbers_of
from framework.stream.buffers.buffer import Buffer, Closed
from framework.threads import Background

TOTAL = 120  # samples put in a race
ENDLESS = 20 * TOTAL  # batches: more than are drawn with any of the settings tried
_PORTION = 17  # samples put at once, at most
_PAUSE = 0.001  # s between two looks at the threads


class Stalled(Exception):  # noqa: N818 - a finding, not a mistake of ours
    """Every thread waits for another."""


class Race:
    """Puts the samples `begun` ... TOTAL - 1, after those pending in a resumed buffer."""

    def __init__(self, buffer: Buffer, begun: int = 0) -> None:
        self.buffer = buffer
        self.begun = begun  # samples handed to put so far
        self.batches: list[list[int]] = []  # the numbers of the samples drawn
        self.before_discard = 0  # samples drawn until `discard_at` was reached
        self._discard_at = TOTAL
        self._most = ENDLESS  # batches

    def discard(self, simulation: int, at: int) -> "Race":
        """Drop a simulation once the first `at` samples were put."""
        self._discard_at, self._discarded = at, simulation
        return self

    def run(self, clock: Clock, batches: int = ENDLESS) -> "Race":
        """Return once all is drawn, or once `batches` are drawn and nothing more can be put.

        Raises Stalled, TooSlow, and any error of the buffer.
        """
        self._most = batches
        threads = {"put": Background("put", self._put), "get": Background("get", self._draw)}
        for thread in threads.values():
            thread.start()
        while not self._ended(threads):
            if clock.left < 0:
                self.buffer.close()
                raise TooSlow(f"putting and drawing {TOTAL} samples takes over {clock.limit:g} s")
            time.sleep(_PAUSE)
        return self

    def _put(self) -> None:
        try:
            pending = self.buffer.take_pending()
            if pending is not None:
                self.buffer.put(pending)
            while self.begun < TOTAL:
                if self.begun == self._discard_at:
                    with self.buffer.lock:
                        self.buffer.discard(self._discarded)
                        self.before_discard = self.buffer.drawn
                start = self.begun
                n = 1 + 7 * start % _PORTION
                self.begun = min(start + n, self._discard_at if start < self._discard_at else TOTAL)
                self.buffer.put(numbered(range(start, self.begun)))
            self.buffer.end_reception()
        except Closed:
            pass

    def _draw(self) -> None:
        while len(self.batches) < self._most and (batch := self.buffer.get()) is not None:
            self.batches.append(numbers_of(batch))

    def _ended(self, threads: dict[str, Background]) -> bool:
        """Return whether no thread has anything to do. Raises Stalled and the threads' errors."""
        with self.buffer.lock:
            running = [name for name, thread in threads.items() if not thread.wait(0)]
            waiting = self.buffer.waiting == len(running)
        for thread in threads.values():
            if thread.error is not None:
                self.buffer.close()
                raise thread.error
        if not waiting:
            return False
        if running == ["put"] and len(self.batches) == self._most:
            return True
        if running:
            counts, size = self.buffer.counts, len(self.buffer)
            self.buffer.close()
            raise Stalled(
                f"{' and '.join(running)} would wait for ever, with {size} samples held, "
                f"{counts.received} received and {counts.drawn} drawn"
            )
        return True


def waits(buffer: Buffer, work: Callable[[], object], clock: Clock) -> Background:
    """Start a thread that calls `work` and waits in the buffer; return it. Raises TooSlow."""

    def quietly() -> None:
        with contextlib.suppress(Closed):
            work()

    thread = Background("waits", quietly)
    thread.start()
    goes_on(buffer, thread, clock)
    return thread


def goes_on(buffer: Buffer, thread: Background, clock: Clock) -> bool:
    """Return True once a call in the buffer ends, False if it waits.

    Raises TooSlow, and the error that ended the call.
    """
    while not thread.wait(0):
        if buffer.waiting:
            return False
        if clock.left < 0:
            raise TooSlow(f"a call neither ends nor waits after {clock.limit:g} s")
        time.sleep(_PAUSE)
    thread.join()
    return True
