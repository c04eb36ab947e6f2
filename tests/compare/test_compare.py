"""Comparing: arms and their studies, intervals, and what failures and an interrupt leave."""

import json
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import zarr
from commands import MILLSTREAM, SMALL, in_process, once, the_object, with_support
from hypothesis import given, settings
from hypothesis import strategies as st
from places import QUICKSTART
from scipy.stats import ttest_rel
from waiting import LIMIT

from framework.compare.arms import Equal, Plan
from framework.compare.comparing import Comparing
from framework.compare.intervals import half_interval, improvement
from framework.compare.report import comparison_text
from framework.errors import StudyError
from framework.study.case import Case
from framework.study.study import Study

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


@pytest.mark.usefixtures("on_cluster")
def test_an_interrupted_comparison_goes_on_and_a_diverged_arm_stops_no_other(
    tmp_path: Path,
) -> None:
    surrogate = "surrogate={name: 'fragile:Fragile', hidden: [16]}"
    solver = "solver={name: 'failing:Mild', grid_size: 16, stored_steps: 10}"
    command = [
        "compare",
        str(QUICKSTART),
        *once(*SMALLER, surrogate, solver, "ensemble.max_quarantined=0.5"),
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
    record = json.loads((folder / "comparison.json").read_text())
    for seed in (0, 2):  # what failed was not trained on, and took no place in what did
        store, offline = folder / f"seed-{seed}" / "store.zarr", arms["offline", seed]
        completed = int(np.asarray(zarr.open_group(store, mode="r")["complete"]).sum())
        assert completed < N
        assert offline["simulations"] == arms["fifo", seed]["simulations"] == completed
        assert offline["unique_samples"] == completed * W
        files = [path for path in store.rglob("*") if path.is_file()]
        assert offline["bytes"] == sum(path.stat().st_size for path in files)
        taken = [offline["simulating_seconds"], completed]
        assert taken == pytest.approx(record["simulating"][str(seed)])
    for item in result["improvement"]:
        assert item["mean"] is not None
        assert item["ci95"] is None  # of two seeds
    assert "too few seeds" in comparison_text(result)
    assert "fifo, seed 1: diverged" in comparison_text(result)
