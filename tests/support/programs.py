"""Programs for tests of the solver `external`, and what is left of them."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from places import ROOT
from waiting import LIMIT

from solvers.base import Grid
from solvers.external import External
from solvers.external_settings import Bounds

STEPS = 4

# What every program in Python begins with: `frame(step)` is 2 x 3 numbers of one field.
PREAMBLE = """
import array, os, signal, sys, time
import millstream_client as millstream

STEPS = 4

def frame(step):
    numbers = [100 * step + float(sys.argv[1]) + i for i in range(6)]
    return memoryview(array.array("d", numbers)).cast("B").cast("d", (2, 3))

def line(header):
    millstream._send_line(header)

def raw(data):
    millstream._socket.sendall(data)

"""
# A program that does all that it is to do.
WELL = """
millstream.init()
for step in range(STEPS):
    millstream.send(step, "u", frame(step))
millstream.finalize()
"""
# The same in a program that stays: `a` comes by the socket. Notes its process.
STAYS = """
print(os.getpid(), file=open(sys.argv[2] + "/pids", "a"), flush=True)
millstream.init()
while simulation := millstream.next():
    parameters, seed = simulation
    sys.argv[1] = parameters[0]
    for step in range(STEPS):
        millstream.send(step, "u", frame(step))
"""
# Notes its own process and one that it has started; neither ends when asked to.
STUBBORN = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
millstream.init()
if os.fork():
    millstream.send(0, "u", frame(0))
else:
    os.close(2)
print(os.getpid(), file=open(sys.argv[2] + "/pids", "a"), flush=True)
time.sleep(600)
"""


def program(directory: Path, body: str, **settings: Any) -> External:
    """A solver whose program is this body in Python; its parameter `a` is the first argument."""
    script = directory / "program.py"
    script.write_text(PREAMBLE + body)
    values: dict[str, Any] = {
        "command": [sys.executable, "-S", str(script), "{a}", str(directory)],
        "parameters": {"a": Bounds(0, 10)},
        "fields": {"u": "K"},
        "grid": Grid((2, 3), (1.0, 0.5)),
        "stored_steps": STEPS,
        "final_time": 0.3,
        "env": {"PYTHONPATH": str(ROOT / "clients" / "python")},
        "time_limit": LIMIT,
    }
    return External(**values | settings)


def expected(a: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What WELL sends [T, C, *grid]."""
    steps = 100 * np.arange(STEPS)[:, None, None, None]
    return (steps + a + np.arange(6).reshape(1, 1, 2, 3)).astype(np.float32)


def runs(pid: int) -> bool:
    """Whether the process has not ended yet; one that nobody has collected has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def noted(path: Path) -> list[int]:
    """The numbers that programs wrote into a file, whole lines only."""
    text = path.read_text() if path.exists() else ""
    return [int(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def pipes() -> set[str]:
    """The pipes that this process has open, each by the number that no other has."""
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing
            links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return {link for link in links if link.startswith("pipe:")}
