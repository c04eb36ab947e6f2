"""The folder of a run, runs/NAME under the current directory, and the files in it."""

import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from framework.errors import BusyError, RunError, StudyError, WriteError, reason
from framework.files import locked, write_text
from framework.report.summary import Summary
from framework.study.study import Study


class RunFolder:
    """Paths in a run's folder. `create` makes a new one, `find` takes one that exists."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.study = path / "study.yaml"
        self.design = path / "design.csv"
        self.summary = path / "summary.json"
        self.history = path / "history.jsonl"
        self.model = path / "model"
        self.checkpoints = path / "checkpoints"
        self.held_out = path / "held_out"
        self.pictures = path / "pictures"
        self.programs = path / "programs"  # what programs of solvers have printed
        self.comparison = path / "comparison.json"  # of a comparison, whose arms are runs

    @classmethod
    def create(cls, name: str, fill: Callable[["RunFolder"], None]) -> "RunFolder":
        """Make runs/NAME, or runs/NAME-2 and so on where that exists. Raises RunError.

        `fill` writes what `millstream resume` needs. Only then does the folder get its name, so
        that no process is killed between the two.
        """
        runs = Path("runs")
        temporary = runs / f".{name}.{uuid.uuid4().hex}.writing"
        try:
            with ExitStack() as unfinished:
                unfinished.callback(shutil.rmtree, temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
                fill(cls(temporary))
                path = _named(temporary, runs, name)
                unfinished.pop_all()
                return cls(path)
        except FileExistsError:
            raise RunError(f"cannot make the folder {runs / name}: runs is a file") from None
        except OSError as error:
            raise RunError(
                f"cannot make the folder {runs / name}: {error.strerror}; start millstream in a "
                "directory that you may write in"
            ) from None

    @classmethod
    def find(cls, path: Path) -> "RunFolder":
        """Return the folder of an earlier run. Raises StudyError."""
        folder = cls(path)
        if not folder.study.is_file():
            raise StudyError(f"{path} is not the directory of a run: it has no study.yaml")
        return folder

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Let no other process go on with the run or the comparison meanwhile.

        Raises BusyError if another process has it, and WriteError if the folder cannot be locked.
        """
        lock = self.path / "run.lock"
        path = str(self.path.absolute())
        with ExitStack() as held:
            try:
                held.enter_context(locked(path, "going on with", "wait for its end", lock))
            except OSError as error:
                raise WriteError(
                    f"cannot lock {lock}: {reason(error)}; make the folder one that you may write "
                    "in, on a disk that has locks"
                ) from None
            yield

    def finished(self) -> Summary | None:
        """Return the summary of the run if it is done, with all simulations of its study."""
        try:
            summary = Summary.from_json(json.loads(self.summary.read_text()))
        except (OSError, ValueError):  # interrupted before it could be written
            return None
        done = summary.status == "done"
        asked = Study.load(self.study).design.simulations  # more, once the run is extended
        return summary if done and summary.simulations.requested >= asked else None

    def refuse_finished(self) -> None:
        """Raise BusyError if another process has brought the run to its end just now."""
        if self.finished():
            raise BusyError(
                f"another run has just finished {self.path}: millstream resume {self.path} shows "
                "what came of it"
            )

    def write_summary(self, summary: Summary) -> None:
        """Write summary.json. Raises WriteError."""
        write_text(self.summary, json.dumps(summary.to_json(), indent=2) + "\n")


def _named(temporary: Path, runs: Path, name: str) -> Path:
    """Rename a folder to the first of NAME, NAME-2 and so on that is free; return that path."""
    for number in range(1, 10**6):
        path = runs / (name if number == 1 else f"{name}-{number}")
        if os.path.lexists(path):
            continue
        try:
            return temporary.rename(path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise  # else another process has just made it
    raise RunError(f"runs/{name} has too many runs: remove some")
