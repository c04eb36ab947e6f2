"""Tracking: what is logged arrives in a real MLflow, whatever was away or killed meanwhile."""

import json
import os
import socket
import subprocess
import sys
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from shutil import copyfile
from typing import Any

import mlflow.artifacts
import psutil
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from models import outputs, trained
from waiting import until

from framework.errors import StudyError, TrackingError
from framework.run.loading import load_trained
from framework.run.usage import system_figures
from framework.study.sections import TrackingConfig
from framework.tracking.recorder import Tracking
from framework.tracking.uri import check_uri
from framework.training.model import save_model

STUDY = {
    "name": "heat",
    "solver": {"name": "heat", "grid_size": 16},
    "design": {"bounds": {"left side": [100, 500]}},
    "surrogate": {"name": "mlp", "hidden": list(range(5000))},
}
DATA = {"path": "stores/heat.zarr", "simulations": 40, "hash": "f00d"}


@pytest.fixture(autouse=True)
def database(tmp_path: Path, database_template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In a directory of its own, with the default database already set up, which takes seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "run").mkdir()
    path = tmp_path / "mlflow.db"
    path.write_bytes(database_template.read_bytes())
    return path


@pytest.fixture(scope="module")
def database_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}")
    return path


def client(database: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{database}", f"sqlite:///{database}")


def the_run(database: Path) -> Run:
    """The one run that there is."""
    experiment = client(database).get_experiment_by_name("millstream")
    assert experiment is not None
    (run,) = client(database).search_runs([experiment.experiment_id])
    return run


def steps(database: Path, metric: str = "training/loss") -> list[int]:
    history = client(database).get_metric_history(the_run(database).info.run_id, metric)
    return sorted(point.step for point in history)


def row(step: int) -> dict[str, float]:
    return {"step": step, "seconds": 2.0 * step, "training/loss": 1 / (1 + step)}


def tracking(uri: str | None = None) -> Tracking:
    return Tracking(TrackingConfig(uri=uri), Path("run"), "heat-2")


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def model_folder(name: str = "run/model") -> tuple[Path, Any]:
    case, surrogate = trained("fno")
    save_model(surrogate, case, Path(name), {"relative_l2": 0.1})
    return Path(name), surrogate


@dataclass
class Sent:
    """A run that was tracked, and what it printed: in its first process, and in the second."""

    tracked: Tracking
    database: Path
    surrogate: Any
    told_first: str
    told_then: str
    status_between: str


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory, database_template: Path) -> Sent:
    """At first nothing listens at MLflow's address; then the folder of its database is a file."""
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(StringIO()) as told:
        patch.chdir(tmp_path_factory.mktemp("sent"))
        Path("run").mkdir()
        first = tracking(f"http://127.0.0.1:{closed_port()}")
        first.start(STUDY, DATA)
        first.log(row(0))
        first.log(row(1))
        first.close()
        assert first.run_id is None
        told_first = told.getvalue()

        database = Path("folder/mlflow.db").absolute()
        database.parent.touch()
        then = tracking("sqlite:///folder/mlflow.db")
        then.start(STUDY, DATA)
        until(lambda: "cannot be used" in told.getvalue()[len(told_first) :])
        surrogate = log_everything(then)
        then.finish("failed")
        database.parent.unlink()
        database.parent.mkdir()
        copyfile(database_template, database)
        until(lambda: all_sent(Path("run")))
        status = the_run(database).info.status
        then.log(row(1500))
        then.finish("done")
        then.close()
        told_then = told.getvalue()[len(told_first) :]
    return Sent(then, database, surrogate, told_first, told_then, status)


def log_everything(tracked: Tracking) -> Any:
    """But for the first two rows and the last; returns the surrogate that is sent."""
    Path("run/study.yaml").write_text("name: heat\n")
    model, surrogate = model_folder()
    tracked.artifact(Path("run/study.yaml"))
    tracked.artifact(Path("run/study.yaml"), "pictures")
    tracked.artifact(Path("run/not there"))
    for step in range(2, 1500):
        tracked.log(row(step))
    tracked.model(model, "heat", {"relative_l2": 0.1})
    return surrogate


def all_sent(directory: Path) -> bool:
    """By the files of a run."""
    if not (directory / "tracking.json").exists():
        return False
    state = json.loads((directory / "tracking.json").read_text())
    end: bool = state["offset"] == (directory / "tracking.jsonl").stat().st_size
    return end


def test_an_mlflow_that_is_away_is_reported_once(sent: Sent) -> None:
    run = sent.database.parent.parent / "run"
    away, kept = sent.told_first.splitlines()
    assert "cannot be used now (Connection refused); what is tracked is kept in" in away
    assert f"it is kept in {run}/tracking.jsonl, and millstream resume {run} sends it" in kept
    away, gone = sent.told_then.splitlines()
    assert "cannot be used now (" in away
    assert "not there is no longer there" in gone


def test_what_is_logged_arrives(sent: Sent) -> None:
    run = the_run(sent.database)
    assert sent.tracked.uri == "sqlite:///folder/mlflow.db"
    assert sent.tracked.run_id == run.info.run_id
    assert sent.status_between == "FAILED"
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "heat-2"
    assert run.data.params["solver.grid_size"] == "16"
    assert run.data.params["design.bounds.left side"] == "[100, 500]"
    assert run.data.params["surrogate.hidden"].startswith("[0, 1, 2, ")
    assert run.data.tags["data.path"] == "stores/heat.zarr"
    assert run.data.tags["data.simulations"] == "40"
    dataset = run.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("stores/heat.zarr", "f00d")
    assert steps(sent.database) == steps(sent.database, "seconds") == list(range(1501))
    assert run.data.metrics["seconds"] == 3000
    files = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, tracking_uri=f"sqlite:///{sent.database}", dst_path="downloaded"
    )
    found = {str(path.relative_to(files)) for path in Path(files).rglob("*") if path.is_file()}
    model = {"data/model/weights.safetensors", "data/model/model.json", "MLmodel"}
    assert {"study.yaml", "pictures/study.yaml"} | {f"model/{name}" for name in model} <= found


def test_a_model_is_registered_and_loaded_by_name(
    sent: Sent, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sent.tracked.registered == {"name": "heat", "version": "1"}
    version = client(sent.database).get_model_version("heat", "1")
    assert version.run_id == sent.tracked.run_id
    assert version.tags == {"relative_l2": "0.1"}
    client(sent.database).set_registered_model_alias("heat", "best", "1")
    monkeypatch.chdir(sent.database.parent)
    for uri in ("models:/heat/1", "models:/heat@best", "models:/heat/latest"):
        loaded = load_trained(uri).surrogate
        for n in (1, 3):
            assert torch.equal(outputs(loaded, n), outputs(sent.surrogate, n))
    mlflow.set_tracking_uri(f"sqlite:///{sent.database}")
    by_mlflow = mlflow.pyfunc.load_model("models:/heat@best")
    assert by_mlflow.metadata.signature.outputs.input_names() == ["temperature", "t"]
    finer = load_trained("models:/heat/1", ["solver.grid_size=32"])
    assert finer.surrogate.problem.grid == (32, 32)
    with pytest.raises(StudyError, match="has no models:/heat/2: heat has the versions 1"):
        load_trained("models:/heat/2")
    with pytest.raises(StudyError, match="has no models:/heat@worst: heat has the versions 1"):
        load_trained("models:/heat@worst")
    with pytest.raises(StudyError, match="has no models:/wave/1: it has the models heat"):
        load_trained("models:/wave/1")
    with pytest.raises(StudyError, match="models:/heat is not of the form models:/NAME/VERSION"):
        load_trained("models:/heat")
    assert capfd.readouterr() == ("", "")


def test_a_model_cannot_be_had_where_there_is_no_mlflow(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    with pytest.raises(StudyError, match=r"models:/heat/1 is not there: no MLflow is at sqlite"):
        load_trained("models:/heat/1")
    assert not Path("elsewhere.db").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(
        TrackingError, match=r"cannot be asked for models:/heat/1: Connection refused"
    ):
        load_trained("models:/heat/1")


def test_a_server_that_never_answers_does_not_hold_up_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        tracked = tracking(f"http://127.0.0.1:{server.getsockname()[1]}")
        tracked.start(STUDY, {})
        process = child()
        tracked.close(timeout=1)  # and not until the server answers, which it never does
    assert not process.is_running()


def child() -> psutil.Process:
    """The sending process."""
    found: list[psutil.Process] = []

    def there() -> bool:  # for a moment after its start a process has no command line
        children = psutil.Process().children()
        found[:] = [child for child in children if "framework.tracking.sender" in child.cmdline()]
        return bool(found)

    until(there)
    (process,) = found
    return process


def test_a_resumed_run_goes_on_where_it_was_killed(
    database: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Training is killed as it writes a line; its model is not registered twice."""
    model_folder()
    script = f"""
from pathlib import Path
from framework.tracking.recorder import Tracking
from framework.study.sections import TrackingConfig
tracked = Tracking(TrackingConfig(), Path("run"), "heat-2")
tracked.start({STUDY!r}, {DATA!r})
for step in range(10):
    tracked.log({{"step": step, "training/loss": 1.0}})
tracked.model(Path("run/model"), "heat", {{"relative_l2": 0.2}})
print("logged", flush=True)
input()
"""
    training = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert training.stdout is not None
    assert training.stdout.readline() == b"logged\n"
    first = tracking()
    until(lambda: first.registered is not None)
    (sending,) = psutil.Process(training.pid).children()
    training.kill()
    training.communicate()
    # On its own it still says that the run was killed, and ends.
    until(lambda: not sending.is_running())
    assert the_run(database).info.status == "KILLED"
    with Path("run/tracking.jsonl").open("a") as journal:
        journal.write('{"kind": "metrics", "ti')

    Path("run").rename("moved")
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")  # the database is where it was
    second = Tracking(TrackingConfig(), Path("../moved"), "heat-2")
    assert second.run_id == the_run(database).info.run_id
    second.start(STUDY, {**DATA, "simulations": 60})
    for step in range(10, 20):
        second.log(row(step))
    until(lambda: all_sent(Path("../moved")))
    assert the_run(database).info.status == "RUNNING"
    second.log(row(20))
    second.model(Path("../moved/model"), "heat", {"relative_l2": 0.1})
    second.finish("interrupted")
    second.close()
    assert steps(database) == list(range(21))
    run = the_run(database)
    assert run.info.status == "KILLED"
    assert run.data.params["solver.name"] == "heat"
    assert run.data.tags["data.simulations"] == "60"
    (version,) = client(database).search_model_versions("name = 'heat'")
    assert version.tags == {"relative_l2": "0.1"}
    assert second.registered == {"name": "heat", "version": "1"}
    assert not Path("mlflow.db").exists()
    assert capfd.readouterr() == ("", "")


def test_without_tracking_nothing_is_written() -> None:
    tracked = tracking("none")
    tracked.start(STUDY, DATA)
    tracked.log(row(0))
    tracked.finish("done")
    tracked.close()
    assert tracked.uri is None
    assert tracked.registered is None
    assert list(Path("run").iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://host", "tracking.uri is ftp://host: MLflow knows no ftp; give sqlite:///mlflow.db"),
        ("file:///runs", "MLflow no longer keeps runs in plain folders"),
        ("runs", "MLflow no longer keeps runs in plain folders"),
        ("http://", "it names no host"),
        ("http://host:99999", "tracking.uri is http://host:99999: [Pp]ort"),
        ("sqlite://", "it names no file"),
        ("sqlite:////proc/x/mlflow.db", "/proc cannot be written"),
        ("sqlite:///run", "run cannot be written .Is a directory"),
        ("sqlite:///text", "text is no such database"),
        ("sqlite:///text/mlflow.db", "text cannot be written .Not a directory"),
        ("postgresql://me:secret@host/db", r"postgresql://me:\*\*\*@host/db: No module named"),
    ],
)
def test_a_tracking_uri_that_cannot_be_is_refused(uri: str, message: str) -> None:
    Path("text").write_text("This is not a database.")
    with pytest.raises(StudyError, match=message) as refused:
        check_uri(TrackingConfig(uri=uri))
    assert "secret" not in str(refused.value)


def test_a_tracking_uri_that_can_be_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for uri in (None, "none", "http://nobody.example:5000", "sqlite:///new/folder/mlflow.db"):
        check_uri(TrackingConfig(uri=uri))
    assert not Path("new").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://host")
    with pytest.raises(StudyError, match="MLFLOW_TRACKING_URI is ftp://host"):
        check_uri(TrackingConfig())


def test_system_figures_count_descendants() -> None:
    before = system_figures()["system/memory_gib"]
    code = "a = bytearray(b'1' * 2**28); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        figures = system_figures()
        process.communicate(b"\n")
    assert figures["system/memory_gib"] - before > 0.24
    assert figures["system/cpu_percent"] >= 0
