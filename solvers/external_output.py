"""What a program prints: read while it runs, bounded, and written to files.

While a simulation runs, a thread reads the program's standard output and standard error, so the
program never waits for a reader, whoever draws its steps. Of each stream the first bytes are
written at once, and can be followed in the file; the last ones are held, and written at the end.
A long line keeps only its ends, so that it does not crowd out the others.
"""

import os
import select
import threading
import time
from collections import deque
from typing import BinaryIO

from solvers.external_kept import Kept

# The bytes kept of a stream at its beginning and at its end, and of a line at each end.
HEAD, TAIL, LINE = 256 * 1024, 256 * 1024, 8 * 1024
# What a pipe holds. A program that fills it faster than it is read is a flood: it is read at this
# many bytes a millisecond, 64 MB/s, so that neither it nor its reader takes a core from others.
_PIPE = 1 << 16
_PAUSE = 0.001  # seconds
# How much of the end of a program's standard error is reported, and of a line of it.
_WORDS, _WORDS_OF_LINE = 600, 240


class Lines:
    """Cuts the middle out of long lines, in whatever pieces they come."""

    def __init__(self) -> None:
        self._length = 0  # of the line under way, at most LINE
        self._beyond = 0  # bytes of it that came after these
        self._last = b""  # the last LINE of those

    def take(self, data: bytes) -> bytes:
        """Return what to keep of the next bytes, as far as that is known."""
        kept, at = [], 0
        while at < len(data):
            room = LINE - self._length
            # Whole lines, the last of which begins and ends within the room, are kept together.
            end = data.rfind(b"\n", at, at + room) + 1
            if end:
                self._length = 0
            elif room:
                end = min(at + room, len(data))
                self._length += end - at
            else:
                newline = data.find(b"\n", at)
                end = newline if newline >= 0 else len(data)
                self._beyond += end - at
                self._last = (self._last + data[at:end])[-LINE:]
                if newline >= 0:
                    kept.append(self.rest())
                at = end
            kept.append(data[at:end])
            at = end
        return b"".join(kept)

    def rest(self) -> bytes:
        """Return the end of the line under way, which is over."""
        omitted, last = self._beyond - len(self._last), self._last
        self._length, self._beyond, self._last = 0, 0, b""
        return (b" [%d bytes of this line left out] " % omitted if omitted else b"") + last


class Stream:
    """One of the two streams of a program during a simulation, and its file."""

    def __init__(self, pipe: int, name: str, kept: Kept) -> None:
        """`kept`: where the file `name` may be made, once there is something to write."""
        self.pipe = pipe
        self._name = name
        self._kept = kept
        self._file: BinaryIO | None = None
        self._lines = Lines()
        self._total = 0  # bytes kept of all lines
        self._recent: deque[bytes] = deque()  # the last ones, at least TAIL
        self._held = 0  # their sum

    def read(self) -> int | None:
        """Read what has come; return how many bytes, 0 at the end, None if nothing has come."""
        try:
            data = os.read(self.pipe, _PIPE)
        except BlockingIOError:
            return None
        self._keep(self._lines.take(data))
        return len(data)

    def finish(self) -> None:
        """Read what is in the pipe, and write the end of the file."""
        for _ in range(16):  # a pipe holds no more; what left the group may write for ever
            if not self.read():
                break
        self._keep(self._lines.rest())
        beyond = self._total - HEAD
        if beyond > 0:
            tail = b"".join(self._recent)[-min(beyond, TAIL) :]
            if beyond > len(tail):
                self._write(b"\n[%d bytes left out]\n" % (beyond - len(tail)))
            self._write(tail)
        if self._file is not None:
            self._file.close()

    def last_words(self) -> str:
        """Return the last lines in one, each of them shortened; call after `finish`."""
        lines: list[str] = []
        for line in reversed(b"".join(self._recent).decode(errors="replace").splitlines()):
            text = " ".join("".join(c if c.isprintable() else " " for c in line).split())
            half = _WORDS_OF_LINE // 2
            if len(text) > _WORDS_OF_LINE:
                text = f"{text[:half]} ... {text[-half:]}"
            if sum(map(len, lines)) + len(text) > _WORDS:
                break
            lines += [text] if text else []
        return " ".join(reversed(lines))

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        if self._total < HEAD:
            self._write(data[: HEAD - self._total])
        self._total += len(data)
        self._recent.append(data)
        self._held += len(data)
        while self._held - len(self._recent[0]) >= TAIL:
            self._held -= len(self._recent.popleft())

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = self._kept.open(self._name)
        if self._file is not None:
            try:
                self._file.write(data)
            except OSError as error:  # the disk is full, for instance
                self._kept.give_up(error)


class Output:
    """Reads both streams of a program, between `begin` and `finish` of each simulation."""

    def __init__(self, output: int, errors: int) -> None:
        """`output`, `errors`: the pipes, which have to be open until after `finish`."""
        self._pipes = {output: "stdout.txt", errors: "stderr.txt"}
        for pipe in self._pipes:
            os.set_blocking(pipe, False)
        self._thread: threading.Thread | None = None
        self._streams: list[Stream] = []

    def begin(self, kept: Kept) -> None:
        """Begin to read what is printed in a simulation."""
        self._streams = [Stream(pipe, name, kept) for pipe, name in self._pipes.items()]
        self._end = os.eventfd(0)
        self._thread = threading.Thread(target=self._attend, name="program output", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Read no more until the next simulation, but what has been printed by now."""
        if self._thread is None:
            return
        os.eventfd_write(self._end, 1)
        self._thread.join()
        self._thread = None
        os.close(self._end)
        for stream in self._streams:
            stream.finish()

    def last_words(self) -> str:
        """Return the end of the program's standard error, in one line; call after `finish`."""
        return self._streams[1].last_words()

    def _attend(self) -> None:
        """Read until `finish` or the end of both streams."""
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        streams = {stream.pipe: stream for stream in self._streams}
        for pipe in streams:
            poll.register(pipe, select.POLLIN)
        while streams:
            ready = [pipe for pipe, _ in poll.poll()]
            if self._end in ready:
                return
            counts = [(pipe, streams[pipe].read()) for pipe in ready]
            for pipe, count in counts:
                if count == 0:
                    poll.unregister(pipe)
                    del streams[pipe]
            if any(count == _PIPE for _, count in counts):
                time.sleep(_PAUSE)
