"""Ctrl-C and SIGTERM: one handler for all commands."""

import signal
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType, TracebackType
from typing import Any

from framework.errors import tell
from framework.threads import Background

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While entered, Ctrl-C and SIGTERM raise KeyboardInterrupt, or stop the work tidily.

    With `stop`, the first signal calls `stop` in a thread and only the second one raises, so that a
    run ends between two optimiser steps. Contexts can be nested: the innermost one counts. Outside
    the main thread, where Python handles no signals, this does nothing.
    """

    def __init__(self, stop: Callable[[], None] | None = None) -> None:
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
            # None: one that was not installed from Python, which Python cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received or self._stop is None:
            raise KeyboardInterrupt
        self.received = True
        # The handler runs between any two instructions of the main thread, which may hold a lock
        # that `stop` needs, or be writing to standard error.
        Background("stop", partial(_stop_tidily, self._stop)).start()


def _stop_tidily(stop: Callable[[], None]) -> None:
    tell("stopping tidily; once more to stop at once")
    stop()
