"""Standard output and standard error of a command's process.

    standard output   where it was when the process started: for the result of the command alone
    sys.stdout        leads there until a command begins, so that it shows help; then to sys.stderr
    descriptor 1      leads to standard error: what C code, a library or a child process writes
    sys.stderr        outlives its terminal, or the reader of its pipe

So whatever other code writes, at any time and in any way, the result stands alone.
"""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

# The terminal, or whoever read the pipe, has gone.
GONE = (errno.EIO, errno.EPIPE)


class _Results(io.TextIOWrapper):
    """Standard output as it was when the process started."""


class _LastingErrors(io.FileIO):
    """Standard error. What cannot be written is lost; a terminal that has gone is never tried."""

    def write(self, data: Any) -> int:
        """Write all of the data if possible; raises nothing."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest:
                rest = rest[super().write(rest) or size :]
        except OSError as error:
            if error.errno in GONE:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                for descriptor in (1, 2):  # of C code, too
                    os.dup2(nowhere, descriptor)
                os.close(nowhere)
        return size


@contextmanager
def own_output() -> Iterator[None]:
    """Run the block, which is all of a process, with its output led as this file says.

    Once the block is left, `sys.stdout` leads to standard error.
    """
    _open_missing()
    encoding = getattr(sys.stdout, "encoding", None)
    results = _Results(
        io.BufferedWriter(io.FileIO(os.dup(1), "w")), encoding, errors="surrogateescape"
    )
    if results.isatty():
        results.reconfigure(line_buffering=True)
    os.dup2(2, 1)
    # Not buffered below the text: a thread that writes as Python ends may hold no lock of a buffer.
    sys.stderr = io.TextIOWrapper(
        _LastingErrors(2, "w", closefd=False),
        getattr(sys.stderr, "encoding", None),
        errors="backslashreplace",
        line_buffering=True,
    )
    sys.stdout = results
    try:
        yield
    finally:
        sys.stdout = sys.stderr
        with suppress(OSError):  # the reader has gone; a command tells other failures itself
            results.close()


@contextmanager
def standard_output() -> Iterator[TextIO]:
    """Yield standard output; what is printed without naming a file goes to standard error.

    In a process with an `own_output` that holds for the rest of it.
    """
    results = sys.stdout
    sys.stdout = sys.stderr
    try:
        yield results
    finally:
        if not isinstance(results, _Results):
            sys.stdout = results


def _open_missing() -> None:
    """Open the standard descriptors that are closed, before any other file takes their number."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
