"""The two kinds of error that the user is shown, as one sentence and without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class StudyError(ValueError):
    """Wrong use: a study, an argument or a file that cannot work as it is. Exit status 2."""


class RunError(RuntimeError):
    """A run that was right to start and could not be finished. Exit status 1."""


class DivergedError(RunError):
    """Training has diverged: a loss that is not finite."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What is written meanwhile is at `path`: a full disk or the like becomes a RunError."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write {path}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """What the operating system said, if it is at the root of the error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).partition("\n")[0]
