"""A user's mistake gets one sentence with the place, the value and the remedy, and status 2 or 1.

The commands are called in this process; none of these gets as far as starting Ray.
"""

import json
from pathlib import Path

import pytest
import torch
import yaml
from commands import SMALL, once
from places import QUICKSTART
from typer.testing import CliRunner

from framework.cli.main import app


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty directory of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(status: int, *arguments: str) -> str:
    """What a command says that ends with this status: one line, after what it waits for."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == status, (result.output, result.exception)
    *before, sentence = result.stderr.strip().splitlines()
    waits = ("millstream: checking ", "millstream: loading ")
    assert [line for line in before if not line.startswith(waits)] == []
    assert len(before) <= 1
    assert sentence.startswith("millstream: ")
    as_json = CliRunner().invoke(app, [*arguments, "--json"])
    assert as_json.exit_code == status
    assert json.loads(as_json.stdout)["error"] == sentence.removeprefix("millstream: ")
    return sentence


def train(*overrides: str, status: int = 2) -> str:
    return said(status, "train", str(QUICKSTART), *once(*SMALL, *overrides))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainning.batch_size=5", "trainning is not a setting: a study has name"),
        ("trainning.batch_size=5", "did you mean training?"),
        ("training.batch=5", "training.batch is not a setting: training has batch_size"),
        ("training.batch_size=many", "training.batch_size is 'many': input should be a valid int"),
        ("training.batch_size=true", "training.batch_size: it is True: true and false"),
        ("design.bounds.left=[500, 100]", "bounds of left are [500.0, 100.0]"),
        ("design.bounds.left=[false, 100]", "design.bounds: it is {"),
        ("solver.name=heet", "heet: it must be one of burgers, darcy, "),
        ("solver.name=heet", "did you mean heat?"),
        ("surrogate.name=fnoo", "it must be one of mlp, fno"),
        ("surrogate.name=fnoo", "did you mean fno?"),
        ("solver.name=no_such.module:Wave", "importing no_such.module failed with ModuleNotFound"),
        ("buffer.capacity=5", "capacity"),
        ("training.batch_size=100", "buffer.capacity is 120: it has to be at least buffer.waterm"),
        ("buffer.watermark=121", "watermark is 121: it has to be below the capacity, 120"),
        ("tracking.uri=ftp://x", "tracking.uri is ftp://x"),
        ("tracking.uri=sqlite:////proc/no/mlflow.db", "tracking.uri is sqlite:////proc/no/mlflow"),
        ("store.keep=0", "store.keep: it is 0, but has to be all, last, none, or a number"),
        ("store.path=/proc/no/store.zarr", "store.path: "),
        ("training.source=nowhere.zarr", "nowhere.zarr"),
        ("training.epochs=3", "epochs is 3, but a stream passes once: give training.source"),
        ("training.simulations=3", "simulations is 3, but it is for a store: give training.source"),
        ("surrogate={name: fno, modes: 17}", "modes is 17, but a grid of (16, 16) has at most 16"),
        (
            "surrogate={name: unet, levels: 5}",
            "levels is 5, but a grid of (16, 16) can be",
        ),
        (
            "surrogate={name: message_passing, mode: autoregressive, bundle: 5, pushforward: true}",
            "light:Light stores 10 steps, but the surrogate message_passing learns",
        ),
        ("deterministic=true", "deterministic is true, but ensemble.actors is 2"),
        ("seed=18446744073709551616", "seed is 18446744073709551616: input should be less"),
        ("ensemble.cpus_per_actor=0.0001", "ensemble.cpus_per_actor is 0.0001: input should"),
        ("ensemble.gpus_per_actor=0.0001", "ensemble.gpus_per_actor: it is 0.0001, but has to"),
        ("seed=2020-13-45", "the value in seed=2020-13-45 is not YAML"),
    ],
)
def test_a_wrong_study_names_the_key_the_value_and_what_is_allowed(
    override: str, message: str, directory: Path
) -> None:
    assert message in train(override)
    assert not (directory / "runs").exists()


@pytest.mark.parametrize(
    ("surrogate", "message"),
    [
        (
            "{name: unet}",
            "levels is 2, but a grid of (1,) can be halved 0 times: take",
        ),
        ("{name: message_passing}", "neighbours is 2, but on a grid of (1,) a point has at most 0"),
        ("{name: fno}", "modes is 16, but a grid of (1,) has at most 1"),
    ],
)
def test_a_surrogate_that_cannot_take_the_solvers_grid_says_so(
    surrogate: str, message: str
) -> None:
    lorenz = QUICKSTART.with_name("lorenz.yaml")
    for mode in ("direct", "autoregressive"):
        overrides = [f"surrogate={surrogate}", f"surrogate.mode={mode}"]
        assert message in said(2, "train", str(lorenz), *overrides)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_solvers_cannot_have_gpus_where_there_is_none(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for command in "train", "simulate":
        message = said(2, command, str(QUICKSTART), *SMALL, "ensemble.gpus_per_actor=0.5")
        assert "ensemble.gpus_per_actor is 0.5, but there is no GPU here: set it to 0" in message
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "study.yaml is not YAML"),
        ("seed: 2020-13-45", "study.yaml is not YAML"),
        ("- 1", "study.yaml is not a study: it has to hold sections"),
        ("\x00", "study.yaml is not YAML"),
    ],
)
def test_a_file_that_is_no_study_is_named(text: str, message: str) -> None:
    Path("study.yaml").write_text(text)
    assert message in said(2, "train", "study.yaml")


def test_a_file_that_is_not_there_is_named() -> None:
    assert "study.yaml cannot be read: No such file" in said(2, "simulate", "study.yaml")


BROKEN = """
import numpy as np
from solvers.heat import Heat

class Raises(Heat):
    def __init__(self) -> None:
        open("no such file")

class Short(Heat):
    def times(self, parameters):
        return np.linspace(0, 1, 3)

class NoTimes(Heat):
    def times(self, parameters):
        return 1 / 0
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Raises", "solver: making it failed with FileNotFoundError"),
        ("Short", "the stored times of simulation 0 have to be 10 finite numbers"),
        (
            "NoTimes",
            "solver: its times (grid_size 16, stored_steps 10) failed with ZeroDivisionErr",
        ),
        ("Missing", "solver.name is broken:Missing: broken has no Missing"),
    ],
)
def test_a_solver_of_ones_own_that_fails_is_named_with_its_place(
    name: str, message: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "broken.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(directory))
    heat = {} if name in ("Raises", "Missing") else {"grid_size": 16, "stored_steps": 10}
    assert message in train(f"solver={json.dumps({'name': f'broken:{name}', **heat})}")


def test_a_folder_that_cannot_be_made_is_named(directory: Path) -> None:
    (directory / "runs").write_text("")
    message = train("store.keep=none", status=1)
    assert "cannot make the folder runs/small" in message
    assert (directory / "runs").read_text() == ""


def test_something_else_in_the_place_of_the_store_is_left_alone(directory: Path) -> None:
    (directory / "stores/small.zarr").mkdir(parents=True)
    (directory / "stores/small.zarr/mine").write_text("1")
    assert "stores/small.zarr" in train()
    assert (directory / "stores/small.zarr/mine").read_text() == "1"


def test_simulating_without_keeping_is_refused() -> None:
    message = said(2, "simulate", str(QUICKSTART), *SMALL, "store.keep=none")
    assert "store.keep is none, so nothing would be kept" in message


def test_a_model_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "runs/none is not the directory of a run" in said(2, "predict", "runs/none", "a=1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///none.db")
    assert "models:/heat/1" in said(2, "predict", "models:/heat/1", "a=1")
    assert not Path("none.db").exists()


def test_a_run_that_is_not_there_or_was_changed_is_named(directory: Path) -> None:
    assert "runs/none is not the directory of a run" in said(2, "resume", "runs/none")
    run = directory / "runs/changed"
    run.mkdir(parents=True)
    study = yaml.safe_load(QUICKSTART.read_text())
    study |= {"store": {"keep": "none"}, "tracking": {"uri": "none"}}
    (run / "study.yaml").write_text(yaml.safe_dump(study))

    from framework.study.study import Study
    from framework.training.checkpoint import Checkpoints

    checkpoints = Checkpoints(run / "checkpoints", Study.of({**study, "seed": 77}))
    checkpoints.publish(checkpoints.begin(), {})
    assert "is of another study than the study.yaml beside it" in said(2, "resume", str(run))
