"""Comparing: arms and their studies, intervals, whole comparisons in processes of their own."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import MILLSTREAM, SMALL, in_process, once, the_object, with_support
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from places import QUICKSTART
from scipy.stats import ttest_rel
from waiting import LIMIT

from framework.compare.arms import Equal, Plan
from framework.compare.comparing import Comparing
from framework.compare.intervals import half_interval, improvement
from framework.compare.report import comparison_text
from framework.errors import StudyError
from framework.run.folder import RunFolder
from framework.study.case import Case
from framework.study.study import Study
from framework.training.model import load_model
from millstream import resume

N, W, B = 32, 10, 10  # simulations, samples of each, in a batch
SMALLER = once(*SMALL, f"design.simulations={N}", "ensemble.actors=1")
OFFLINE = {"offline": N, "offline_quarter": N // 4, "offline_sixteenth": N // 16}
NAMES = {"fifo", "firo", "reservoir", *OFFLINE}
errors = st.floats(1e-6, 1e6)


def study(*overrides: str) -> Study:
    return Study.load(QUICKSTART, once(*SMALLER, *overrides))


@given(st.lists(st.tuples(errors, errors), min_size=3, max_size=8))
def test_an_interval_is_that_of_the_paired_t_test_of_the_logarithms(
    pairs: list[tuple[float, float]],
) -> None:
    ours, others = np.array(pairs).T
    found = improvement(ours.tolist(), others.tolist())
    logs = np.log(ours) - np.log(others)
    assert 1 - found["mean"] == pytest.approx(np.exp(logs.mean()), rel=1e-9)
    if logs.std() > 1e-6:
        expected = ttest_rel(np.log(ours), np.log(others)).confidence_interval(0.95)
        low, high = found["ci95"]
        assert 1 - high == pytest.approx(np.exp(expected.low), rel=1e-6)
        assert 1 - low == pytest.approx(np.exp(expected.high), rel=1e-6)


def test_what_a_seed_has_in_common_widens_no_interval() -> None:
    hard = np.array([1.0, 10.0, 100.0])
    low, high = improvement((0.5 * hard).tolist(), hard.tolist())["ci95"]
    assert low == pytest.approx(0.5)
    assert high == pytest.approx(0.5)
    assert half_interval(hard.tolist()) > 100


def test_fewer_than_three_pairs_have_no_interval() -> None:
    assert improvement([1.0, 2.0], [2.0, 4.0]) == {"mean": pytest.approx(0.5), "ci95": None}
    assert improvement([], []) == {"mean": None, "ci95": None}
    assert improvement([1.0, float("inf")], [2.0, 1.0])["mean"] == pytest.approx(0.5)


@settings(max_examples=10)
@given(
    simulations=st.integers(16, 200),
    batch=st.integers(1, 30),
    replay=st.floats(1, 6),
    watermark=st.integers(0, 60),
)
def test_at_equal_steps_every_arm_has_enough_for_them(
    simulations: int, batch: int, replay: float, watermark: int
) -> None:
    compared = study(
        f"design.simulations={simulations}",
        f"training.batch_size={batch}",
        f"buffer.replay=[{replay}, {2 * replay}]",
        f"buffer.watermark={watermark}",
    )
    plan = Plan(Case(compared), "steps")
    drawn = plan.steps * batch
    assert drawn >= replay * simulations * W - 1e-6
    assert {arm.name for arm in plan.arms} == NAMES
    for arm in plan.arms:
        made = plan.case_of(arm, 2, Path("s.zarr")).study
        assert made.seed == compared.seed + 2
        assert made.training.stop.steps == plan.steps
        if arm.offline:
            count = made.training.simulations or simulations
            assert count == arm.simulations
            assert made.training.epochs * count * W >= drawn
            assert made.buffer.capacity >= count * W
        elif arm.name == "reservoir":
            assert made.design.simulations == simulations
            # As often as needed, and no more often than it takes to the end of the stream.
            passing = max(watermark + 1, batch)
            assert made.buffer.replay[0] * (simulations * W - passing) >= drawn - 1e-6
        else:
            assert made.buffer.replay == (1, 1)
            assert made.design.simulations * W >= drawn


@pytest.mark.parametrize("equal", ["samples", "seconds"])
def test_at_equal_samples_or_seconds_no_arm_stops_after_steps(equal: Equal) -> None:
    stop = ["training.stop={seconds: 20}"] if equal == "seconds" else []
    plan = Plan(Case(study(*stop, "buffer.replay=[2, 4]")), equal)
    for arm in plan.arms:
        made = plan.case_of(arm, 0, Path("s.zarr"), simulated=5.0).study
        assert made.training.stop.steps is None
        if equal == "seconds":
            assert made.training.stop.seconds == 15
        else:
            assert arm.simulations == N
            assert made.training.epochs == (2 if arm.offline else 1)


def test_an_arm_of_its_own_for_bred_simulations() -> None:
    plan = Plan(Case(study("design.sampler=breed")), "steps")
    samplers = {arm.name: plan.case_of(arm, 0, Path("s")).study.design.sampler for arm in plan.arms}
    assert samplers == {**dict.fromkeys(NAMES, "sobol"), "breed": "breed"}
    assert plan.simulating(0, Path("s")).study.design.sampler == "sobol"


@pytest.mark.parametrize(
    ("overrides", "equal", "sentence"),
    [
        (["design.simulations=15"], "steps", "design.simulations is 15: .* give 16 or more"),
        (["training.stop={steps: 31}"], "steps", "31 steps of 10 samples are fewer than the 320 "),
        (["training.stop={seconds: 5}"], "steps", "for --equal seconds, and for it alone"),
        ([], "seconds", "training.stop has to be {seconds: N} for --equal seconds"),
        (["training.source=x.zarr"], "steps", "training.source is x.zarr, but a comparison"),
        (["design.sampler=latin_hypercube"], "steps", "choose sobol, halton or monte_carlo"),
        (
            ["buffer.watermark=319", "buffer.capacity=400"],
            "steps",
            "buffer.watermark is 319 and tr",
        ),
        (["training.stop={seconds: 5}", "design.sampler=breed"], "seconds", "sampler is breed, wh"),
    ],
)
def test_a_study_that_cannot_be_compared_is_refused(
    overrides: list[str], equal: Equal, sentence: str
) -> None:
    with pytest.raises(StudyError, match=sentence):
        Plan(Case(study(*overrides)), equal)


def test_too_few_seeds_are_wrong_use(tmp_path: Path) -> None:
    result = in_process(tmp_path, "compare", str(QUICKSTART), *SMALLER, "--seeds", "2")
    assert result.returncode == 2
    assert result.stderr.endswith(
        "millstream: --seeds is 2: an interval paired by seed needs 3 or more\n"
    )
    assert not (tmp_path / "runs").exists()
    with pytest.raises(StudyError, match="equal is epochs: it must be one of steps, seconds, sam"):
        Comparing(Case(study()), 3, "epochs")  # type: ignore[arg-type]


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


def relative_l2(arm: dict[str, Any], directory: Path) -> list[float]:
    """Of an arm's model on its seed's held-out trajectories, in plain numpy."""
    run = directory / arm["run"]
    surrogate = load_model(run / "model").surrogate
    found = []
    for path in run.parent.joinpath("held_out").glob("*.npz"):
        kept = np.load(path)
        parameters = torch.tensor(kept["parameters"])[None].float().repeat(W, 1)
        predicted = surrogate.direct(parameters, torch.tensor(kept["times"]).float())
        difference = predicted.detach().numpy().astype(np.float64) - kept["fields"]
        norms = [np.sqrt(np.square(a).sum((1, 2, 3))) for a in (difference, kept["fields"])]
        found.append(float((norms[0] / norms[1]).mean()))
    return found


def test_errors_are_those_of_the_models_on_the_seeds_own_trajectories(compared: Path) -> None:
    for arm in arms_of(compared):
        by_hand = relative_l2(arm, compared)
        assert len(by_hand) == 4
        assert arm["validation"]["mean"] == pytest.approx(np.mean(by_hand), rel=1e-4)
        assert arm["validation"]["max"] == pytest.approx(np.max(by_hand), rel=1e-4)
        assert arm["gap"] == pytest.approx(arm["validation"]["mean"] - arm["trained"])


def test_improvements_are_told_for_every_pair(compared: Path) -> None:
    result = the_object((compared / "output.json").read_text())
    arms = {(arm["name"], arm["seed"]): arm["validation"]["mean"] for arm in result["arms"]}
    pairs = [(item["of"], item["against"]) for item in result["improvement"]]
    with_offline = [(a, b) for a in NAMES - {*OFFLINE} for b in OFFLINE]
    assert sorted(pairs) == sorted([*with_offline, ("reservoir", "fifo"), ("reservoir", "firo")])
    for item in result["improvement"]:
        ratios = [arms[item["of"], seed] / arms[item["against"], seed] for seed in range(3)]
        assert item["mean"] == pytest.approx(1 - np.exp(np.log(ratios).mean()))
        low, high = item["ci95"]
        assert low < item["mean"] < high
    text = comparison_text(result)
    assert all(name in text for name in NAMES)
    assert (compared / "runs" / "small-comparison" / "comparison.png").stat().st_size > 10_000


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
        assert found["arm/relative_l2/mean"] == pytest.approx(arm["validation"]["mean"])
        assert found["training/loss"] == pytest.approx(arm["loss"])
    assert "improvement/reservoir_against_offline" in parent.data.metrics
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


@pytest.mark.usefixtures("on_cluster")
def test_an_interrupted_comparison_goes_on_and_a_diverged_arm_stops_no_other(
    tmp_path: Path,
) -> None:
    surrogate = "surrogate={name: 'fragile:Fragile', hidden: [16]}"
    command = [
        "compare",
        str(QUICKSTART),
        *once(*SMALLER, surrogate),
        "--equal",
        "samples",
        "--json",
    ]
    folder = tmp_path / "runs" / "small-comparison"
    with subprocess.Popen(
        [MILLSTREAM, *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=with_support(),
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:  # ends with the process, too
            if "firo, seed 0: relative L2" in line:
                process.send_signal(signal.SIGINT)
                break
        output, said = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, said
    first = the_object(output)
    assert first["status"] == "interrupted"
    assert "go on with millstream resume runs/small-comparison" in first["error"]
    trained = [folder / "seed-0" / name / "summary.json" for name in ("fifo", "firo")]
    written = [path.stat().st_mtime_ns for path in trained]
    resumed = in_process(tmp_path, "resume", str(folder), "--json")
    assert resumed.returncode == 0, resumed.stderr
    result = the_object(resumed.stdout)
    assert result["status"] == "done"
    assert result["arms"][: len(first["arms"])] == first["arms"]
    assert [path.stat().st_mtime_ns for path in trained] == written
    arms = {(arm["name"], arm["seed"]): arm for arm in result["arms"]}
    assert len(arms) == len(result["arms"]) == 4 * 3
    for (_, seed), arm in arms.items():
        assert arm["status"] == ("diverged" if seed == 1 else "done")
    assert "training has diverged" in arms["offline", 1]["error"]
    for item in result["improvement"]:
        assert item["mean"] is not None
        assert item["ci95"] is None  # of two seeds
    assert "too few seeds" in comparison_text(result)
    assert "fifo, seed 1: diverged" in comparison_text(result)
