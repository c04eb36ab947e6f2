"""The history of a run: a row of figures every few seconds, more often at the beginning.

Pictures are drawn from it, and its rows are tracked. It lies in the run's folder as
`history.jsonl`, one JSON object a line.
"""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from framework.errors import tell
from framework.threads import Background

# Name, such as "samples/received", -> figure. Unknown figures are left out.
Record = dict[str, float]

# Seconds between two rows: at first, and at most; they grow by a tenth from row to row.
_SHORTEST, _LONGEST_WAIT = 0.2, 2.0


def read_rows(path: Path) -> list[Record]:
    """Read the rows of a history.jsonl; none if it is not there."""
    rows: list[Record] = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:  # the last line of a process that was killed while writing
            break
    return rows


class History:
    """Takes rows while it is entered, and one at the end."""

    def __init__(
        self, path: Path, read: Callable[[], Record], then: Callable[[Record], None]
    ) -> None:
        """`read` makes a row and `then` is given it, both in the history's own thread."""
        self.rows: list[Record] = []
        self._path = path
        self._read = read
        self._then = then
        self._broken = False
        self._over = threading.Event()
        self._thread = Background("history", self._run)

    def resume(self, seconds: float) -> None:
        """Load the rows of an earlier process, up to the checkpoint at `seconds`."""
        self.rows += [row for row in read_rows(self._path) if row["seconds"] <= seconds]
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        self._path.write_text(text)

    def __enter__(self) -> "History":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self._take()

    def _run(self) -> None:
        seconds = _SHORTEST
        while not self._over.wait(seconds):
            self._take()
            seconds = min(1.1 * seconds, _LONGEST_WAIT)

    def _take(self) -> None:
        row = self._read()
        self.rows.append(row)
        if not self._broken:
            try:
                with self._path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            except OSError as error:
                self._broken = True
                tell(f"cannot write {self._path}: {error.strerror}")
        self._then(row)
