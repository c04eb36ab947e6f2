"""A whole comparison: every number that it tells, computed again from what its arms have left.

The arms' folders hold JSON, CSV, zarr and numpy files; models are asked by `millstream.load`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from commands import SMALL, in_process, once, the_object
from matplotlib.figure import Figure
from mlflow import MlflowClient
from numpy.typing import NDArray
from places import QUICKSTART
from scipy import stats

import millstream
from framework.compare.picture import draw_arms
from framework.run.folder import RunFolder
from millstream import resume

N, W, B, SEEDS = 32, 10, 10, 3  # simulations, samples of each, in a batch; seeds
SMALLER = once(*SMALL, f"design.simulations={N}", "ensemble.actors=1")
OFFLINE = {"offline": N, "offline_quarter": N // 4, "offline_sixteenth": N // 16}
NAMES = ("fifo", "firo", "reservoir", *OFFLINE)
MEASURES = ("mean", "p90", "p99", "max")


@pytest.fixture(scope="module")
def compared(module_on_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a comparison that is done."""
    directory = tmp_path_factory.mktemp("compared")
    tracked = "tracking.uri=sqlite:///mlflow.db"
    command = [
        "compare",
        str(QUICKSTART),
        *once(*SMALLER, tracked, "buffer.replay=[2, 4]"),
        "--json",
    ]
    result = in_process(directory, *command)
    assert result.returncode == 0, result.stderr
    (directory / "output.json").write_text(result.stdout)
    return directory


def arms_of(directory: Path) -> list[dict[str, Any]]:
    arms: list[dict[str, Any]] = the_object((directory / "output.json").read_text())["arms"]
    return arms


def test_every_arm_is_trained_with_every_seed(compared: Path) -> None:
    arms = arms_of(compared)
    assert {(arm["name"], arm["seed"]) for arm in arms} == {
        (name, seed) for name in NAMES for seed in range(3)
    }
    steps = 2 * N * W // B
    for arm in arms:
        assert arm["status"] == "done"
        assert arm["steps"] == steps
        assert arm["drawn_samples"] == steps * B
        offline = OFFLINE.get(arm["name"])
        if offline:
            assert arm["simulations"] == offline
            assert arm["unique_samples"] == offline * W
            assert arm["seconds"] > arm["simulating_seconds"] > 0
            assert arm["bytes"] > 0
        else:
            assert arm["bytes"] == arm["simulating_seconds"] == 0
        if arm["name"] in ("fifo", "firo"):
            assert arm["unique_samples"] == steps * B
        if arm["name"] == "reservoir":
            assert 0.7 * N * W < arm["unique_samples"] <= N * W
        assert 0 < arm["training_seconds"] <= arm["seconds"]
        found = arm["validation"]
        assert 0 < found["mean"] <= found["p90"] <= found["p99"] <= found["max"]


def norms(values: NDArray[Any]) -> NDArray[np.float64]:
    """At each time, of fields [T, C, *grid]."""
    return np.sqrt(np.square(values.astype(np.float64)).sum((1, 2, 3)))


def relative_l2(
    arm: dict[str, Any], directory: Path, parameters: NDArray[Any], fields: NDArray[Any]
) -> NDArray[np.float64]:
    """Of an arm's model, at each time of simulations [n, T], with parameters [n, p]."""
    model = millstream.load(directory / arm["run"])
    points = dict(zip(model.solver.parameters.names, parameters.T.astype(float), strict=True))
    predicted = np.moveaxis(model.predict(points).to_array().values, 0, 2)
    pairs = zip(predicted, fields, strict=True)
    return np.array([norms(p - u) / norms(u) for p, u in pairs])


def test_errors_are_those_of_the_models_on_the_files(compared: Path) -> None:
    """On the held-out trajectories of its seed, and on some that every arm was trained on."""
    for arm in arms_of(compared):
        seed = (compared / arm["run"]).parent
        kept = [np.load(seed / f"held_out/{number}.npz") for number in range(4)]
        errors = relative_l2(
            arm,
            compared,
            np.stack([item["parameters"] for item in kept]),
            np.stack([item["fields"] for item in kept]),
        )
        means = errors.mean(1)
        expected = {
            "mean": means.mean(),
            "p90": np.percentile(means, 90),
            "p99": np.percentile(means, 99),
            "max": means.max(),
            "last_time": errors[:, -1].mean(),
            "one_step": None,
        }
        assert arm["validation"] == {
            key: value if value is None else pytest.approx(value, rel=1e-4)
            for key, value in expected.items()
        }
        store = zarr.open_group(seed / "store.zarr", mode="r")
        fields = np.asarray(store["temperature"])[: N // 16, :, None]
        trained = relative_l2(arm, compared, np.asarray(store["parameters"])[: N // 16], fields)
        assert arm["trained"] == pytest.approx(trained.mean(), rel=1e-4)
        assert arm["gap"] == pytest.approx(arm["validation"]["mean"] - arm["trained"])


def test_figures_of_an_arm_are_those_of_its_run(compared: Path) -> None:
    record = json.loads((compared / "runs/small-comparison/comparison.json").read_text())
    assert record["arms"] == arms_of(compared)
    for arm in arms_of(compared):
        run = compared / arm["run"]
        summary = json.loads((run / "summary.json").read_text())
        last = json.loads((run / "history.jsonl").read_text().splitlines()[-1])
        training, samples = summary["training"], summary["samples"]
        checkpoints = summary["checkpoint"]["seconds"]
        assert arm["steps"] == last["step"] == training["steps"]
        assert arm["drawn_samples"] == samples["drawn"] == last["samples/drawn"]
        assert arm["unique_samples"] == samples["unique_trained"]
        assert arm["loss"] == pytest.approx(last["training/loss"])
        assert arm["waited"] == training["wait_fraction"]
        assert arm["training_seconds"] == pytest.approx(training["seconds"] - checkpoints)
        rate = arm["drawn_samples"] / arm["training_seconds"]
        assert arm["samples_per_second"] == pytest.approx(rate)
        seconds = training["seconds_to_end"] - checkpoints
        assert arm["seconds"] == pytest.approx(arm["simulating_seconds"] + seconds)
        if arm["offline"]:
            taken, completed = record["simulating"][str(arm["seed"])]
            share = arm["simulations"] / completed
            assert arm["simulating_seconds"] == pytest.approx(share * taken)
            files = [path for path in run.with_name("store.zarr").rglob("*") if path.is_file()]
            size = sum(path.stat().st_size for path in files)
            assert arm["bytes"] == pytest.approx(share * size, abs=1)
        else:
            assert arm["simulations"] == summary["simulations"]["completed"]


def errors_of(arms: list[dict[str, Any]], name: str, measure: str) -> NDArray[np.float64]:
    """Of an arm, seed by seed."""
    chosen = sorted((arm for arm in arms if arm["name"] == name), key=lambda arm: arm["seed"])
    return np.array([arm["validation"][measure] for arm in chosen])


def test_improvements_are_told_for_every_pair(compared: Path) -> None:
    result = the_object((compared / "output.json").read_text())
    pairs = [(item["of"], item["against"]) for item in result["improvement"]]
    with_offline = [(a, b) for a in NAMES[:3] for b in OFFLINE]
    assert sorted(pairs) == sorted([*with_offline, ("reservoir", "fifo"), ("reservoir", "firo")])
    for item in result["improvement"]:
        for measure in MEASURES:
            told = item if measure == "mean" else item[measure]
            ours, theirs = (
                np.log(errors_of(result["arms"], item[key], measure)) for key in ("of", "against")
            )
            assert told["mean"] == pytest.approx(1 - np.exp((ours - theirs).mean()))
            ends = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
            assert told["ci95"] == pytest.approx([1 - np.exp(ends.high), 1 - np.exp(ends.low)])


def is_told(text: str, value: float) -> bool:
    """Whether a printed number is this one, rounded to the digits it has."""
    digits = len(text.partition(".")[2])
    return abs(float(text) - value) <= 0.5001 * 10**-digits


def test_the_table_has_the_figures_of_the_arms(compared: Path) -> None:
    result = the_object((compared / "output.json").read_text())
    lines = in_process(compared, "resume", "runs/small-comparison").stdout.splitlines()
    assert lines[0].endswith(": done, 3 seeds at equal steps")
    table, improvement = lines[2:9], lines[-len(result["improvement"]) :]
    assert table[0].split()[:5] == ["arm", "mean", "p90", "p99", "max"]
    for name, line in zip(NAMES, table[1:], strict=True):
        arms = [arm for arm in result["arms"] if arm["name"] == name]
        columns = {measure: 100 * errors_of(arms, name, measure) for measure in MEASURES}
        mean = columns.pop("mean")
        half = mean.mean() - stats.t.interval(0.95, SEEDS - 1, mean.mean(), stats.sem(mean))[0]
        figures = ("gap", "steps", "unique_samples", "seconds", "samples_per_second", "bytes")
        scales = {"gap": 100, "bytes": 1e-6}
        expected = [
            *(mean.mean(), half),
            *(values.mean() for values in columns.values()),
            100 * np.mean([arm["validation"]["last_time"] for arm in arms]),  # of one step: none
            *(scales.get(key, 1) * np.mean([arm[key] for arm in arms]) for key in figures),
        ]
        told = line.replace(" +- ", " ").split()
        assert told[0] == name
        assert all(map(is_told, told[1:], expected)), (told, expected)
        assert len(told) == len(expected) + 1
    for item, line in zip(result["improvement"], improvement, strict=True):
        assert line.startswith(f"{item['of']} against {item['against']} ")
        told = line.replace("%", "").replace(" to ", " ").split()[3:]
        expected = [item["mean"], *item["ci95"], item["p99"]["mean"], item["max"]["mean"]]
        assert all(map(is_told, told, 100 * np.array(expected))), (line, expected)
        assert len(told) == 5


def test_the_picture_has_the_figures_of_the_result(
    compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, path: (drawn.append(self), save(self, path))
    )
    result = the_object((compared / "output.json").read_text())
    assert draw_arms(result, tmp_path / "arms.png")
    errors, better = drawn[0].axes
    marks = [line.get_xydata() for line in errors.lines if line.get_marker() == "o"]
    expected = [
        [100 * errors_of(result["arms"], name, measure).mean(), row]
        for row, name in enumerate(NAMES)
        for measure in MEASURES[:3]
    ]
    np.testing.assert_allclose(np.concatenate(marks), expected)
    names = [label.get_text() for label in errors.get_yticklabels()]
    assert names == [name.replace("_", " ") for name in NAMES]
    ours = [item for item in result["improvement"] if item["of"] == "reservoir"]
    points = np.concatenate(
        [line.get_xydata() for line in better.lines if line.get_marker() == "o"]
    )
    rows = [[100 * item["mean"], NAMES.index(item["against"])] for item in ours]
    np.testing.assert_allclose(points, rows)
    ends = [line.get_xdata() for line in better.lines if line.get_marker() != "o"][1:]
    np.testing.assert_allclose(ends, [[100 * end for end in item["ci95"]] for item in ours])
    labels = [text.get_text() for text in better.texts]
    told = [label.removesuffix(" %") for label in labels]
    assert len(labels) == len(ours)
    assert all(map(is_told, told, (100 * item["mean"] for item in ours)))


def test_mlflow_has_a_run_with_a_child_for_every_arm(compared: Path) -> None:
    client = MlflowClient(f"sqlite:///{compared / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("millstream")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {run.info.run_name: run for run in runs if run is not parent}
    arms = arms_of(compared)
    assert children.keys() == {f"{arm['name']}-{arm['seed']}" for arm in arms}
    for arm in arms:
        child = children[f"{arm['name']}-{arm['seed']}"]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.params["seed"] == str(arm["seed"])
        assert child.info.status == "FINISHED"
        found = child.data.metrics
        for key, error in arm["validation"].items():
            told = found.get(f"arm/relative_l2/{key}")
            assert told == (error if error is None else pytest.approx(error)), key
        for key in ("unique_samples", "drawn_samples", "seconds", "bytes", "gap", "steps"):
            assert found[f"arm/{key}"] == pytest.approx(arm[key]), key
        assert found["training/loss"] == pytest.approx(arm["loss"])
    improvement = the_object((compared / "output.json").read_text())["improvement"]
    assert parent.data.metrics == {
        f"improvement/{item['of']}_against_{item['against']}": pytest.approx(item["mean"])
        for item in improvement
    }
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} == {
        "comparison.json",
        "comparison.png",
        "study.yaml",
    }


def test_a_comparison_that_is_done_is_told_again(
    compared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = in_process(compared, "resume", "runs/small-comparison", "--json")
    assert result.returncode == 0
    assert result.stdout == (compared / "output.json").read_text()
    monkeypatch.chdir(compared)
    assert resume("runs/small-comparison") == the_object(result.stdout)


def test_a_changed_or_damaged_comparison_is_refused(compared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "small-comparison"
    folder.mkdir(parents=True)
    done = compared / "runs" / "small-comparison"
    study = (done / "study.yaml").read_text()
    (folder / "comparison.json").write_text((done / "comparison.json").read_text())
    (folder / "study.yaml").write_text(study.replace("batch_size: 10", "batch_size: 5"))
    result = in_process(tmp_path, "resume", str(folder))
    assert result.returncode == 2
    assert "study.yaml is not the study that" in result.stderr
    for damaged in ("{", "[]", '{"arms": []}'):
        (folder / "comparison.json").write_text(damaged)
        result = in_process(tmp_path, "resume", str(folder))
        assert result.returncode == 2
        assert "comparison.json is damaged: start the comparison anew" in result.stderr


def test_two_processes_do_not_go_on_with_one_comparison(compared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "small-comparison"
    folder.mkdir(parents=True)
    done = compared / "runs" / "small-comparison"
    (folder / "study.yaml").write_text((done / "study.yaml").read_text())
    record = (
        (done / "comparison.json").read_text().replace('"status": "done"', '"status": "new"', 1)
    )
    (folder / "comparison.json").write_text(record)
    with RunFolder(folder).owned():
        result = in_process(tmp_path, "resume", str(folder))
    assert result.returncode == 1
    assert "another run is going on with" in result.stderr
    assert (folder / "comparison.json").read_text() == record
