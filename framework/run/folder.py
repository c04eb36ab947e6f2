"""The folder of a run, runs/NAME under the current directory, and the files in it."""

import json
from pathlib import Path

from framework.errors import RunError, StudyError
from framework.files import write_text
from framework.report.summary import Summary


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
        self.comparison = path / "comparison.json"  # of a comparison, whose arms are runs

    @classmethod
    def create(cls, name: str) -> "RunFolder":
        """Make runs/NAME, or runs/NAME-2 and so on where that exists. Raises RunError."""
        for number in range(1, 10**6):
            path = Path("runs", name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if not path.parent.is_dir():
                    raise RunError(f"cannot make the folder {path}: runs is a file") from None
                continue
            except OSError as error:
                raise RunError(
                    f"cannot make the folder {path}: {error.strerror}; start millstream in a "
                    "directory that you may write in"
                ) from None
            return cls(path)
        raise RunError(f"runs/{name} has too many runs: remove some")

    @classmethod
    def find(cls, path: Path) -> "RunFolder":
        """Return the folder of an earlier run. Raises StudyError."""
        folder = cls(path)
        if not folder.study.is_file():
            raise StudyError(f"{path} is not the directory of a run: it has no study.yaml")
        return folder

    def finished(self) -> Summary | None:
        """Return the summary of the run if it is done, else None."""
        try:
            summary = Summary.from_json(json.loads(self.summary.read_text()))
        except (OSError, ValueError):  # interrupted before it could be written
            return None
        return summary if summary.status == "done" else None

    def write_summary(self, summary: Summary) -> None:
        """Write summary.json. Raises WriteError."""
        write_text(self.summary, json.dumps(summary.to_json(), indent=2) + "\n")
