"""Every number that a run tells, computed again from the files that it leaves.

Nothing here uses the code that counted or scored: it reads JSON, CSV, SQLite, numpy and zarr files,
and asks the surrogate through `millstream.load` alone.
"""

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
import zarr
from commands import SMALL, in_process, once, the_object
from commands import millstream as command
from numpy.typing import NDArray
from places import QUICKSTART
from safetensors.torch import load_file

import millstream

Run = tuple[Path, dict[str, Any]]
MODES = ("direct", "autoregressive")
STEPS, HELD_OUT, BATCH, CAPACITY = 10, 4, 10, 120


@pytest.fixture(scope="module", params=MODES)
def run(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    module_on_cluster: None,
) -> Run:
    """A folder with one small run in each mode, and the object that it printed."""
    directory = tmp_path_factory.mktemp("run")
    settings = once(
        *SMALL,
        f"surrogate={{name: mlp, hidden: [64], mode: {request.param}}}",
        *("tracking.uri=sqlite:///mlflow.db", "buffer.replay=[2, 8]", "checkpoint.every_seconds=1"),
    )
    ran = command(directory, "train", str(QUICKSTART), *settings, "--json")
    assert ran.returncode == 0, ran.stderr
    return directory, the_object(ran.stdout)


@pytest.fixture(scope="module")
def held_out(run: Run) -> list[dict[str, NDArray[Any]]]:
    """The held-out trajectories, in the order of their numbers."""
    directory, _ = run
    paths = [directory / f"runs/small/held_out/{number}.npz" for number in range(HELD_OUT)]
    return [dict(np.load(path)) for path in paths]


def relative_l2(predicted: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """The relative L2 error at each time, of fields [T, ...]."""
    return np.array(
        [
            np.linalg.norm((p.astype(np.float64) - u).ravel()) / np.linalg.norm(u.ravel())
            for p, u in zip(predicted, truth, strict=True)
        ]
    )


def predicted(run: Run, held_out: list[dict[str, NDArray[Any]]]) -> list[NDArray[Any]]:
    """What the run's model predicts of each held-out simulation [T, C, *grid]."""
    model = millstream.load(run[0] / "runs/small")
    names = model.solver.parameters.names
    points = np.stack([item["parameters"] for item in held_out], 1, dtype=np.float64)
    fields = model.predict(dict(zip(names, points, strict=True))).to_array().values
    return list(np.moveaxis(fields, 0, 2))


def test_errors_are_those_of_the_model_on_the_held_out_files(
    run: Run, held_out: list[dict[str, NDArray[Any]]]
) -> None:
    scores = run[1]["validation"]
    given = 1 if run_mode(run) == "autoregressive" else 0
    fields = predicted(run, held_out)
    truth = [item["fields"] for item in held_out]
    errors = np.array(
        [relative_l2(p[given:], u[given:]) for p, u in zip(fields, truth, strict=True)]
    )
    means = errors.mean(1)
    said = scores["relative_l2"]
    assert said["mean"] == pytest.approx(means.mean(), rel=1e-4)
    assert said["max"] == pytest.approx(means.max(), rel=1e-4)
    for key in ("p50", "p90", "p99"):
        assert said[key] == pytest.approx(np.percentile(means, int(key[1:])), rel=1e-4)
    assert scores["last_time"]["mean"] == pytest.approx(errors[:, -1].mean(), rel=1e-4)
    assert [item["t"] for item in scores["per_time"]] == pytest.approx(
        np.mean([item["times"] for item in held_out], 0)[given:]
    )
    for index, item in enumerate(scores["per_time"]):
        assert item["relative_l2"]["mean"] == pytest.approx(errors[:, index].mean(), rel=1e-4)
    worst = max(np.abs(p - u)[given:].max() for p, u in zip(fields, truth, strict=True))
    assert scores["max"] == pytest.approx(worst, rel=1e-4)
    assert scores["nrmse"] == pytest.approx(means.mean(), rel=1e-4)  # one field
    median = sorted(range(HELD_OUT), key=lambda number: means[number])[(HELD_OUT - 1) // 2]
    assert scores["median_simulation"] == -1 - median
    mean = np.mean(truth, 0, dtype=np.float64)
    trivial = {
        "mean_field": np.mean([relative_l2(mean[given:], u[given:]) for u in truth]),
        "initial_field": np.mean([relative_l2([u[0]] * (STEPS - 1), u[1:]) for u in truth]),
    }
    assert scores["trivial"] == pytest.approx(trivial, rel=1e-4)


def test_single_steps_are_predicted_from_the_held_out_files(
    run: Run, held_out: list[dict[str, NDArray[Any]]]
) -> None:
    said = run[1]["validation"]["one_step"]
    if run_mode(run) == "direct":
        assert said is None
        return
    surrogate = millstream.load(run[0] / "runs/small").surrogate
    errors: list[float] = []
    for item in held_out:
        for start in range(STEPS - 1):
            times = torch.tensor(item["times"][None, start : start + 2], dtype=torch.float32)
            parameters = torch.tensor(item["parameters"][None], dtype=torch.float32)
            *_, after = surrogate.rollout(parameters, times, torch.tensor(item["fields"][[start]]))
            errors += [*relative_l2(after.detach().numpy(), item["fields"][[start + 1]])]
    expected = {
        "mean": np.mean(errors),
        "p50": np.percentile(errors, 50),
        "p99": np.percentile(errors, 99),
        "max": np.max(errors),
        "std": np.std(errors),
    }
    assert said == pytest.approx(expected, rel=1e-4)


def test_counts_are_those_of_the_files(run: Run) -> None:
    directory, told = run
    store = zarr.open_group(directory / "stores/small.zarr", mode="r")
    complete = int(
        np.count_nonzero(np.asarray(store["complete"])[: told["simulations"]["requested"]])
    )
    study = yaml.safe_load((directory / "runs/small/study.yaml").read_text())
    design = (directory / "runs/small/design.csv").read_text().splitlines()[1:]
    simulations, samples = told["simulations"], told["samples"]
    assert simulations["requested"] == study["design"]["simulations"] == len(design) - HELD_OUT
    assert simulations["completed"] == complete
    assert told["validation"]["simulations"] == HELD_OUT
    each = STEPS if run_mode(run) == "direct" else STEPS - 1  # windows of two steps
    assert samples["produced"] == samples["received"] == complete * each
    assert samples["unique_trained"] + samples["untrained"] == complete * each
    assert samples["stored"] == complete * STEPS
    assert told["training"]["steps"] == -(-samples["drawn"] // BATCH)
    weights = load_file(directory / "runs/small/model/weights.safetensors")
    names = ("weight", "bias")
    parameters = sum(weights[key].numel() for key in weights if key.rpartition(".")[2] in names)
    assert told["surrogate"]["parameters"] == parameters


def test_figures_of_the_course_are_those_of_the_history(run: Run) -> None:
    directory, told = run
    lines = (directory / "runs/small/history.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    last, training = rows[-1], told["training"]
    assert (last["step"], last["samples/drawn"]) == (training["steps"], told["samples"]["drawn"])
    assert last["training/loss"] == pytest.approx(training["loss"])
    assert last["seconds"] <= told["seconds"] + 1e-6
    assert training["seconds"] <= training["seconds_to_end"] <= told["seconds"]
    assert training["samples_per_second"] == pytest.approx(
        told["samples"]["drawn"] / training["seconds"]
    )
    checkpoints = [row["checkpoint/seconds"] for row in rows if "checkpoint/seconds" in row]
    assert sum(checkpoints) == pytest.approx(told["checkpoint"]["seconds"])
    scores = [row for row in rows if "validation/step" in row][-1]
    assert scores["validation/step"] == told["validation"]["step"] == training["steps"]
    expected = {
        "relative_l2": told["validation"]["relative_l2"]["mean"],
        "relative_l2_last_time": told["validation"]["last_time"]["mean"],
        "nrmse": told["validation"]["nrmse"],
        "max": told["validation"]["max"],
    }
    if run_mode(run) == "autoregressive":
        expected["relative_l2_one_step"] = told["validation"]["one_step"]["mean"]
    for key, value in expected.items():
        assert scores[f"validation/{key}"] == pytest.approx(value), key


def test_mlflow_has_the_figures_of_the_history(run: Run) -> None:
    directory, told = run
    rows = [
        json.loads(line)
        for line in (directory / "runs/small/history.jsonl").read_text().splitlines()
    ]
    latest: dict[str, float] = {}
    for row in rows:
        latest |= row
    database = sqlite3.connect(directory / "mlflow.db")
    query = "select key, value from latest_metrics where run_uuid = ?"
    metrics = dict(database.execute(query, (told["mlflow"]["run_id"],)))
    database.close()
    for key in ("samples/drawn", "training/loss", "simulations/completed"):
        assert metrics[key] == pytest.approx(latest[key]), key
    assert {key for key in latest if key.startswith("validation/relative")} <= set(metrics)
    for key in metrics:
        if key.startswith("validation/"):
            assert metrics[key] == pytest.approx(latest[key]), key


def test_waits_are_shares_of_the_time(run: Run) -> None:
    wait = run[1]["wait"]
    assert all(0 <= share <= 1 for share in wait.values())
    assert wait["training"] + wait["redraws"] <= 1 + 1e-9


def test_a_forecast_has_the_bytes_of_the_files(run: Run) -> None:
    directory, told = run
    study = str(directory / "runs/small/study.yaml")
    checked = in_process(directory, "check", study, "--json")
    assert checked.returncode == 0, checked.stderr
    found = the_object(checked.stdout)
    store = zarr.open_group(directory / "stores/small.zarr", mode="r")["temperature"]
    held_out = [np.load(path)["fields"] for path in directory.glob("runs/small/held_out/*.npz")]
    assert len(held_out) == HELD_OUT
    assert found["held_out_bytes"] == sum(fields.nbytes for fields in held_out)
    one_step = held_out[0][0].nbytes
    requested, complete = (told["simulations"][key] for key in ("requested", "completed"))
    assert found["store_bytes"] == requested * STEPS * one_step
    assert found["store_bytes"] == store[:complete].nbytes
    window = 1 if run_mode(run) == "direct" else 2
    assert found["buffer_bytes"] == CAPACITY * window * one_step
    least, most = (times * told["samples"]["produced"] / BATCH for times in (2, 8))
    assert least <= found["steps"] <= most


def test_a_run_from_the_store_takes_the_steps_and_the_memory_foretold(run: Run) -> None:
    """The last batch of an epoch is short; the samples of a simulation share its steps."""
    directory, told = run
    if run_mode(run) == "direct":
        pytest.skip("one mode is enough")
    study = str(directory / "runs/small/study.yaml")
    changes = (
        *("name=again", "training.source=stores/small.zarr", "training.epochs=3"),
        *("training.batch_size=7", "tracking.uri=none", "checkpoint.every_seconds=600"),
    )
    checked, ran = (
        in_process(directory, way, study, *changes, "--json") for way in ("check", "train")
    )
    assert ran.returncode == checked.returncode == 0, ran.stderr
    again, found = the_object(ran.stdout), the_object(checked.stdout)
    samples = told["simulations"]["completed"] * (STEPS - 1)
    assert again["samples"]["drawn"] == 3 * samples
    assert again["training"]["steps"] == found["steps"] == 3 * -(-samples // 7)
    one_step = np.load(directory / "runs/small/held_out/0.npz")["fields"][0].nbytes
    assert found["buffer_bytes"] == CAPACITY // (STEPS - 1) * STEPS * one_step


def test_what_is_printed_are_the_figures_of_the_summary(run: Run) -> None:
    directory, told = run
    printed = in_process(directory, "resume", "runs/small")
    assert printed.returncode == 0, printed.stderr
    text = " ".join(printed.stdout.split())
    simulations, samples, training = (told[key] for key in ("simulations", "samples", "training"))
    scores, wait = told["validation"], told["wait"]

    def percent(share: float, digits: int = 0) -> str:
        return f"{100 * share:.{digits}f} %"

    trivial = scores["trivial"]
    sentences = [
        f"done after {told['seconds']:.0f} s",
        f"{simulations['completed']} of {simulations['requested']} completed, "
        f"{simulations['quarantined']} quarantined",
        f"{samples['unique_trained']} trained on, {samples['untrained']} not, "
        f"{samples['drawn']} drawn",
        f"{training['steps']} steps on cpu, {training['steps_while_simulating']} of them while "
        f"simulating, {training['samples_per_second']:.0f} samples/s",
        f"solvers {percent(wait['solvers'])} to hand over, training {percent(wait['training'])} "
        "for samples",
        f"receiver {percent(wait['transport'])} for solvers",
        f"{told['surrogate']['parameters']} parameters",
        f"relative L2 {percent(scores['relative_l2']['mean'], 2)} (90 % below "
        f"{percent(scores['relative_l2']['p90'], 2)}), max error {scores['max']:.3g}, of "
        f"{HELD_OUT} held-out simulations",
        f"at the last time {percent(scores['last_time']['mean'], 2)}",
        f"mean field {percent(trivial['mean_field'], 2)}, initial field "
        f"{percent(trivial['initial_field'], 2)}",
        f"small.zarr, {samples['stored']} samples",
        f"{told['checkpoint']['count']}, training waited {told['checkpoint']['seconds']:.1f} s",
    ]
    if scores["one_step"] is not None:
        sentences.append(f"of one step {percent(scores['one_step']['mean'], 2)}")
    for sentence in sentences:
        assert sentence in text, sentence
    stood_still = told["checkpoint"]["seconds"] / told["seconds"]
    assert ("stood still for checkpoints" in text) == (stood_still > 0.05)
    if stood_still > 0.05:
        assert f"stood still for checkpoints {percent(stood_still)} of the time" in text
    draws = samples["drawn"] / samples["received"]
    assert (f"samples were drawn {draws:.1f} times each" in text) == (draws >= 0.95 * 8)


def run_mode(run: Run) -> str:
    """The mode of the surrogate that was trained."""
    study = yaml.safe_load((run[0] / "runs/small/study.yaml").read_text())
    return str(study["surrogate"]["mode"])
