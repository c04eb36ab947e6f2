"""Several training ranks, each in a process of its own: together they do what one does."""

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from commands import MILLSTREAM, SMALL, in_process, once, the_object, with_support
from held import held_in, holders, let_go
from places import QUICKSTART
from safetensors.torch import load_file
from waiting import LIMIT, until

pytestmark = pytest.mark.usefixtures("module_on_cluster")

TWO = ["training.ranks=2", "design.simulations=60", "store.keep=none"]
OFTEN = ["checkpoint.every_seconds=0.001"]


def start(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    with (directory / "errors").open("a") as errors:
        return subprocess.Popen(
            [MILLSTREAM, *arguments, "--json"],
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=with_support(),
            start_new_session=True,
        )


def settings(*overrides: str) -> Sequence[str]:
    return ["train", str(QUICKSTART), *once(*SMALL, *overrides)]


def ended(directory: Path, process: subprocess.Popen[str], status: int = 0) -> dict[str, Any]:
    output, _ = process.communicate(timeout=LIMIT)
    errors = (directory / "errors").read_text()
    assert process.returncode == status, errors
    assert "Traceback" not in errors
    return the_object(output)


def done(directory: Path, *arguments: str) -> dict[str, Any]:
    return ended(directory, start(directory, *arguments))


def assert_all_counted_once(summary: dict[str, Any], simulations: int = 60) -> None:
    assert summary["status"] == "done"
    counts = {"requested": simulations, "completed": simulations, "quarantined": 0}
    assert summary["simulations"] == counts
    samples = summary["samples"]
    assert samples["produced"] == samples["unique_trained"] == 10 * simulations
    assert samples["untrained"] == 0


def until_checkpoints(process: subprocess.Popen[str], run: Path, count: int) -> None:
    def written() -> bool:
        return any(int(path.name) >= count for path in (run / "checkpoints").glob("[0-9]*"))

    until(written, process)


def rank_processes() -> list[psutil.Process]:
    """Those of this process's own cluster."""
    found = psutil.Process().children(recursive=True)
    return [one for one in found if "".join(one.cmdline()).startswith("ray::RankActor")]


def weights(directory: Path) -> dict[str, Any]:
    return dict(load_file(directory / "runs/small/model/weights.safetensors"))


def test_two_ranks_see_every_sample_once_and_one_goes_on_with_what_they_had(
    tmp_path: Path,
) -> None:
    kept = [*TWO, "store.keep=all", "buffer.replay=[2, 4]"]
    first = done(tmp_path, *settings(*kept))
    assert_all_counted_once(first)
    assert first["training"]["device"] == "2 ranks of cpu"
    assert first["samples"]["stored"] == 600
    (checkpoint,) = (tmp_path / "runs/small/checkpoints").iterdir()
    names = sorted(path.name for path in checkpoint.iterdir())
    assert names == ["manifest.json", "rank-0.pt", "rank-1.pt", "run.pt"]
    errors = (tmp_path / "errors").read_text()
    assert "starting 2 training ranks with 2 solver processes" in errors
    assert in_process(tmp_path, "predict", "runs/small", *_point()).returncode == 0

    longer = ["training.ranks=1", "design.simulations=80"]
    second = done(tmp_path, "resume", "runs/small", *longer)
    assert_all_counted_once(second, 80)
    assert second["training"]["device"] == "cpu"
    assert second["training"]["steps"] > first["training"]["steps"]


def test_a_rank_that_is_killed_comes_back_with_the_others(tmp_path: Path) -> None:
    process = start(tmp_path, *settings(*TWO, *OFTEN, *held_in(tmp_path), "buffer.watermark=10"))
    until_checkpoints(process, tmp_path / "runs/small", 2)
    until(lambda: len(holders(tmp_path)) == 2, process)
    ranks = rank_processes()
    assert len(ranks) == 2
    ranks[1].kill()
    let_go(tmp_path)
    assert_all_counted_once(ended(tmp_path, process))
    errors = (tmp_path / "errors").read_text()
    assert "has died: all ranks go on from checkpoint" in errors
    assert "2 training ranks are back after" in errors
    assert not any(map(psutil.pid_exists, holders(tmp_path)))


def test_a_run_that_is_stopped_or_killed_goes_on_with_another_number_of_ranks(
    tmp_path: Path,
) -> None:
    process = start(tmp_path, *settings(*TWO, *OFTEN, *held_in(tmp_path), "buffer.watermark=10"))
    until_checkpoints(process, tmp_path / "runs/small", 2)
    until(lambda: len(holders(tmp_path)) == 2, process)
    process.send_signal(signal.SIGINT)
    stopped = ended(tmp_path, process, 130)
    assert stopped["status"] == "interrupted"
    assert stopped["samples"]["drawn"] > 0
    assert "go on with millstream resume runs/small" in (tmp_path / "errors").read_text()

    three = ["training.ranks=3", "ensemble.actors=3"]
    process = start(tmp_path, "resume", "runs/small", *three)
    until(lambda: len(holders(tmp_path)) == 5, process)
    process.kill()
    process.communicate()
    until(lambda: not rank_processes())
    let_go(tmp_path)
    assert_all_counted_once(done(tmp_path, "resume", "runs/small"))


def test_two_deterministic_runs_train_alike_to_the_bit(tmp_path: Path) -> None:
    alike = [*TWO, "deterministic=true", "buffer.kind=firo", "buffer.replay=[1, 1]"]
    alike.append("training.precision=bfloat16")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert_all_counted_once(done(tmp_path / name, *settings(*alike)))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, values in one.items():
        np.testing.assert_array_equal(two[name], values)


def test_bred_simulations_and_a_store_are_trained_on_by_two_ranks(tmp_path: Path) -> None:
    bred = "design={simulations: 60, sampler: breed, breed: {correct: true, uniform: [0.5, 0.2]}}"
    first = done(tmp_path, *settings(*TWO, "store.keep=all", bred))
    assert_all_counted_once(first)
    assert first["breeding"]["bred"] > 0
    assert first["breeding"]["bred"] + first["breeding"]["uniform"] == 60
    second = done(
        tmp_path,
        *settings(*TWO, "name=stored", "training.source=stores/small.zarr", "training.epochs=3"),
    )
    assert second["status"] == "done"
    samples = second["samples"]
    assert (samples["produced"], samples["unique_trained"], samples["drawn"]) == (600, 600, 1800)


def test_what_ends_one_rank_ends_the_run_with_its_sentence(tmp_path: Path) -> None:
    failed = ended(tmp_path, start(tmp_path, *settings(*TWO, "solver.name=failing:Bad")), 1)
    assert "more than the share of 0.05 that ensemble.max_quarantined allows" in failed["error"]
    diverged = [*TWO, "training.learning_rate=1e30", "training.optimiser=sgd"]
    failed = ended(tmp_path, start(tmp_path, *settings(*diverged)), 1)
    assert "training has diverged: the loss is" in failed["error"]
    assert not rank_processes()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.ranks=3"], "training.ranks is 3, but ensemble.actors is 2"),
        (
            ["training.ranks=2", "ensemble.actors=4", "deterministic=true"],
            "ensemble.actors is 4: samples come in a fixed order from one a rank only",
        ),
        (["training.ranks=0"], "training.ranks is 0"),
    ],
)
def test_ranks_that_cannot_be_are_refused(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    refused = in_process(tmp_path, *settings(*overrides))
    assert refused.returncode == 2
    assert message in refused.stderr


def _point() -> list[str]:
    return ["initial=150", "left=480", "right=200", "bottom=300", "top=120"]
