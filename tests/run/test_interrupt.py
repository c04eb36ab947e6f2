"""Signals that come at the worst moment."""

import io
import signal
import sys
import threading

import pytest
from waiting import LIMIT

from framework.run.interrupt import Interrupts


class Interrupted(io.RawIOBase):
    """A file during whose first write a Ctrl-C comes."""

    def __init__(self) -> None:
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        first, self.written = not self.written, self.written + bytes(data)
        if first:
            signal.raise_signal(signal.SIGINT)
        return len(data)


def test_a_signal_while_standard_error_is_written_to_stops_as_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, stopped = Interrupted(), threading.Event()
    monkeypatch.setattr(
        sys, "stderr", io.TextIOWrapper(io.BufferedWriter(file), write_through=True)
    )
    with Interrupts(stopped.set) as interrupts:
        print("a line", file=sys.stderr, flush=True)
        assert stopped.wait(LIMIT)
    sys.stderr.flush()
    assert interrupts.received
    assert file.written.startswith(b"a line\n")
    assert b"stopping tidily" in file.written


class Signalled:
    """An object in whose destructor a signal comes: Python drops what the handler raises."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_python_drops_still_ends_what_begins_after_it() -> None:
    with Interrupts():
        Signalled()
        with pytest.raises(KeyboardInterrupt), Interrupts(lambda: None):
            pytest.fail("the work has begun")
    with Interrupts(), Interrupts(lambda: None) as interrupts:
        assert not interrupts.received
