"""Runs that are interrupted in every way go on as if nothing had happened."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import xarray
from commands import MILLSTREAM, SMALL, in_process, once, the_object, with_support
from held import held_in, holders, let_go
from light import Light
from places import QUICKSTART
from safetensors.torch import load_file
from waiting import LIMIT, until

FEW = ["design.simulations=60", "buffer.replay=[4, 8]", "checkpoint.every_seconds=0.001"]
DETERMINISTIC = [*FEW, "deterministic=true", "ensemble.actors=1", "store.keep=none"]


def start(directory: Path, *overrides: str) -> subprocess.Popen[str]:
    with (directory / "errors").open("a") as errors:  # two at a time write to it
        return subprocess.Popen(
            [MILLSTREAM, "train", str(QUICKSTART), *once(*SMALL, *overrides), "--json"],
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=with_support(),
            start_new_session=True,  # as a shell would, for a Ctrl-C
        )


def until_checkpoints(process: subprocess.Popen[str], run: Path, count: int) -> None:
    def written() -> bool:
        return any(int(path.name) >= count for path in (run / "checkpoints").glob("[0-9]*"))

    until(written, process)


def weights(run: Path) -> dict[str, Any]:
    return dict(load_file(run / "model" / "weights.safetensors"))


def resume(directory: Path) -> dict[str, Any]:
    let_go(directory)
    ran = in_process(directory, "resume", "runs/small", "--json")
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    return the_object(ran.stdout)


def assert_all_counted_once(summary: dict[str, Any]) -> None:
    assert summary["status"] == "done"
    assert summary["simulations"] == {"requested": 60, "completed": 60, "quarantined": 0}
    samples = summary["samples"]
    assert samples["produced"] == samples["received"] == samples["unique_trained"] == 600
    assert samples["untrained"] == 0
    assert summary["training"]["steps"] == -(-samples["drawn"] // 10)


@pytest.mark.usefixtures("on_cluster")
def test_a_run_that_is_asked_to_stop_ends_soon_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    let_go(tmp_path / "whole")
    whole = start(tmp_path / "whole", *DETERMINISTIC, *held_in(tmp_path / "whole"))
    process = start(tmp_path, *DETERMINISTIC, *held_in(tmp_path))
    until_checkpoints(process, tmp_path / "runs/small", 2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    errors = (tmp_path / "errors").read_text()
    assert "go on with millstream resume runs/small" in errors
    assert "Traceback" not in errors
    interrupted = the_object(output)
    assert interrupted["status"] == "interrupted"
    assert interrupted["samples"]["drawn"] > 0

    resumed = resume(tmp_path)
    assert_all_counted_once(resumed)
    assert resumed["seconds"] > interrupted["seconds"]
    assert resumed["checkpoint"]["count"] > interrupted["checkpoint"]["count"]
    assert resumed["training"]["steps"] > interrupted["training"]["steps"]
    whole.communicate(timeout=LIMIT)
    assert whole.returncode == 0
    expected, found = (weights(at / "runs/small") for at in (tmp_path / "whole", tmp_path))
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    rows = (tmp_path / "runs/small/history.jsonl").read_text().splitlines()
    seconds = [json.loads(row)["seconds"] for row in rows]
    assert seconds == sorted(seconds)


def test_a_killed_run_goes_on_and_counts_and_stores_every_simulation_once(
    tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(tmp_path, *FEW, *held_in(tmp_path))
    until_checkpoints(process, tmp_path / "runs/small", 2)
    until(lambda: len(holders(tmp_path)) == 2, process)
    process.kill()
    process.communicate()
    until(lambda: not any(map(psutil.pid_exists, holders(tmp_path))))
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    resumed = resume(tmp_path)
    assert_all_counted_once(resumed)
    assert resumed["samples"]["stored"] == 600
    with xarray.open_zarr(tmp_path / "stores/small.zarr") as store:
        assert store.complete.values.all()
        solver = Light()
        for id in range(0, 60, 17):
            expected = np.array(list(solver.solve(store.parameters.values[id], 0)))[:, 0]
            np.testing.assert_allclose(store.temperature.values[id], expected, rtol=1e-6)

    # A run that is done: says so, and prints the same.
    again = in_process(tmp_path, "resume", "runs/small", "--json")
    assert again.returncode == 0
    assert "runs/small is done already" in again.stderr
    assert the_object(again.stdout) == resumed


@pytest.mark.usefixtures("on_cluster")
def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    process = start(tmp_path, "design.simulations=60")
    until(lambda: (tmp_path / "runs/small/study.yaml").exists(), process)
    process.kill()
    process.communicate()
    assert_all_counted_once(resume(tmp_path))


@pytest.mark.parametrize(
    ("run", "message"),
    [("runs/none", "runs/none is not the directory of a run"), (".", "it has no study.yaml")],
)
def test_what_is_not_a_run_cannot_be_resumed(tmp_path: Path, run: str, message: str) -> None:
    ran = in_process(tmp_path, "resume", run)
    assert ran.returncode == 2
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr
