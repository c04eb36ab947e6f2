"""Tracking with MLflow, out of training's way. The only file that imports mlflow.

    training process: Tracking --an entry a line--> tracking.jsonl in the run's folder
                                                          |
    sending process (`python -m framework.tracking`):     '--> MLflow; how far it got: tracking.json

MLflow takes seconds to import and to set up a database, and a server may be slow or away. So what
is to be tracked is first written to a journal, which waits for nobody, and a process of its own
sends it: it shares neither the interpreter nor the standard output with training. What cannot be
sent now stays in the journal, for this process or for that of the next resume.

The sending process ends when its standard input does, so also when training is killed; it then
sends what there is. It locks the journal, so that no two of them send the same one. What it was
sending when it was killed is sent again, which MLflow takes; for the run and the model version it
looks before it makes them.
"""

import fcntl
import json
import os
import re
import select
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import psutil
from pydantic import StringConstraints

from framework.errors import RunError, StudyError
from framework.history import Record
from framework.section import Section

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_DEFAULT_URI = "sqlite:///mlflow.db"
_SECONDS = 3.0  # between two looks at the journal
_LONGEST_PAUSE = 60.0  # between two attempts to reach MLflow
_METRICS, _PARAMS, _VALUE = 1000, 100, 5000  # in one request; characters of one value
_LEFT = 3  # exit status of the sending process: MLflow could not be reached
_STATUS = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
# A server that is away is noticed soon; MLflow draws no progress bars and calls nobody.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class TrackingConfig(Section):
    """The `tracking` section of a study."""

    # Of MLflow; without one MLFLOW_TRACKING_URI, else sqlite:///mlflow.db. `none`: no tracking.
    uri: str | None = None
    experiment: Annotated[str, StringConstraints(min_length=1)] = "millstream"


def check(config: TrackingConfig) -> None:
    """Raise StudyError if the tracking URI cannot be. Asks no server."""
    uri = _resolve(config)
    if reason := _impossible(uri):
        place = "MLFLOW_TRACKING_URI" if config.uri is None else "tracking.uri"
        raise StudyError(
            f"{place} is {_masked(uri)}: {reason}; give {_DEFAULT_URI}, the address of an MLflow "
            "server such as http://localhost:5000, or none"
        )


class Tracking:
    """One run's tracking; with the URI `none` it does nothing. May be used from any thread.

    Made again for the same folder, it continues the same MLflow run.
    """

    def __init__(self, config: TrackingConfig, directory: Path, run_name: str) -> None:
        """`directory`: the run's folder, for the journal."""
        uri = _resolve(config)
        self.uri = None if uri == "none" else _masked(uri)
        self._directory = directory.absolute()
        self._arguments = [str(self._directory), uri, config.experiment, run_name]
        self._journal = _Journal(self._directory)
        self._lock = threading.Lock()
        self._off = self.uri is None
        self._process: subprocess.Popen[str] | None = None

    @property
    def run_id(self) -> str | None:
        """Of the MLflow run; None until MLflow was reached."""
        run_id: str | None = self._journal.state()["run_id"]
        return run_id

    @property
    def registered(self) -> dict[str, str] | None:
        """Name and version of the registered model; None until it was sent."""
        registered: dict[str, str] | None = self._journal.state()["registered"]
        return registered

    def summary(self) -> dict[str, str | None] | None:
        """The tracking URI and the run's id; None without tracking."""
        return {"tracking_uri": self.uri, "run_id": self.run_id} if self.uri else None

    def start(self, study: dict[str, Any], data: dict[str, Any]) -> None:
        """Begin, or go on after a resume. The study becomes parameters; `data`, which says what is
        trained on (path, simulations, hash), becomes tags and a dataset."""
        self._write("start", params=_flat(study), data=_flat(data))
        if not self._off:
            self._start_process()

    def log(self, record: Record) -> None:
        """A row of the run's history becomes metrics at its step."""
        values = {name: value for name, value in record.items() if name != "step"}
        self._write("metrics", step=int(record.get("step", 0)), values=values)

    def artifact(self, path: Path, folder: str = "") -> None:
        """Send a file, with the content that it has when it is sent."""
        self._write("artifact", path=str(path.absolute()), folder=folder)

    def model(self, directory: Path, name: str, tags: dict[str, Any]) -> None:
        """Send the folder of a trained surrogate, and register it as a version of the model `name`.

        A run has one version of a model: another call replaces its files and tags.
        """
        self._write("model", path=str(directory.absolute()), name=name, tags=_flat(tags))

    def finish(self, status: str) -> None:
        """The run has ended: `done`, `failed` or `interrupted`."""
        self._write("finish", status=_STATUS[status])

    def close(self, timeout: float = 60.0) -> None:
        """Wait until all is sent, and say so if something is left: at once if MLflow cannot be
        reached, else after `timeout` seconds. What earlier processes have left is sent, too."""
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
        crashed = self._process.returncode not in (0, _LEFT, -9)
        self._process = None
        if self._journal.unsent():
            _say(
                f"not all could be sent to MLflow at {self.uri}: it is kept in "
                f"{self._journal.path}, and millstream resume {self._directory} sends it"
                + (f"; what went wrong is in {self._journal.errors}" if crashed else "")
            )

    def _start_process(self) -> None:
        environment = {**_ENVIRONMENT, **os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        with self._journal.errors.open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "framework.tracking", *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                start_new_session=True,  # Ctrl-C is for training alone
            )
        assert self._process.stdout is not None
        arguments = (self._process.stdout,)
        self._relay = threading.Thread(target=_relay, args=arguments, name="tracking", daemon=True)
        self._relay.start()

    def _write(self, kind: str, **content: Any) -> None:
        with self._lock:
            if self._off:
                return
            try:
                self._journal.append({"kind": kind, "time": int(time.time() * 1000), **content})
            except OSError as error:
                self._off = True
                _say(f"cannot write {self._journal.path}: {error.strerror}; tracking has stopped")


class _Journal:
    """What is to be sent, and how far it was sent."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "tracking.jsonl"
        self.errors = directory / "tracking.log"
        self._state = directory / "tracking.json"
        self._whole = False

    def append(self, entry: dict[str, Any]) -> None:
        """Write an entry behind the others; only the training process does."""
        text = json.dumps(entry) + "\n"
        with self.path.open("ab+") as file:
            if not self._whole:
                file.seek(0)
                # A process may have been killed as it wrote its last line.
                file.truncate(file.read().rfind(b"\n") + 1)
                self._whole = True
            if not file.seek(0, os.SEEK_END):
                # How the run is found again, and what a relative path in the URI is relative to.
                head = {"key": uuid.uuid4().hex, "cwd": str(Path.cwd())}
                text = json.dumps({"kind": "head", "time": entry["time"], **head}) + "\n" + text
            file.write(text.encode())

    def after(self, offset: int) -> Iterator[tuple[dict[str, Any], int]]:
        """The entries from an offset on, each with the offset of the next."""
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
        """Whether there are entries that were not sent."""
        return self.path.exists() and any(True for _ in self.after(self.state()["offset"]))

    def state(self) -> dict[str, Any]:
        """What the sending process last wrote down."""
        try:
            state: dict[str, Any] = json.loads(self._state.read_text())
        except (FileNotFoundError, ValueError):
            return {"run_id": None, "offset": 0, "registered": None, "over": False}
        return state

    def save_state(self, state: dict[str, Any]) -> None:
        """Write the state down; only the sending process does."""
        temporary = self._state.with_suffix(".writing")
        temporary.write_text(json.dumps(state) + "\n")
        temporary.replace(self._state)


class _Sender:
    """Sends a journal to MLflow, in the sending process.

    Its methods raise one of `_failures()` when MLflow cannot be reached.
    """

    def __init__(self, journal: _Journal, uri: str, experiment: str, run_name: str) -> None:
        self._journal = journal
        self._uri = uri
        self._experiment = experiment
        self._run_name = run_name
        self._client: MlflowClient | None = None
        self._state = journal.state()
        self._refused: set[str] = set()

    def send(self) -> None:
        """Send what is new in the journal, rows of metrics many at a time."""
        if self._client is None:
            self._client = self._connect()
        metrics: list[Metric] = []
        before = self._state["offset"]
        for entry, offset in self._journal.after(before):
            new = _metrics(entry)
            if metrics and (not new or len(metrics) + len(new) > _METRICS):
                self._metrics(self._client, metrics, before)
                metrics = []
            if new:
                metrics += new
            else:
                self._entry(self._client, entry)
                self._save(offset=offset)
            before = offset
        if metrics:
            self._metrics(self._client, metrics, before)

    def end(self) -> None:
        """No more comes; a run that did not say that it is over was killed."""
        if self._client and not self._state["over"]:
            self._client.set_terminated(self._state["run_id"], "KILLED")

    def _connect(self) -> "MlflowClient":
        """Find the run, or make it; an MLflow that does not have it gets the whole journal."""
        from mlflow import MlflowClient

        head, _ = next(self._journal.after(0))
        uri = self._uri
        if database := _sqlite_file(uri, Path(head["cwd"])):
            database.parent.mkdir(parents=True, exist_ok=True)
            os.chdir(database.parent)  # MLflow keeps the files beside the database
            uri = f"sqlite:///{database}"
        client = MlflowClient(uri, uri)
        if client.get_experiment_by_name(self._experiment) is None:
            with _tolerating("RESOURCE_ALREADY_EXISTS"):  # another run has just made it
                client.create_experiment(self._experiment)
        experiment = client.get_experiment_by_name(self._experiment)
        assert experiment is not None
        key = {"millstream.key": head["key"]}
        found = client.search_runs(
            [experiment.experiment_id], f"tags.`millstream.key` = '{head['key']}'"
        )
        run = (
            found[0]
            if found
            else client.create_run(experiment.experiment_id, head["time"], key, self._run_name)
        )
        if run.info.run_id != self._state["run_id"]:
            self._save(run_id=run.info.run_id, offset=0, registered=None)
        return client

    def _metrics(self, client: "MlflowClient", metrics: "list[Metric]", offset: int) -> None:
        with self._refusable("metrics"):
            client.log_batch(self._state["run_id"], metrics)
        self._save(offset=offset)

    def _entry(self, client: "MlflowClient", entry: dict[str, Any]) -> None:
        """Send an entry that is no row of metrics."""
        kind, run_id = entry["kind"], self._state["run_id"]
        if "path" in entry and not Path(entry["path"]).exists():
            self._refuse(kind, f"{entry['path']} is no longer there")
            return
        with self._refusable(kind):
            match kind:
                case "start":
                    client.update_run(run_id, "RUNNING")
                    self._save(over=False)
                    self._start(client, entry["params"], entry["data"])
                case "artifact":
                    client.log_artifact(run_id, entry["path"], entry["folder"] or None)
                case "model":
                    self._model(client, entry["path"], entry["name"], entry["tags"])
                case "finish":
                    client.set_terminated(run_id, entry["status"], entry["time"])
                    self._save(over=True)

    def _start(self, client: "MlflowClient", params: dict[str, str], data: dict[str, str]) -> None:
        from mlflow.entities import Dataset, DatasetInput, Param, RunTag

        run_id = self._state["run_id"]
        items = [Param(*item) for item in params.items()]
        for first in range(0, len(items), _PARAMS):
            client.log_batch(run_id, params=items[first : first + _PARAMS])
        tags = [RunTag(f"data.{key}", value) for key, value in data.items()]
        client.log_batch(run_id, tags=tags)
        if "hash" in data:
            # MLflow never changes a dataset that has this name and digest: what may change later,
            # such as the number of simulations, is right in the tags alone.
            path = data.get("path", self._run_name)
            source = json.dumps({"uri": path})
            dataset = Dataset(path[-500:], data["hash"][:36], "local", source)
            client.log_inputs(run_id, [DatasetInput(dataset)])

    def _model(
        self, client: "MlflowClient", directory: str, name: str, tags: dict[str, str]
    ) -> None:
        run_id = self._state["run_id"]
        client.log_artifacts(run_id, directory, "model")
        versions = _versions(client, f"name = '{name}' and run_id = '{run_id}'")
        if not versions:
            with _tolerating("RESOURCE_ALREADY_EXISTS"):
                client.create_registered_model(name)
            source = f"{client.get_run(run_id).info.artifact_uri}/model"
            created = client.create_model_version(name, source, run_id, await_creation_for=0)
            versions = [int(created.version)]
        for key, value in tags.items():
            client.set_model_version_tag(name, str(versions[0]), key, value)
        self._save(registered={"name": name, "version": str(versions[0])})

    @contextmanager
    def _refusable(self, kind: str) -> Iterator[None]:
        """An entry that MLflow does not take is passed over: it never will."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            self._refuse(kind, _reason(error))

    def _refuse(self, kind: str, reason: str) -> None:
        if kind not in self._refused:  # once is enough
            self._refused.add(kind)
            _tell(f"MLflow does not take the run's {kind}: {reason}")

    def _save(self, **changes: Any) -> None:
        self._state |= changes
        self._journal.save_state(self._state)


def download(uri: str, directory: Path) -> Path:
    """Download a registered model, `models:/NAME/VERSION` or `models:/NAME@ALIAS`.

    Raises StudyError if there is no such model, RunError if MLflow cannot be reached.
    """
    check(TrackingConfig())
    tracking = _resolve(TrackingConfig())
    database = _sqlite_file(tracking, Path.cwd())
    if tracking == "none" or (database and not database.exists()):
        raise StudyError(
            f"{uri} is not there: no MLflow is at {_masked(tracking)}; set MLFLOW_TRACKING_URI, or "
            "give the directory of a run"
        )
    os.environ.update({**_ENVIRONMENT, **os.environ})
    try:
        return _download(uri, directory, tracking)
    except _failures() as error:
        raise RunError(
            f"MLflow at {_masked(tracking)} cannot be asked for {uri}: {_reason(error)}"
        ) from None


def _download(uri: str, directory: Path, tracking: str) -> Path:
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    client = MlflowClient(tracking, tracking)
    match = re.fullmatch(r"models:/+([^/@']+)([/@])([^/']+)", uri)
    if match is None:
        raise StudyError(f"{uri} is not of the form models:/NAME/VERSION or models:/NAME@ALIAS")
    name, separator, wanted = match.groups()
    there = _versions(client, f"name = '{name}'")
    version = None
    if separator == "@":
        with _tolerating("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
            version = int(client.get_model_version_by_alias(name, wanted).version)
    elif wanted == "latest":
        version = max(there, default=None)
    elif wanted.isdecimal():
        version = int(wanted)
    if version not in there:
        if there:
            versions = ", ".join(map(str, sorted(there)))
            known = f"{name} has the versions {versions}"
        else:
            names = ", ".join(model.name for model in client.search_registered_models())
            known = f"it has the models {names}" if names else "it has no models"
        raise StudyError(f"MLflow at {_masked(tracking)} has no {uri}: {known}")
    source = client.get_model_version_download_uri(name, str(version))
    return Path(download_artifacts(source, dst_path=str(directory), tracking_uri=tracking))


_processes: dict[int, psutil.Process] = {}


def system_figures() -> Record:
    """What this process and its descendants use: CPU since the call before, in percent of one
    core, and memory in GiB, without what they share with others."""
    this = psutil.Process()
    there = {process.pid: process for process in (this, *this.children(recursive=True))}
    for pid in [pid for pid, process in _processes.items() if there.get(pid) != process]:
        del _processes[pid]
    cpu = memory = 0.0
    for pid, process in there.items():
        with suppress(psutil.Error):  # it has just ended
            known = _processes.setdefault(pid, process)
            cpu += known.cpu_percent()
            used = known.memory_info()
            memory += used.rss - getattr(used, "shared", 0)
    figures = {"system/cpu_percent": cpu, "system/memory_gib": memory / 2**30}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        figures["system/gpu_memory_gib"] = torch.cuda.memory_reserved() / 2**30
    return figures


def _resolve(config: TrackingConfig) -> str:
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI") or _DEFAULT_URI


def _masked(uri: str) -> str:
    """Without the password."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", uri)


def _sqlite_file(uri: str, cwd: Path) -> Path | None:
    """The file of an SQLite URI."""
    scheme, _, path = uri.partition(":///")
    return cwd / path if scheme == "sqlite" and path else None


def _impossible(uri: str) -> str:
    """Why a tracking URI cannot be; empty if it can."""
    scheme = uri.partition(":")[0]
    if uri in ("none", "databricks") or scheme == "databricks":
        return ""
    if scheme in ("http", "https"):
        try:
            parts = urlsplit(uri)
            return "" if parts.hostname and parts.port != 0 else "it names no host"
        except ValueError as error:
            return str(error)
    if scheme == "sqlite":
        path = _sqlite_file(uri, Path.cwd())
        return _unusable(path) if path else "it names no file"
    if scheme.partition("+")[0] in ("postgresql", "mysql", "mssql"):
        from sqlalchemy import create_engine
        from sqlalchemy.exc import SQLAlchemyError

        try:
            create_engine(uri)
        except (SQLAlchemyError, ImportError) as error:
            return _reason(error)
        return ""
    if scheme == "file" or ":" not in uri:
        return "MLflow no longer keeps runs in plain folders"
    return f"MLflow knows no {scheme}"


def _unusable(database: Path) -> str:
    """Why there cannot be an SQLite database; empty if there can."""
    try:
        if database.exists():
            with database.open("r+b") as file:
                start = file.read(15)
            return "" if start in (b"", b"SQLite format 3") else f"{database} is no such database"
        database = next(parent for parent in database.parents if parent.exists())
        TemporaryFile(dir=database).close()  # root may write where the system lets nobody
    except OSError as error:
        return f"{database} cannot be written ({error.strerror})"
    return ""


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as `section.key` -> text, as MLflow takes them."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = prefix + re.sub(r"[^\w./ -]", "_", str(key), flags=re.ASCII)
        if isinstance(value, dict):
            flat |= _flat(value, f"{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            flat[name] = _masked(text)[:_VALUE]
    return flat


def _metrics(entry: dict[str, Any]) -> "list[Metric]":
    from mlflow.entities import Metric

    values = entry.get("values", {})
    return [Metric(name, value, entry["time"], entry["step"]) for name, value in values.items()]


def _versions(client: "MlflowClient", where: str) -> list[int]:
    return [int(version.version) for version in client.search_model_versions(where)]


def _failures() -> tuple[type[Exception], ...]:
    """What MLflow raises when it cannot be reached, or lacks a package that its server needs."""
    from alembic.util.exc import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, CommandError, OSError, ImportError)


def _reason(error: Exception) -> str:
    """The point of an error of MLflow, of which many are a page long."""
    system = re.search(r"\[Errno -?\d+\] ([^'\")\n]+)", str(error))
    return system[1] if system else str(error).partition("\n")[0][:300]


@contextmanager
def _tolerating(*codes: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code not in codes:
            raise


def _relay(lines: IO[str]) -> None:
    with lines:
        for line in lines:
            _say(line.rstrip())


def _say(sentence: str) -> None:
    print(f"millstream: {sentence}", file=sys.stderr)


def _tell(sentence: str) -> None:
    """From the sending process to the training process."""
    print(sentence, file=_told, flush=True)


def _input_ends_within(seconds: float) -> bool:
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def _lock(file: IO[bytes]) -> bool:
    """Wait for the lock of a file, or for the end of the input; whether it is locked."""
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if _input_ends_within(0.2):
            return False


def _send(directory: str, uri: str, experiment: str, run_name: str) -> int:
    """The sending process."""
    journal = _Journal(Path(directory))
    with journal.path.open("rb") as file:
        if not _lock(file):
            return _LEFT
        sender = _Sender(journal, uri, experiment, run_name)
        failures, away, pause, over = _failures(), False, 0.0, False
        while True:
            over = _input_ends_within(pause)
            try:
                sender.send()
                if over:
                    sender.end()
                    return 0
                pause = _SECONDS
            except failures as error:
                if not away:
                    away = True
                    _tell(
                        f"MLflow at {_masked(uri)} cannot be used now ({_reason(error)}); what "
                        f"is tracked is kept in {journal.path} until it can"
                    )
                if over:
                    return _LEFT
                pause = min(max(2 * pause, 1.0), _LONGEST_PAUSE)


if __name__ == "__main__":
    # Standard output is for what the user is told: what MLflow prints goes to the log.
    _told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.exit(_send(*sys.argv[1:]))
