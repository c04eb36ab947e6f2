"""Errors that reach the user as one sentence without a traceback, one class per kind."""

import difflib
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LIBRARY = Path(sysconfig.get_path("stdlib"))
_HOME = Path(__file__).parent.parent
_PACKAGES = ("framework", "millstream", "solvers", "surrogates")
# Messages of others are cut there: torch appends its own call stack.
_LONGEST_MESSAGE = 400
_FOREIGN = {"site-packages", "dist-packages"}


class StudyError(ValueError):
    """Wrong use: a study, an argument or a file that cannot work as it is. Exit status 2."""


class RunError(RuntimeError):
    """A command that was valid but could not be finished. Exit status 1."""


class WriteError(RunError):
    """A file or a store cannot be written: the disk is full, or writing is not permitted."""


class DamagedError(RunError):
    """Data that was read is damaged: a checksum differs, or a part is missing."""


class BusyError(RunError):
    """Another process is writing the same place."""


class ClusterError(RunError):
    """Ray cannot be joined, or has failed."""


class SolverError(RunError):
    """Solvers cannot be started, or too many simulations have failed."""


class TrackingError(RunError):
    """MLflow cannot be reached."""


class DivergedError(RunError):
    """Training has diverged: a loss is not finite."""


def tell(sentence: str) -> None:
    """Print a sentence for the user on standard error, unless that is closed or has gone away."""
    if sys.stderr is not None:  # print would take standard output for it
        with suppress(OSError, ValueError):  # the latter if Python has closed it
            print(f"millstream: {sentence}", file=sys.stderr)


@contextmanager
def told() -> Iterator[None]:
    """Print a RunError instead of raising it, so that it does not replace an earlier error."""
    try:
        yield
    except RunError as error:
        tell(str(error))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown name: the known one nearest to it, if any."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def raised(error: BaseException) -> str:
    """Return one line that says what was raised, and where in the user's own code.

    The place is the innermost line outside Python's and Millstream's own files and installed
    packages; where there is none, the innermost of all.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not Path(frame.filename).is_relative_to(_LIBRARY)]
    users = [frame for frame in own if not _is_installed(frame.filename)]
    place = (users or frames)[-1]
    message = " ".join(str(error).split())
    message = message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]} ..."
    return f"{type(error).__name__}: {message} ({place.filename}:{place.lineno})"


def _is_installed(file: str) -> bool:
    """Return whether a file is part of Millstream, of an installed package, or of no file."""
    path = Path(file)
    ours = any(path.is_relative_to(_HOME / name) for name in _PACKAGES)
    return ours or not path.is_absolute() or bool(_FOREIGN & {*path.parts})


def reason(error: BaseException) -> str:
    """Return the operating system's message behind an error, or else the error's first line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).partition("\n")[0]
