"""The commands as a user runs them: what they print, what they write, how they end."""

import json
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from commands import MILLSTREAM, SMALL, in_process, millstream, once, the_object, with_support
from held import held_in, holders, let_go
from places import QUICKSTART
from waiting import LIMIT, until

from solvers.heat import Heat

HEAT = "solver={name: heat, grid_size: 16, stored_steps: 10}"
POINT = ["initial=150", "left=480", "right=200", "bottom=300", "top=120"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A directory in which one small training run was done, and the object that it printed."""
    directory = tmp_path_factory.mktemp("run")
    tracked = "tracking.uri=sqlite:///mlflow.db"
    settings = once(*SMALL, HEAT, tracked, "buffer.replay=[4, 8]")
    ran = millstream(directory, "train", str(QUICKSTART), *settings, "--json")
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "simulations 40/40" in ran.stderr
    return directory, the_object(ran.stdout)


def test_train_prints_one_object_whose_numbers_agree(run: tuple[Path, dict[str, Any]]) -> None:
    directory, summary = run
    assert summary["run_dir"] == "runs/small"
    assert summary["status"] == "done"
    assert summary["simulations"] == {"requested": 40, "completed": 40, "quarantined": 0}
    samples, training = summary["samples"], summary["training"]
    assert samples["produced"] == samples["received"] == samples["unique_trained"] == 400
    assert samples["untrained"] == 0
    assert samples["drawn"] >= 400
    # Every batch is full but the last.
    assert training["steps"] == -(-samples["drawn"] // 10)
    assert 0 < training["steps_while_simulating"] <= training["steps"]
    assert 0 <= training["wait_fraction"] <= 1
    validation = summary["validation"]
    errors = validation["relative_l2"]
    assert 0 < errors["p50"] <= errors["p90"] <= errors["p99"]
    assert validation["nrmse"] == pytest.approx(errors["mean"])
    assert set(validation["trivial"]) == {"mean_field", "initial_field"}
    assert [round(time["t"], 6) for time in validation["per_time"]] == [
        round(t, 6) for t in np.linspace(0, 0.1, 10)
    ]
    assert validation["step"] == training["steps"]
    assert samples["stored"] == 400
    assert Path(summary["store"]) == directory / "stores/small.zarr"
    assert set(summary["wait"]) == {"solvers", "training", "transport", "redraws"}
    assert all(0 <= share <= 1 for share in summary["wait"].values())
    assert set(summary["checkpoint"]) == {"count", "seconds"}
    assert summary["model"] == {"name": "small", "version": "1"}
    assert summary["mlflow"]["tracking_uri"] == "sqlite:///mlflow.db"
    assert json.loads((directory / "runs/small/summary.json").read_text()) == summary


def test_trivial_errors_are_those_of_the_held_out_simulations(
    run: tuple[Path, dict[str, Any]],
) -> None:
    """Computed here from the solver and the design alone."""
    from framework.study.case import Case
    from framework.study.study import Study

    directory, summary = run
    design = Case(Study.load(directory / "runs/small/study.yaml")).design
    heat = Heat(grid_size=16, stored_steps=10)
    fields = np.array(
        [list(heat.solve(design.held_out(index).parameters, 0)) for index in range(4)], np.float64
    )
    norm = np.linalg.norm(fields.reshape(4, 10, -1), axis=-1)
    # The initial field predicts later times only.
    for name, guess, first in (
        ("mean_field", fields.mean(0), 0),
        ("initial_field", fields[:, :1], 1),
    ):
        error = np.linalg.norm((fields - guess).reshape(4, 10, -1), axis=-1)
        expected = float((error / norm)[:, first:].mean())
        assert summary["validation"]["trivial"][name] == pytest.approx(expected, rel=1e-5)


def test_predict_writes_numbers_and_a_picture(run: tuple[Path, dict[str, Any]]) -> None:
    directory, _ = run
    ran = in_process(directory, "predict", "runs/small", *POINT, "--out", "field.npz", "--json")
    assert ran.returncode == 0, ran.stderr
    assert the_object(ran.stdout)["out"] == "field.npz"
    with np.load(directory / "field.npz") as saved:
        np.testing.assert_allclose(saved["t"], np.linspace(0, 0.1, 10))
        assert saved["field"].shape == (10, 1, 16, 16)
        reference = np.array(list(Heat(16, 10).solve(np.array([150, 480, 200, 300, 120]), 0)))
        error = np.linalg.norm(saved["field"] - reference) / np.linalg.norm(reference)
    assert error < 0.3  # a network of 64 neurons, trained for a second: but in kelvin, and upright
    assert (directory / "field.png").read_bytes().startswith(b"\x89PNG")
    assert in_process(directory, "predict", "runs/small", *POINT).returncode == 0
    assert (directory / "runs/small/prediction.npz").is_file()


def test_what_a_run_leaves_is_in_its_folder_and_in_mlflow(
    run: tuple[Path, dict[str, Any]],
) -> None:
    directory, summary = run
    pictures = {"fields.png", "curves.png", "timeline.png", "coverage.png"}
    assert {path.name for path in (directory / "runs/small/pictures").iterdir()} == pictures
    design = (directory / "runs/small/design.csv").read_text().splitlines()
    assert design[0] == "simulation,seed,initial,left,right,bottom,top"
    assert len(design) == 1 + 4 + 40
    database = sqlite3.connect(directory / "mlflow.db")
    run_id = summary["mlflow"]["run_id"]
    metrics = {
        name
        for (name,) in database.execute("select key from metrics where run_uuid = ?", (run_id,))
    }
    database.close()
    assert {"training/loss", "validation/relative_l2", "samples/received"} <= metrics
    artifacts = {path.name for path in (directory / "mlruns").rglob("*") if path.is_file()}
    assert pictures | {"study.yaml", "design.csv", "weights.safetensors", "model.json"} <= artifacts


def test_the_registered_model_predicts_what_the_run_predicts(
    run: tuple[Path, dict[str, Any]],
) -> None:
    directory, _ = run
    for model, name in (("runs/small", "run.npz"), ("models:/small/1", "registered.npz")):
        ran = in_process(directory, "predict", model, *POINT, "--out", name)
        assert ran.returncode == 0, ran.stderr
    with np.load(directory / "run.npz") as one, np.load(directory / "registered.npz") as other:
        np.testing.assert_array_equal(one["field"], other["field"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models:/small/9", *POINT], "models:/small/9"),
        (["runs/small", *POINT, "solver.grid_size=32"], "the mlp is bound to its grid of (16, 16)"),
        (["runs/small", *POINT[1:]], "the parameter initial is missing: give initial in [100"),
        (["runs/small", *POINT, "middle=3"], "middle is not a parameter: there are initial in"),
        (
            ["runs/small", *POINT[:-1], "top=-1"],
            "top is -1: it has to be at least 0 K; give top",
        ),
        (["runs/small", *POINT[:-1], "top=nan"], "top is nan: give a number, top in [100, 500]"),
        (["runs/small", *POINT[:-1], "top=inf"], "top is inf: give a number, top in [100, 500]"),
        (["runs/small", *POINT[:-1], "top=hot"], "top=hot is not of the form name=number"),
        (["runs/small", *POINT, "top=300"], "top is given twice: as 120 and as 300"),
        (["runs/small", *POINT, "solver.grid_size=9", "solver.grid_size=8"], "is given twice, by"),
        (["runs/small", *POINT, "solver.final_time=1"], "solver.final_time cannot be set for a"),
        (["runs/other", *POINT], "runs/other is not the directory of a run"),
        (["runs/small", *POINT, "--out", "no/where.npz"], "no/where.npz cannot be written: "),
    ],
)
def test_predict_refuses_what_it_cannot_answer(
    run: tuple[Path, dict[str, Any]], arguments: list[str], message: str
) -> None:
    ran = in_process(run[0], "predict", *arguments)
    assert ran.returncode == 2
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr


def test_predict_warns_of_parameters_that_were_not_trained_on(
    run: tuple[Path, dict[str, Any]],
) -> None:
    ran = in_process(run[0], "predict", "runs/small", *POINT[:-1], "top=501", "--json")
    assert ran.returncode == 0, ran.stderr
    assert (
        "millstream: top is 501: the surrogate was trained within [100, 500] and knows nothing "
        "outside, so the fields may be wrong"
    ) in ran.stderr.splitlines()
    (warning,) = the_object(ran.stdout)["warnings"]
    assert f"millstream: {warning}" in ran.stderr.splitlines()
    ran = in_process(run[0], "predict", "runs/small", *POINT, "--json")
    assert the_object(ran.stdout)["warnings"] == []
    assert "trained within" not in ran.stderr


@pytest.mark.usefixtures("on_cluster")
def test_a_second_run_of_the_same_name_does_not_touch_the_first(
    run: tuple[Path, dict[str, Any]],
) -> None:
    """It is stopped after some steps, and says how many samples that left untrained."""
    directory, _ = run
    before = (directory / "runs/small/summary.json").read_bytes()
    settings = once(*SMALL, HEAT, "training.stop.steps=5")
    ran = in_process(directory, "train", str(QUICKSTART), *settings, "--json")
    assert ran.returncode == 0, ran.stderr
    summary = the_object(ran.stdout)
    assert summary["run_dir"] == "runs/small-2"
    assert summary["training"]["steps"] == 5
    samples = summary["samples"]
    assert samples["drawn"] == 50
    assert samples["untrained"] == samples["produced"] - samples["unique_trained"] > 0
    assert (directory / "runs/small/summary.json").read_bytes() == before


def test_wrong_use_is_refused_before_ray_starts(tmp_path: Path) -> None:
    ran = millstream(tmp_path, "train", str(QUICKSTART), "training.batch_size=-1", "--json")
    assert ran.returncode == 2
    message = "training.batch_size is -1: input should be greater than 0"
    assert ran.stderr.strip() == f"millstream: {QUICKSTART}: {message}"
    assert message in the_object(ran.stdout)["error"]
    assert list(tmp_path.iterdir()) == []
    assert in_process(tmp_path, "train").returncode == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_buffer_on_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    ran = in_process(tmp_path, "train", str(QUICKSTART), "buffer.device=cuda")
    assert ran.returncode == 2
    assert "buffer.device is cuda, but there is no GPU here: set it to cpu" in ran.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("on_cluster")
def test_a_few_failing_simulations_are_quarantined_and_the_run_goes_on(tmp_path: Path) -> None:
    settings = ("solver.name=failing:Mild", "ensemble.max_quarantined=0.3")
    ran = in_process(tmp_path, "train", str(QUICKSTART), *once(*SMALL, *settings), "--json")
    assert ran.returncode == 0, ran.stderr
    summary = the_object(ran.stdout)
    hot = [item for item in summary["quarantined"] if item["simulation"] >= 0]
    assert summary["simulations"]["quarantined"] == len(hot) > 0
    assert summary["simulations"]["completed"] == 40 - len(hot)
    assert all(item["parameters"]["initial"] > 470 for item in hot)
    assert all(item["step"] == 4 and "NaN" in item["error"] for item in hot)
    # What a simulation yielded before it failed was received, and trained on.
    assert summary["samples"]["produced"] == (40 - len(hot)) * 10 + len(hot) * 4
    assert summary["samples"]["untrained"] == 0


@pytest.mark.usefixtures("on_cluster")
def test_too_many_failing_simulations_stop_the_run(tmp_path: Path) -> None:
    settings = once(*SMALL, "solver.name=failing:Bad")
    ran = in_process(tmp_path, "train", str(QUICKSTART), *settings, "--json")
    assert ran.returncode == 1
    summary = the_object(ran.stdout)
    assert "more than the share of 0.05 that ensemble.max_quarantined allows" in summary["error"]
    assert summary["status"] == "failed"
    assert "Traceback" not in ran.stderr
    assert json.loads((tmp_path / "runs/small/summary.json").read_text())["status"] == "failed"


def start_and_wait_until_it_trains(directory: Path, *overrides: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [MILLSTREAM, "train", str(QUICKSTART), *once(*SMALL, *overrides), "--json"],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=with_support(),
    )
    assert process.stderr is not None
    for line in process.stderr:  # ends with the process, too
        if "loss" in line:
            return process
    raise AssertionError(f"ended with {process.wait()} before it trained")


@pytest.mark.usefixtures("on_cluster")
def test_a_run_whose_solvers_are_killed_misses_and_repeats_nothing(tmp_path: Path) -> None:
    process = start_and_wait_until_it_trains(
        tmp_path,
        *(*held_in(tmp_path), "design.simulations=300", "buffer.replay=[4, 8]"),
    )
    until(lambda: len(holders(tmp_path)) == 2, process)
    for solver in holders(tmp_path):
        psutil.Process(solver).kill()
    let_go(tmp_path)
    output, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    summary = the_object(output)
    assert summary["simulations"] == {"requested": 300, "completed": 300, "quarantined": 0}
    samples = summary["samples"]
    assert samples["received"] == samples["unique_trained"] == 3000
    assert samples["untrained"] == 0


@pytest.mark.usefixtures("on_cluster")
def test_an_ended_run_still_reports_and_keeps_its_weights(tmp_path: Path) -> None:
    process = start_and_wait_until_it_trains(tmp_path, "design.simulations=100000")
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, errors
    assert "go on with millstream resume runs/small" in errors
    summary = the_object(output)
    assert summary["status"] == "interrupted"
    assert summary["samples"]["drawn"] > 0
    assert "Traceback" not in errors
    assert in_process(tmp_path, "predict", "runs/small", *POINT).returncode == 0


def test_list_names_what_a_study_can_use() -> None:
    listed = in_process(QUICKSTART.parent.parent, "list")
    assert listed.returncode == 0
    assert "initial [100, 500] K" in listed.stdout
    assert "modes=16" in listed.stdout
    assert "grid: 64 x 64, spacing 0.0159 x 0.0159" in listed.stdout
    assert "order: 2 in space, 2 in time" in listed.stdout
    entries = the_object(in_process(QUICKSTART.parent.parent, "list", "studies", "--json").stdout)
    assert "configs/quickstart.yaml" in [item["name"] for item in entries["studies"]]
    assert in_process(QUICKSTART.parent, "list", "planets").returncode == 2


@pytest.mark.parametrize("command", ["train", "resume", "simulate", "predict", "list"])
def test_every_command_has_help_with_an_example(command: str, tmp_path: Path) -> None:
    shown = in_process(tmp_path, command, "--help")
    assert shown.returncode == 0
    assert f"Example: millstream {command}" in " ".join(shown.stdout.split())
