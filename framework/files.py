"""Files and folders: written whole or not at all, locked, and named by absolute paths.

A file that is being written has another name, its own with `.writing` added; the rename that ends
the writing is atomic. So a killed process leaves the file as it was before.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from framework.errors import BusyError, WriteError, reason


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn an OSError from the block, which writes at `path`, into a WriteError."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"cannot write {path}: {reason(error)}") from error


@contextmanager
def replacing(path: Path, flush: bool = False) -> Iterator[Path]:
    """Yield a path to write a file at; after the block, rename it to `path`.

    `flush`: write its content to the disk before the rename, so that it survives a power cut.
    Raises WriteError; on any error, `path` stays as it was.
    """
    temporary = path.with_name(f"{path.name}.writing")
    try:
        with writing(path):
            yield temporary
            if flush:
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, flush: bool = False) -> None:
    """Write a text file whole or not at all, see `replacing`. Raises WriteError."""
    with replacing(path, flush) as temporary:
        temporary.write_text(text)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; after the block, it takes the place of `path`.

    Raises WriteError; on any error, the folder that was there before stays.
    """
    temporary = path.with_name(f".{path.name}.writing")
    before = path.with_name(f".{path.name}.before")
    for rest in (temporary, before):
        shutil.rmtree(rest, ignore_errors=True)
    try:
        with writing(path):
            temporary.mkdir(parents=True)
            yield temporary
            if path.exists():
                path.rename(before)
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(before, ignore_errors=True)


@contextmanager
def locked(path: str, doing: str, remedy: str, lock: Path | None = None) -> Iterator[None]:
    """Hold the lock file of a local path; a URL is not locked. A killed process holds no lock.

    `lock` is that file; by default it lies beside the path. Raises BusyError, whose message says
    what another run is `doing` and gives the `remedy`.
    """
    if "://" in path:
        yield
        return
    name = lock or Path(f"{path}.lock")
    name.parent.mkdir(parents=True, exist_ok=True)
    with _locked_file(name) as held:
        if not held:
            raise BusyError(f"another run is {doing} {path} and holds {name}: {remedy}")
        yield


@contextmanager
def _locked_file(name: Path) -> Iterator[bool]:
    """Lock a file, made for it and removed in the end; yield whether no other process has it."""
    while True:
        ours = False
        with name.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            # Whoever had it before may have removed it since it was opened here.
            with suppress(FileNotFoundError):
                ours = os.path.samestat(os.fstat(file.fileno()), name.stat())
            if ours:
                try:
                    yield True
                finally:
                    name.unlink(missing_ok=True)
                return


def absolute(path: str) -> str:
    """Return the absolute form of a local path, which means the same in other processes.

    A URL is returned as it is.
    """
    path = path.removeprefix("file://")
    return path if "://" in path else os.path.abspath(path)
