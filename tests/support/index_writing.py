"""Writes indexes of random masks, and dies on the way."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from framework.inverse.index import writer as index_writer
from framework.inverse.index.records import pack, record_checksum
from framework.inverse.index.writer import IndexWriter

GRID = (17, 9)
pack(np.zeros((1, 1, 1), bool), (1, 1, 1), 1)  # compiled before processes are forked
record_checksum(np.zeros(4, np.uint64))


def write(folder: Path, first: int, last: int) -> None:
    """Entries of random masks, one a commit."""
    with IndexWriter(folder, "hash", GRID, {"seen": (0.1, 0.2)}) as writer:
        for id in range(first, last):
            writer.add(id, 0, np.random.default_rng(id).random((2, *GRID)) < 0.5)
            writer.commit()


def write_until(moment: int, folder: Path, first: int, last: int) -> None:
    """Write, and die just before the system is called on a file for the so-and-so-manieth time."""
    calls = 0

    def count(frame: Any, event: str, function: Any) -> None:
        nonlocal calls
        names = ("open", "write", "fsync", "truncate", "replace", "unlink")
        if event != "c_call" or function.__name__ not in names:
            return
        frames = frame, frame.f_back  # pathlib's methods are called in between
        if any(frame.f_code.co_filename == index_writer.__file__ for frame in frames):
            calls += 1
            if calls == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    index_writer.TABLE_ENTRIES = 2
    sys.setprofile(count)
    write(folder, first, last)
