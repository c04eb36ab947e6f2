"""Ctrl-C, SIGTERM and SIGHUP: one handler for all commands."""

import signal
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType, TracebackType
from typing import Any, ClassVar

from framework.errors import tell
from framework.threads import Background

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While entered, Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt, or stop the work tidily.

    With `stop`, the first signal calls `stop` in a thread and only the second one raises, so that a
    run ends between two optimiser steps. Contexts can be nested: the innermost one counts. Outside
    the main thread, where Python handles no signals, this does nothing.

    A terminal that is closed sends SIGHUP, often twice: from the shell and from the system. So only
    the first one counts until the outermost context is left. Where SIGHUP is ignored, as under
    nohup, it stays so.

    Python drops a KeyboardInterrupt that is raised in a destructor or a callback of a reference. So
    a context that is entered after a signal within another one raises it again.
    """

    _entered: ClassVar[int] = 0
    _raised: ClassVar[bool] = False
    _hung_up: ClassVar[bool] = False

    def __init__(self, stop: Callable[[], None] | None = None) -> None:
        self.received = False
        self._stop = stop
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            if Interrupts._raised:
                raise KeyboardInterrupt
            Interrupts._entered += 1
            for number in _SIGNALS:
                before = signal.getsignal(number)
                if number != signal.SIGHUP or before != signal.SIG_IGN:
                    self._before[number] = before
                    signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._before:
            return
        for number, handler in self._before.items():
            # None: one that was not installed from Python, which Python cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        Interrupts._entered -= 1
        if not Interrupts._entered:
            Interrupts._hung_up = Interrupts._raised = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            signal.alarm(0)  # set by Ray, if it is just starting, to abort the process
        if number == signal.SIGHUP:
            if Interrupts._hung_up:
                return
            Interrupts._hung_up = True
        if self.received or self._stop is None:
            Interrupts._raised = True
            raise KeyboardInterrupt
        self.received = True
        # The handler runs between any two instructions of the main thread, which may hold a lock
        # that `stop` needs, or be writing to standard error.
        Background("stop", partial(_stop_tidily, self._stop)).start()


def _stop_tidily(stop: Callable[[], None]) -> None:
    tell("stopping tidily; once more to stop at once")
    stop()
