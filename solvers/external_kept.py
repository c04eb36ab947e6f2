"""The folder in which what programs print is kept, and how it stays small.

    running/12.1/   the first attempt at simulation 12, while it runs; or its process was killed
    done/12.2/      a successful one
    failed/12.1/    one that failed, with the program's working directory

Each has stdout.txt and stderr.txt, if there was anything to write. Any number of processes share
the folder without a lock: an attempt's folder is made by one of them alone, and renamed when it
ends. When the folder grows too large, the oldest successful attempts are removed first. What then
remains are the newest, whoever counts them; so it does no harm that several processes do.
"""

import errno
import itertools
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from solvers.base import OutputPlace

# Of the whole folder; a file or a folder counts 4096 bytes besides its own, as on a disk.
TOTAL_BYTES, TOTAL_ATTEMPTS = 256 * 2**20, 1000
_ENTRY_BYTES = 4096
# Of a working directory: a file, all of them, and how many.
FILE_BYTES, DIRECTORY_BYTES, DIRECTORY_FILES = 8 * 2**20, 32 * 2**20, 1000
# Counting takes as long as a short simulation: after so many successful ones it is done.
_OFTEN = 16
_successes = itertools.count()


class Kept:
    """What is kept of one attempt at a simulation; nothing without a place.

    What cannot be written is no failure of the simulation: the first reason is told with it.
    """

    def __init__(self, place: OutputPlace | None) -> None:
        self._place = place
        self._folder: Path | None = None  # once something is there
        self._problem = ""

    def open(self, name: str) -> BinaryIO | None:
        """Open a new file of the attempt; None if that is not possible."""
        if self._place is None or self._problem:
            return None
        try:
            return (self._made(self._place) / name).open("wb", buffering=0)
        except OSError as error:
            self.give_up(error)
            return None

    def give_up(self, error: OSError) -> None:
        """Write nothing more: this went wrong."""
        self._problem = self._problem or error.strerror or str(error)

    def succeed(self) -> None:
        """Keep the attempt as a successful one."""
        if self._place is not None and self._folder is not None:
            self._end("done")
            if next(_successes) % _OFTEN == 0:
                prune(self._place.folder)

    def fail(self, directory: Path) -> str:
        """Keep the attempt as a failed one, with its working directory; return where, as words."""
        if self._place is None:
            return ""
        try:
            copy_directory(directory, self._made(self._place))
        except OSError as error:
            self.give_up(error)
        if self._folder is not None:
            self._end("failed")
        prune(self._place.folder)
        here = socket.gethostname()
        where = f"{self._folder or self._place.folder}"
        where += "" if here == self._place.machine else f" on {here}"
        if self._problem:
            return f"; its output could not all be kept in {where}: {self._problem}"
        return f"; its output and its directory are kept in {where}"

    def _made(self, place: OutputPlace) -> Path:
        """Return the attempt's folder; make it, where this is the first use of it."""
        if self._folder is None:
            self._folder = _new_attempt(place)
        return self._folder

    def _end(self, state: str) -> None:
        """Move the attempt to those in this state, as the newest of them."""
        assert self._folder is not None
        target = self._folder.parent.parent / state / self._folder.name
        try:
            target.parent.mkdir(exist_ok=True)
            os.utime(self._folder)
            self._folder = self._folder.rename(target)
        except OSError as error:  # another process has removed it to make room, for instance
            self.give_up(error)


def _new_attempt(place: OutputPlace) -> Path:
    """Make the folder of the next attempt. Raises OSError."""
    running = place.folder / "running"
    running.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        name = f"{place.name}.{number}"
        if not any((place.folder / state / name).exists() for state in ("done", "failed")):
            try:
                (running / name).mkdir()
            except FileExistsError:  # another process was quicker
                continue
            return running / name
    raise AssertionError("unreachable")


def prune(folder: Path) -> None:
    """Remove the oldest attempts, successful ones first, until what is left is within the bounds.

    What another process removes meanwhile is passed over.
    """
    done = sorted(_attempts(folder / "done"))
    others = sorted([*_attempts(folder / "failed"), *_attempts(folder / "running")])
    attempts = [*done, *others]
    size, count = sum(size for _, _, size in attempts), len(attempts)
    for _, path, its_size in attempts:
        if size <= TOTAL_BYTES and count <= TOTAL_ATTEMPTS:
            return
        shutil.rmtree(path, ignore_errors=True)
        size, count = size - its_size, count - 1


def _attempts(state: Path) -> Iterator[tuple[int, str, int]]:
    """Yield the time, the path and the size in bytes of each attempt in a state."""
    try:
        entries = [entry for entry in os.scandir(state) if entry.is_dir(follow_symlinks=False)]
    except OSError:  # not there, or nothing that can be looked into
        return
    for entry in entries:
        try:
            time = entry.stat(follow_symlinks=False).st_mtime_ns
            yield time, entry.path, _ENTRY_BYTES + sum(_sizes(entry.path))
        except OSError:  # removed meanwhile
            continue


def _sizes(path: str) -> Iterator[int]:
    for entry in os.scandir(path):
        size = entry.stat(follow_symlinks=False).st_size
        if entry.is_dir(follow_symlinks=False):
            size = sum(_sizes(entry.path))
        yield _ENTRY_BYTES + size


def copy_directory(source: Path, attempt: Path) -> None:
    """Copy a working directory into `attempt`/directory, but for what is too large.

    `attempt`/left_out.txt names what is left out. Raises OSError where nothing can be written.
    """
    room, files, left_out = DIRECTORY_BYTES, DIRECTORY_FILES, []
    for directory, directories, names in os.walk(source):
        directories.sort()
        below = Path(directory).relative_to(source)
        (attempt / "directory" / below).mkdir()
        links = [name for name in directories if Path(directory, name).is_symlink()]
        for name in sorted([*names, *links]):
            if files == 0:
                left_out.append(f"{below}/{name} and all that follows")
                directories.clear()
                break
            try:
                size = _copy(source / below / name, attempt / "directory" / below / name, room)
            except OSError as error:
                left_out.append(f"{below / name}: {error.strerror}")
            else:
                room, files = room - size, files - 1
    if left_out:
        (attempt / "left_out.txt").write_text("".join(f"{line}\n" for line in left_out))


def _copy(path: Path, target: Path, room: int) -> int:
    """Copy a file or a link; return its size in bytes. Raises OSError, also if it is too large."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        target.symlink_to(path.readlink())
        return 0
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "neither a file nor a link")
    if status.st_size > min(FILE_BYTES, room):
        raise OSError(errno.EFBIG, f"{status.st_size} bytes")
    with path.open("rb") as file:  # no more than that: who has left the group may write for ever
        target.write_bytes(file.read(status.st_size))
    return status.st_size
