"""What a run shows: lines where there is no terminal, and a live display on a real (pseudo) one."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest
from waiting import LIMIT

from framework.report.display import time_left
from framework.report.frame import View, frame, line
from framework.tracking.history import Record

COUNTS: Record = {
    "seconds": 15.2,
    "step": 54,
    "progress": 0.27,
    "simulations/completed": 22,
    "simulations/requested": 200,
    "simulations/quarantined": 0,
    "samples/received": 1100,
    "samples/drawn": 540,
    "buffer/held": 1052,
    "buffer/capacity": 1500,
    "training/loss": 0.9081,
}
WAITS: Record = {"wait/solvers": 0.031, "wait/training": 0.4, "wait/transport": 0.55}
SCORE: Record = {"validation/relative_l2": 0.0788, "validation/step": 50}
TITLE = "runs/quickstart: heat into fno, training on cpu"

# Shows a run of which nothing changes, until a line comes on standard input.
SCRIPT = f"""
import signal, sys
from framework.report.display import Display
signal.signal(signal.SIGINT, signal.default_int_handler)  # or whoever runs the tests may ignore it
late = False
counts, rows = {COUNTS!r}, [{ {**COUNTS, **WAITS, **SCORE}!r}]
try:
    with Display({TITLE!r}, lambda: counts, rows):
        for text in sys.stdin:
            if text == "end\\n":
                break
            if text == "late\\n":
                late = True
            elif text == "proceed\\n":
                counts["simulations/completed"] = 100
            else:
                print(text, end="", file=sys.stderr)
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
if late:
    print("late", file=sys.stderr)
print("ended")
"""


def test_a_line_says_how_far_the_run_is() -> None:
    assert line({**COUNTS, **SCORE}) == (
        "[  15 s] simulations 22/200, samples 1100 received, 540 drawn, buffer 1052/1500, step 54, "
        "loss 9.08e-01, validation 7.88 %"
    )
    assert line({**COUNTS, **WAITS, "simulations/quarantined": 2}).endswith(
        "quarantined 2, solvers wait 3 % to hand over, training waits 40 % for samples, "
        "receiver waits 55 % for solvers"
    )
    only_simulating = {key: COUNTS[key] for key in COUNTS if "simulations" in key}
    assert line({"seconds": 7, **only_simulating}) == "[   7 s] simulations 22/200"


def test_the_time_left_is_told_once_it_is_known() -> None:
    def course(*progress: float) -> list[tuple[float, float]]:
        return [(10.0 * index, value) for index, value in enumerate(progress)]

    assert time_left(course(0.0)) is None
    assert time_left(course(0.0, 0.0, 0.0)) is None
    assert time_left(course(0.0, 0.001)) is None
    assert time_left(course(0.0, 0.1, 0.2, 0.3, 0.4)) == pytest.approx(60)
    # What came before the pace was found does not count, nor what an earlier process has done.
    assert time_left(course(0.0, 0.0, 0.0, 0.0, 0.1, 0.2, 0.3, 0.4)) == pytest.approx(60)
    assert time_left(course(0.6, 0.6, 0.7, 0.8)) == pytest.approx(20)
    assert time_left(course(0.0, 0.5, 1.0)) is None


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("height", [5, 9, 23, 39])
@pytest.mark.parametrize("width", [20, 40, 60, 80, 110])
def test_a_frame_fits_the_terminal(width: int, height: int, ascii_only: bool) -> None:
    record = {
        **COUNTS,
        **WAITS,
        **SCORE,
        "simulations/quarantined": 12,
        "training/samples_per_second": 523.0,
        "checkpoint/seconds": 0.3,
        "checkpoint/at": 3.0,
        "system/cpu_percent": 183.0,
        "system/memory_gib": 1.9,
    }
    losses = [1 / (1 + index) for index in range(500)]
    lines = frame(View(TITLE, record, 95.0, losses, losses[:3], width, height, ascii_only))
    assert len(lines) <= height
    assert all(text.cell_len <= width for text in lines)
    text = "\n".join(text.plain for text in lines)
    assert text.startswith(TITLE[: width - 6])
    assert text.isascii() or not ascii_only
    if width >= 40 and height >= 9:
        assert "22/200" in text
        assert "27 %" in text
        assert "training waits 40 %" in text
    if width >= 80 and height >= 23:
        for shown in (
            "12 quarantined",
            "about 95 s left",
            "1,052/1,500",
            "1,100 received",
            "540 drawn",
            "step 54",
            "523 samples/s",
            "9.08e-01",
            "7.88 % relative L2",
            "solvers wait 3 %",
            "receiver waits 55 % for solvers",
            "12 s ago",
            "1.9 GiB memory",
        ):
            assert shown in text


def test_a_course_falls_as_its_figure_does() -> None:
    losses = [10.0 ** -(index / 100) for index in range(400)]
    lines = frame(View(TITLE, COUNTS, None, losses, [], 80, 23, False))
    (shown,) = (text.plain for text in lines if text.plain.startswith("loss"))
    bars = re.sub(r"[^▁▂▃▄▅▆▇█]", "", shown)
    assert list(bars) == sorted(bars, reverse=True)
    assert set(bars) == set("▁▂▃▄▅▆▇█")


def test_elsewhere_there_are_lines() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], input="end\n", capture_output=True, text=True, timeout=LIMIT
    )
    assert ran.stdout == "ended\n"
    assert ran.stderr.splitlines() == [TITLE, line({**COUNTS, **SCORE})]


@dataclass
class Terminal:
    """A terminal of 80 x 24 with the script on it, and what came of it so far."""

    process: subprocess.Popen[str]
    master: int
    written: bytes = b""

    def say(self, text: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def wait_for(self, text: str) -> None:
        """Read until the screen shows the text; from an earlier state it does not count."""
        deadline = time.monotonic() + LIMIT
        while not any(text in row for row in self.rows()):
            assert time.monotonic() < deadline, self.rows()
            self.read(1.0)

    def read(self, seconds: float) -> bool:
        """Read what comes within some seconds; whether there may be more."""
        ready, _, _ = select.select([self.master], [], [], seconds)
        if not ready:
            return True
        try:
            piece = os.read(self.master, 65536)
        except OSError:  # the script has ended
            return False
        self.written += piece
        return bool(piece)

    def end(self) -> str:
        """Wait for the script's end; what it wrote to standard output."""
        deadline = time.monotonic() + LIMIT
        while self.read(1.0):
            assert time.monotonic() < deadline
        output, _ = self.process.communicate(timeout=LIMIT)
        return output

    def rows(self) -> list[str]:
        """What can be seen: the codes that the display uses are obeyed."""
        rows, row, column = [""], 0, 0
        text = self.written.decode(errors="replace")
        for code, plain in re.findall(r"\x1b\[([?\d;]*[A-Za-z])|([^\x1b])", text):
            if plain == "\r":
                column = 0
            elif plain == "\n":
                row, column = row + 1, 0
                rows += [""] * (row + 1 - len(rows))
            elif plain:
                rows[row] = rows[row][:column].ljust(column) + plain + rows[row][column + 1 :]
                column += 1
            elif code.endswith("A"):
                row -= int(code[:-1])
                assert row >= 0
            elif code == "2K":
                rows[row] = ""
            else:
                assert code[-1] in "mhl", code
        return rows

    @property
    def cursor_is_visible(self) -> bool:
        return self.written.rfind(b"\x1b[?25h") >= self.written.rfind(b"\x1b[?25l")


@contextmanager
def terminal(environment: Mapping[str, str] | None = None) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    hidden = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
    inherited = {key: value for key, value in os.environ.items() if key not in hidden}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
        env={**inherited, "TERM": "xterm-256color", **(environment or {})},
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.communicate()
        with suppress(OSError):
            os.close(master)


def test_a_terminal_shows_the_numbers_as_they_change() -> None:
    with terminal() as shown:
        shown.wait_for("22/200")
        assert not shown.cursor_is_visible
        shown.wait_for("solvers wait 3 % to hand over · training waits 40 % for samples")
        shown.say("proceed")
        shown.wait_for("100/200")
        shown.say("end")
        assert shown.end() == "ended\n"
        assert shown.cursor_is_visible
        text = "\n".join(shown.rows())
    assert text.count(TITLE) == 1  # drawn over, not one below the other
    assert "22/200" not in text
    assert "7.88 % relative L2" in text
    assert "waits" not in text  # nobody does any more
    assert text.endswith("\n")  # what comes next begins a line of its own


def test_messages_appear_above() -> None:
    with terminal() as shown:
        shown.wait_for("22/200")
        for message in ("simulation 17 was quarantined", "[1, 4] [bold]as it is[/bold]"):
            shown.say(message)
            shown.wait_for(message)
        shown.say("end")
        shown.end()
        rows = [row.rstrip() for row in shown.rows()]
    assert rows[:2] == ["simulation 17 was quarantined", "[1, 4] [bold]as it is[/bold]"]
    assert rows[2].startswith(TITLE)
    assert sum(TITLE in row for row in rows) == 1


def test_an_interrupt_gives_the_terminal_back() -> None:
    with terminal() as shown:
        # Once it says so, the script reads its input: what is interrupted is neither its start nor
        # a print. (A run handles the signal in a thread.)
        shown.say("proceed")
        shown.wait_for("100/200")
        before = termios.tcgetattr(shown.master)
        shown.process.send_signal(signal.SIGINT)
        assert shown.end() == "ended\n"
        assert shown.cursor_is_visible
        rows = [row.rstrip() for row in shown.rows()]
        assert termios.tcgetattr(shown.master) == before
    assert rows[-2:] == ["interrupted", ""]
    assert any("100/200" in row for row in rows)  # the last state stays


def test_a_narrower_terminal_is_drawn_on_anew() -> None:
    with terminal() as shown:
        shown.wait_for("receiver waits 55 % for solvers")
        fcntl.ioctl(shown.master, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 40, 0, 0))
        shown.written += b"\n" * 20  # the rows that a real one would have added by wrapping
        shown.wait_for(" " * 13 + "receiver waits 55 % for")
        shown.say("end")
        shown.end()
        rows = shown.rows()
    last = max(index for index, row in enumerate(rows) if TITLE[:20] in row)
    assert max(map(len, rows[last:])) <= 40


def test_colours_and_signs_are_those_that_the_terminal_has() -> None:
    with terminal({"NO_COLOR": "1", "PYTHONIOENCODING": "latin-1"}) as shown:
        shown.wait_for("22/200")
        shown.say("end")
        shown.end()
    assert shown.written.isascii()
    styles = re.findall(rb"\x1b\[([\d;]*)m", shown.written)
    assert {code for style in styles for code in style.split(b";")} <= {b"0", b"1", b"2"}
    with terminal({"TERM": "dumb"}) as shown:
        shown.wait_for(TITLE)
        shown.say("end")
        shown.end()
    assert b"\x1b" not in shown.written


def test_the_run_goes_on_without_the_terminal() -> None:
    with terminal() as shown:
        shown.wait_for("22/200")
        os.close(shown.master)
        shown.say("proceed")
        shown.say("late")
        shown.say("end")
        output, _ = shown.process.communicate(timeout=LIMIT)
        assert output == "ended\n"
        assert shown.process.returncode == 0
