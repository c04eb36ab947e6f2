"""The journal of a run, in its folder: entries to track, and how far they were sent.

    tracking.jsonl   an entry a line; by the first one, the head, the run is found again
    tracking.json    the state: how far the sending process has got, and what it has made in MLflow
    tracking.log     errors of the sending process

Training appends entries and never waits; the sending process reads them and writes the state.
"""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from framework.files import write_text


class Journal:
    """The entries to send, and how far they were sent."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "tracking.jsonl"
        self.errors = directory / "tracking.log"
        self._state = directory / "tracking.json"
        self._whole = False

    def append(self, entry: dict[str, Any]) -> None:
        """Add an entry at the end. Only the training process calls this."""
        text = json.dumps(entry) + "\n"
        with self.path.open("ab+") as file:
            if not self._whole:
                file.seek(0)
                # A process may have been killed while writing its last line.
                file.truncate(file.read().rfind(b"\n") + 1)
                self._whole = True
            if not file.seek(0, os.SEEK_END):
                # The key finds the run again; relative paths in the URI are relative to cwd.
                head = {"key": uuid.uuid4().hex, "cwd": str(Path.cwd())}
                text = json.dumps({"kind": "head", "time": entry["time"], **head}) + "\n" + text
            file.write(text.encode())

    def after(self, offset: int) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield the entries from an offset on, each with the offset of the next."""
        with self.path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                try:
                    entry = json.loads(line)
                except ValueError:  # a power cut may leave anything
                    continue
                yield entry, offset

    def unsent(self) -> bool:
        """Return whether some entries were not sent."""
        return self.path.exists() and any(True for _ in self.after(self.state()["offset"]))

    def state(self) -> dict[str, Any]:
        """Return the state that the sending process wrote last."""
        try:
            state: dict[str, Any] = json.loads(self._state.read_text())
        except (FileNotFoundError, ValueError):
            return {"run_id": None, "offset": 0, "registered": None, "over": False}
        return state

    def save_state(self, state: dict[str, Any]) -> None:
        """Write the state. Only the sending process calls this. Raises WriteError."""
        write_text(self._state, json.dumps(state) + "\n")
