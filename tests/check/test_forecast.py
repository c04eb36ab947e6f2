"""`millstream check STUDY`: one call of the solver, some optimiser steps, and what follows."""

from pathlib import Path
from typing import Any

import pytest
from commands import SMALL, in_process, once, the_object
from places import QUICKSTART

STEP_BYTES = 4 * 16 * 16


def check(directory: Path, *overrides: str) -> tuple[int, str, str]:
    ran = in_process(directory, "check", str(QUICKSTART), *once(*SMALL, *overrides))
    return ran.returncode, " ".join(ran.stdout.split()), ran.stderr


def forecast(directory: Path, *overrides: str) -> dict[str, Any]:
    ran = in_process(directory, "check", str(QUICKSTART), *once(*SMALL, *overrides), "--json")
    assert ran.returncode == 0, ran.stderr
    return the_object(ran.stdout)


def test_a_study_is_tried_and_its_run_foretold(tmp_path: Path) -> None:
    status, text, told = check(tmp_path)
    assert status == 0
    assert "one call of the solver and some optimiser steps worked" in text
    assert "for 2 simulations; in all" in text
    assert "Starting and ending will take most of the time" in text  # it is that small
    assert "calling the solver light:Light once" in told
    assert not list(tmp_path.iterdir())  # nothing is left


def test_memory_disk_and_steps_follow_from_the_study(tmp_path: Path) -> None:
    found = forecast(tmp_path, "surrogate={name: mlp, hidden: [8], mode: autoregressive}")
    assert found["buffer_bytes"] == 120 * 2 * STEP_BYTES  # a window of two steps
    assert found["held_out_bytes"] == 4 * 10 * STEP_BYTES  # on the disk
    assert found["store_bytes"] == 40 * 10 * STEP_BYTES
    assert found["store"] == str(tmp_path / "stores/small.zarr")
    least = 40 * 9 // 10
    assert least <= found["steps"] <= 4 * least  # buffer.replay is [1, 4]
    assert found["training_seconds"] == pytest.approx(
        found["steps"] * found["tried"]["step_seconds"]
    )
    assert found["seconds"] == max(found["training_seconds"], found["solving_seconds"])
    calls = 44 / 2 / found["processes"]
    assert found["solving_seconds"] == pytest.approx(calls * found["tried"]["call_seconds"])


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        (["training.stop={steps: 77}"], 77),
        (["training.stop={samples: 77}"], 8),
        (["training.stop={steps: 1000}"], 160),  # each of 400 samples is drawn 4 times at most
        (["buffer.replay=[2, 2]"], 80),
    ],
)
def test_the_steps_are_those_of_the_stop(tmp_path: Path, overrides: list[str], steps: int) -> None:
    assert forecast(tmp_path, *overrides)["steps"] == steps


def test_a_stop_that_comes_early_needs_few_simulations(tmp_path: Path) -> None:
    found = forecast(tmp_path, "design.simulations=100000", "training.stop={steps: 10}")
    # 100 draws of at least 25 samples, beyond a watermark of 40, of 10 stored steps each.
    calls = (4 + 7) / 2 / found["processes"]
    assert found["solving_seconds"] == pytest.approx(calls * found["tried"]["call_seconds"])


def test_a_store_may_keep_less_or_nothing(tmp_path: Path) -> None:
    halves = forecast(tmp_path, "store.keep=2", "store.dtype=float16")
    assert halves["store_bytes"] == 40 * 5 * STEP_BYTES // 2
    none = forecast(tmp_path, "store.keep=none")
    assert (none["store"], none["store_bytes"]) == (None, 0)


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    status, text, _ = check(tmp_path, "buffer.capacity=10000000000000")
    assert status == 0
    assert "Beware: the buffer takes 10.2 PB, and this machine has" in text
    assert "lower buffer.capacity (now 10000000000000)" in text
    status, text, _ = check(tmp_path, "validation.simulations=10000000000000")
    assert status == 0
    assert "Beware: the held-out simulations take 102 PB, and the disk of this directory" in text
    assert "lower validation.simulations (now 10000000000000)" in text


def test_a_solver_that_fails_is_told_with_its_parameters(tmp_path: Path) -> None:
    status, text, told = check(tmp_path, "solver={name: 'failing:Bad', grid_size: 16}")
    assert (status, text) == (1, "")
    assert "fails at step 4: " in told
    assert "initial = " in told


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["surrogate={name: fno, modes: 17}"], "modes is 17, but a grid of"),
        (["training.batchsize=3"], "is not a setting"),
        (["training.source=/nowhere.zarr"], "/nowhere.zarr"),
        (["training.initial=/nowhere"], "/nowhere is not the directory of a run"),
    ],
)
def test_a_wrong_study_is_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    status, _, told = check(tmp_path, *overrides)
    assert status == 2
    assert message in told
