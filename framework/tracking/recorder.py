"""The training process's side of tracking: write the journal and start the sending process.

`sender.py`, which is that process, says why there is one.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from framework.errors import tell
from framework.study.sections import TrackingConfig
from framework.threads import Background
from framework.tracking.history import Record
from framework.tracking.journal import Journal
from framework.tracking.sender import LEFT
from framework.tracking.uri import masked, resolve

_STATUS = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_LONGEST = 5000  # characters of one value that MLflow accepts


class Tracking:
    """Tracks one run; with the URI `none` it does nothing. May be used from any thread.

    A second one for the same folder continues the same MLflow run.
    """

    def __init__(self, config: TrackingConfig, directory: Path, run_name: str) -> None:
        """`directory`: the run's folder, for the journal."""
        uri = resolve(config)
        self.uri = None if uri == "none" else masked(uri)
        self._directory = directory.absolute()
        self._arguments = [str(self._directory), uri, config.experiment, run_name]
        self._journal = Journal(self._directory)
        self._lock = threading.Lock()
        self._off = self.uri is None
        self._process: subprocess.Popen[str] | None = None

    @property
    def run_id(self) -> str | None:
        """The id of the MLflow run; None until MLflow was reached."""
        run_id: str | None = self._journal.state()["run_id"]
        return run_id

    @property
    def registered(self) -> dict[str, str] | None:
        """Name and version of the registered model; None until it was sent."""
        registered: dict[str, str] | None = self._journal.state()["registered"]
        return registered

    def start(self, study: dict[str, Any], data: dict[str, Any], send: bool = True) -> None:
        """Begin tracking, or continue it after a resume.

        The study becomes parameters. `data` describes the data that is trained on (path,
        simulations, hash) and becomes tags and a dataset. Without `send` nothing is sent before
        `close`.
        """
        self._write("start", params=_flat(study), data=_flat(data))
        if send and not self._off:
            self._start_process()

    def log(self, record: Record) -> None:
        """Track a row of the run's history: metrics at its optimiser step."""
        values = {name: value for name, value in record.items() if name != "step"}
        self._write("metrics", step=int(record.get("step", 0)), values=values)

    def artifact(self, path: Path, folder: str = "") -> None:
        """Track a file, with the content that it has when it is sent."""
        self._write("artifact", path=str(path.absolute()), folder=folder)

    def model(self, directory: Path, name: str, tags: dict[str, Any]) -> None:
        """Track the folder of a trained surrogate, registered as a version of the model `name`.

        A run has one version of a model: another call replaces its files and tags.
        """
        self._write("model", path=str(directory.absolute()), name=name, tags=_flat(tags))
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):  # it has ended: `close` will tell
                print(file=self._process.stdin, flush=True)  # so that it is sent at once

    def child(self, name: str, study: dict[str, Any], rows: Sequence[Record], status: str) -> None:
        """Track a finished run inside this one: its study, its history, and how it ended."""
        metrics = [
            {
                "step": int(row.get("step", 0)),
                "values": {key: value for key, value in row.items() if key != "step"},
            }
            for row in rows
        ]
        self._write("child", name=name, params=_flat(study), rows=metrics, status=_STATUS[status])

    def finish(self, status: str) -> None:
        """Track the end of the run: `done`, `failed` or `interrupted`."""
        self._write("finish", status=_STATUS[status])

    def unsent(self) -> bool:
        """Return whether something is still to be sent, so that `close` waits."""
        return not self._off and self._journal.unsent()

    def close(self, timeout: float = 60.0) -> None:
        """Send all unsent entries, those of earlier processes too; tell the user if any remain.

        Waits until everything is sent, at most `timeout` seconds; not at all if MLflow is away.
        """
        if self._process is None and not self._off and self._journal.unsent():
            self._start_process()
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._relay.join()
        crashed = self._process.returncode not in (0, LEFT, -9)
        self._process = None
        if self._journal.unsent():
            tell(
                f"not all could be sent to MLflow at {self.uri}: it is kept in "
                f"{self._journal.path}, and millstream resume {self._directory} sends it"
                + (f"; what went wrong is in {self._journal.errors}" if crashed else "")
            )

    def _start_process(self) -> None:
        imports = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        with self._journal.errors.open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "framework.tracking.sender", *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "PYTHONPATH": imports},
                start_new_session=True,  # Ctrl-C is for training alone
            )
        assert self._process.stdout is not None
        self._relay = Background("tracking", partial(_relay, self._process.stdout))
        self._relay.start()

    def _write(self, kind: str, **content: Any) -> None:
        with self._lock:
            if self._off:
                return
            try:
                self._journal.append({"kind": kind, "time": int(time.time() * 1000), **content})
            except OSError as error:
                self._off = True
                tell(f"cannot write {self._journal.path}: {error.strerror}; tracking has stopped")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested mappings to `section.key` -> text, which MLflow takes."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = prefix + re.sub(r"[^\w./ -]", "_", str(key), flags=re.ASCII)
        if isinstance(value, dict):
            flat |= _flat(value, f"{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            flat[name] = masked(text)[:_LONGEST]
    return flat


def _relay(sentences: IO[str]) -> None:
    """Print the sentences of the sending process for the user."""
    with sentences:
        for sentence in sentences:
            tell(sentence.rstrip())
