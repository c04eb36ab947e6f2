"""The process that sends a run's journal to MLflow, out of training's way.

    training process: Tracking --an entry a line--> tracking.jsonl in the run's folder
                                                          |
    sending process (this file, run as a module):         '--> MLflow; how far it got: tracking.json

`Tracking` is in recorder.py, the journal in journal.py.

MLflow takes seconds to import and to set up a database, and a server may be slow or away. So
entries are first written to a journal, without waiting, and this process sends them: it shares
neither the interpreter nor the standard output with training. Entries that cannot be sent now stay
in the journal, for this process or for that of the next resume.

The sending process ends when its standard input does, so also when training is killed; it then
sends what is left. It locks the journal, so that no two processes send the same one. An entry that
was being sent when the process was killed is sent again, which MLflow accepts; before making the
run or the model version, the process checks whether they exist.
"""

import fcntl
import json
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any

from framework.tracking.access import mlflow_failures, model_versions, set_up, tolerating
from framework.tracking.flavour import write_flavour
from framework.tracking.journal import Journal
from framework.tracking.uri import (
    artifact_root,
    masked,
    sqlite_file,
    sqlite_uri,
    what_mlflow_says,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

LEFT = 3  # exit status of the sending process: MLflow could not be reached
_LOOK_SECONDS = 3.0  # between two reads of the journal
_LONGEST_PAUSE = 60.0  # between two attempts to reach MLflow
_NICE = 10  # solvers and training go first, above all at the start
_METRICS, _PARAMS = 1000, 100  # in one request


class _Sender:
    """Sends a journal to MLflow, in the sending process.

    Its methods raise one of `mlflow_failures()` when MLflow cannot be reached.
    """

    def __init__(
        self, journal: Journal, uri: str, experiment: str, run_name: str, training: IO[str]
    ) -> None:
        """`training` takes sentences for the user, which the training process prints."""
        self._journal = journal
        self._training = training
        self._uri = uri
        self._experiment = experiment
        self._run_name = run_name
        self._client: MlflowClient | None = None
        self._state = journal.state()
        self._refused: set[str] = set()

    def send(self) -> None:
        """Send the new entries of the journal, many rows of metrics at a time."""
        if self._client is None:
            self._client = self._connect()
        metrics: list[Metric] = []
        before = self._state["offset"]
        for entry, offset in self._journal.after(before):
            new = _metrics_of(entry)
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
        """Mark the run as killed, unless the journal says that it is over."""
        if self._client and not self._state["over"]:
            self._client.set_terminated(self._state["run_id"], "KILLED")

    def _connect(self) -> "MlflowClient":
        """Find the run, or make it; send the whole journal to an MLflow that did not have it."""
        from mlflow import MlflowClient

        head, _ = next(self._journal.after(0))
        uri = self._uri
        if database := sqlite_file(uri, Path(head["cwd"])):
            database.parent.mkdir(parents=True, exist_ok=True)
            os.chdir(database.parent)  # MLflow keeps the files beside the database
            uri = sqlite_uri(Path(database.name), uri)  # a folder's path may mean something else
            if root := artifact_root(database.parent):
                os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = root
        client = MlflowClient(uri, uri)
        if client.get_experiment_by_name(self._experiment) is None:
            with tolerating("RESOURCE_ALREADY_EXISTS"):  # another run has just made it
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
        # Opens MLflow's registry, which takes a second, while training goes on.
        model_versions(client, f"run_id = '{run.info.run_id}'")
        if run.info.run_id != self._state["run_id"]:
            self._save(run_id=run.info.run_id, offset=0, registered=None)
        return client

    def _metrics(self, client: "MlflowClient", metrics: "list[Metric]", offset: int) -> None:
        with self._refusable("metrics"):
            client.log_batch(self._state["run_id"], metrics)
        self._save(offset=offset)

    def _entry(self, client: "MlflowClient", entry: dict[str, Any]) -> None:
        """Send an entry of any kind but metrics."""
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
                case "child":
                    self._child(client, entry)
                case "finish":
                    client.set_terminated(run_id, entry["status"], entry["time"])
                    self._save(over=True)

    def _start(self, client: "MlflowClient", params: dict[str, str], data: dict[str, str]) -> None:
        from mlflow.entities import Dataset, DatasetInput, Param, RunTag

        run_id = self._state["run_id"]
        there = client.get_run(run_id).data.params
        items = [Param(*item) for item in params.items() if item[0] not in there]
        for first in range(0, len(items), _PARAMS):
            client.log_batch(run_id, params=items[first : first + _PARAMS])
        tags = [RunTag(f"data.{key}", value) for key, value in data.items()]
        # MLflow never changes a parameter; a run that is extended has another value.
        tags += [
            RunTag(f"extended.{key}", value)
            for key, value in params.items()
            if there.get(key, value) != value
        ]
        client.log_batch(run_id, tags=tags)
        if "hash" in data:
            # MLflow never changes a dataset with this name and digest: values that may change
            # later, such as the number of simulations, are only right in the tags.
            path = data.get("path", self._run_name)
            source = json.dumps({"uri": path})
            dataset = Dataset(path[-500:], data["hash"][:36], "local", source)
            client.log_inputs(run_id, [DatasetInput(dataset)])

    def _model(
        self, client: "MlflowClient", directory: str, name: str, tags: dict[str, str]
    ) -> None:
        run_id = self._state["run_id"]
        with TemporaryDirectory() as temporary:
            flavoured = Path(temporary, "flavoured")
            write_flavour(Path(directory), flavoured)
            client.log_artifacts(run_id, str(flavoured), "model")
        versions = model_versions(client, f"name = '{name}' and run_id = '{run_id}'")
        if not versions:
            with tolerating("RESOURCE_ALREADY_EXISTS"):
                client.create_registered_model(name)
            source = f"{client.get_run(run_id).info.artifact_uri}/model"
            created = client.create_model_version(name, source, run_id, await_creation_for=0)
            versions = [int(created.version)]
        for key, value in tags.items():
            client.set_model_version_tag(name, str(versions[0]), key, value)
        self._save(registered={"name": name, "version": str(versions[0])})

    def _child(self, client: "MlflowClient", entry: dict[str, Any]) -> None:
        """Send a run inside this one, whole; if it was sent in part, find it and send it again."""
        from mlflow.entities import Param

        parent = client.get_run(self._state["run_id"])
        experiment = parent.info.experiment_id
        key = f"{parent.data.tags['millstream.key']}/{entry['name']}"
        found = client.search_runs([experiment], f"tags.`millstream.key` = '{key}'")
        tags = {"millstream.key": key, "mlflow.parentRunId": parent.info.run_id}
        times = [round(1000 * row["values"].get("seconds", 0)) for row in entry["rows"]]
        began = entry["time"] - max(times, default=0)
        child = found[0] if found else client.create_run(experiment, began, tags, entry["name"])
        run_id, params = child.info.run_id, [Param(*item) for item in entry["params"].items()]
        # First, so that the run is over even if MLflow refuses some of its entries.
        client.set_terminated(run_id, entry["status"], entry["time"])
        for first in range(0, len(params), _PARAMS):
            client.log_batch(run_id, params=params[first : first + _PARAMS])
        metrics = [
            metric
            for row, time in zip(entry["rows"], times, strict=True)
            for metric in _metrics_of({**row, "time": began + time if time else entry["time"]})
        ]
        for first in range(0, len(metrics), _METRICS):
            client.log_batch(run_id, metrics[first : first + _METRICS])

    @contextmanager
    def _refusable(self, kind: str) -> Iterator[None]:
        """Skip an entry that MLflow refuses: it would refuse it again."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            self._refuse(kind, what_mlflow_says(error))

    def _refuse(self, kind: str, why: str) -> None:
        if kind not in self._refused:  # once is enough
            self._refused.add(kind)
            self.tell_training(f"MLflow does not take the run's {kind}: {why}")

    def tell_training(self, sentence: str) -> None:
        """Hand a sentence for the user to the training process."""
        print(sentence, file=self._training, flush=True)

    def _save(self, **changes: Any) -> None:
        self._state |= changes
        self._journal.save_state(self._state)


def _metrics_of(entry: dict[str, Any]) -> "list[Metric]":
    from mlflow.entities import Metric

    values = entry.get("values", {})
    return [Metric(name, value, entry["time"], entry["step"]) for name, value in values.items()]


def _input_ends_within(seconds: float) -> bool:
    """Wait for so many seconds, or until the training process asks to look at the journal now.

    Return whether standard input has ended.
    """
    return bool(select.select([0], [], [], seconds)[0]) and not os.read(0, 4096)


def _lock_journal(file: IO[bytes]) -> bool:
    """Wait for the lock of a file; False if standard input ended first."""
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if _input_ends_within(0.2):
            return False


def _serve(training: IO[str], directory: str, uri: str, experiment: str, run_name: str) -> int:
    """Send the journal of a run until standard input ends; return the exit status."""
    journal = Journal(Path(directory))
    with journal.path.open("rb") as file:
        if not _lock_journal(file):
            return LEFT
        sender = _Sender(journal, uri, experiment, run_name, training)
        failures, away, pause, over = mlflow_failures(), False, 0.0, False
        while True:
            over = _input_ends_within(pause)
            try:
                sender.send()
                if over:
                    sender.end()
                    return 0
                pause = _LOOK_SECONDS
            except failures as error:
                if not away:
                    away = True
                    sender.tell_training(
                        f"MLflow at {masked(uri)} cannot be used now "
                        f"({what_mlflow_says(error)}); what is tracked is kept in "
                        f"{journal.path} until it can"
                    )
                if over:
                    return LEFT
                pause = min(max(2 * pause, 1.0), _LONGEST_PAUSE)


if __name__ == "__main__":
    os.nice(_NICE)
    # Standard output is for sentences to the user: MLflow's own output goes to the log.
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    set_up()
    sys.exit(_serve(told, *sys.argv[1:]))
