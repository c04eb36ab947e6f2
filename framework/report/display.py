"""Show a run while it goes on: on a terminal a live display, elsewhere a line now and then.

Both go to standard error. Output of other code on standard output or error appears above the live
display. A terminal that goes away ends the display and not the run.
"""

import math
import os
import sys
import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from framework.errors import tell
from framework.report.frame import View, frame, line
from framework.threads import Background
from framework.tracking.history import Record

_LINE_SECONDS, _FRAME_SECONDS = 5.0, 0.25
_WIDEST = 110  # columns
# The time left is estimated from the later half of the progress, once that is this much.
_ESTIMATE_PROGRESS, _ESTIMATE_SECONDS = 0.01, 5.0


class Display:
    """While entered, shows a run's progress; its last state stays on the screen."""

    def __init__(self, title: str, read: Callable[[], Record], rows: Sequence[Record]) -> None:
        """`read` returns the counters as they are now.

        It is called in the display's own thread, 4 times a second. Rates, waits, scores and
        checkpoints are taken from `rows`, the run's history, to which rows may be appended
        meanwhile.
        """
        self._title = title
        self._read = read
        self._rows = rows
        self._taken = 0  # rows
        self._rare: Record = {}  # the latest of the figures that only some rows have
        self._loss, self._validation = _Course(), _Course()
        self._progress: list[tuple[float, float]] = []  # (seconds, progress) while shown here
        self._shown: list[Text] = []
        self._over = threading.Event()
        self._thread = Background("display", self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        """Show the run. All is written in this thread, which no signal interrupts."""
        try:
            self._show()
        except OSError:
            # The terminal has gone. Other code may still write to it, and must not fail either.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stderr.fileno())
            os.close(nowhere)
        except Exception as error:
            # A display must not end its run.
            tell(f"the display has failed, and the run goes on without it: {error!r}")

    def _show(self) -> None:
        """Show the run until it is over. Raises OSError if there is nowhere to show it."""
        console = Console(file=sys.stderr, highlight=False)
        if sys.stderr.isatty() and console.is_terminal and not console.is_dumb_terminal:
            with Live(console=console, auto_refresh=False) as live:
                self._draw(live)
                while not self._over.wait(_FRAME_SECONDS):
                    self._draw(live)
                self._draw(live)
        else:
            print(self._title, file=sys.stderr)
            while not self._over.wait(_LINE_SECONDS):
                print(line(self._record()), file=sys.stderr)
            print(line(self._record()), file=sys.stderr)

    def _draw(self, live: Live) -> None:
        record, console = self._record(), live.console
        size = console.size
        # A terminal made narrower has wrapped the lines drawn: go up by the number of lines added.
        added = sum(max(math.ceil(text.cell_len / size.width), 1) - 1 for text in self._shown)
        console.control(
            Control(*((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)) * added)
        )
        at = (record["seconds"], _share_done(record))
        if not self._progress or at[0] - self._progress[-1][0] > 1:
            self._progress.append(at)
        left = None if self._over.is_set() else time_left([*self._progress, at])
        self._shown = frame(
            View(
                self._title,
                record,
                left,
                self._loss.values(),
                self._validation.values(),
                min(size.width, _WIDEST),
                size.height - 1,
                console.options.ascii_only,
            )
        )
        live.update(Text("\n").join(self._shown), refresh=True)

    def _record(self) -> Record:
        """Return the latest figures of all kinds."""
        rows = self._rows[self._taken :]
        self._taken += len(rows)
        for row in rows:
            for course, key in (
                (self._loss, "training/loss"),
                (self._validation, "validation/relative_l2"),
            ):
                if key in row:
                    course.add(row[key])
            self._rare |= {key: row[key] for key in row if key.startswith("validation/")}
            if "checkpoint/seconds" in row:
                self._rare["checkpoint/seconds"] = row["checkpoint/seconds"]
                self._rare["checkpoint/at"] = row["seconds"]
        # Momentary figures, such as rates, say nothing about a run that is over.
        moment = self._rows[-1] if self._rows and not self._over.is_set() else {}
        return {**self._rare, **moment, **self._read()}


class _Course:
    """The course of a figure: up to 128 means over equally many of its values each."""

    def __init__(self) -> None:
        self._means: list[float] = []
        self._pending: list[float] = []
        self._each = 1

    def add(self, value: float) -> None:
        """Take the next value."""
        self._pending.append(value)
        if len(self._pending) == self._each:
            self._means.append(sum(self._pending) / self._each)
            self._pending = []
        if len(self._means) == 128:
            pairs = zip(self._means[::2], self._means[1::2], strict=True)
            self._means = [(first + second) / 2 for first, second in pairs]
            self._each *= 2

    def values(self) -> list[float]:
        """Return the means so far, the last one perhaps over fewer values."""
        pending = [sum(self._pending) / len(self._pending)] if self._pending else []
        return self._means + pending


def time_left(course: Sequence[tuple[float, float]]) -> float | None:
    """Return the seconds until the progress is 1, at the pace of its later half; None if unknown.

    `course` holds (seconds, progress), the last one of now.
    """
    seconds, progress = course[-1]
    half = bisect_left(course, (course[0][1] + progress) / 2, key=lambda at: at[1])
    took, done = seconds - course[half][0], progress - course[half][1]
    if progress >= 1 or done < _ESTIMATE_PROGRESS or took < _ESTIMATE_SECONDS:
        return None
    return (1 - progress) / done * took


def _share_done(record: Record) -> float:
    """Return the progress to the stop; where nothing is trained, that of the simulations."""
    requested = max(record.get("simulations/requested", 1.0), 1.0)
    return record.get("progress", record.get("simulations/completed", 0.0) / requested)
