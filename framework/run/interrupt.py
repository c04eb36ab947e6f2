"""Ctrl-C and SIGTERM end a run tidily: they ask it to stop, and it stops between two steps."""

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While entered, the first signal calls `stop` in a thread; a second one ends at once.

    Outside the main thread, where Python handles no signals, it does nothing.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self.received = False
        self._stop = stop
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True
        # The handler runs between any two instructions of the main thread, where a lock may be
        # held that `stop` needs, or standard error be written to.
        threading.Thread(target=self._obey, name="stop", daemon=True).start()

    def _obey(self) -> None:
        print("millstream: stopping tidily; once more to stop at once", file=sys.stderr)
        self._stop()
