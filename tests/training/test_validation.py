"""Scoring of trajectories in files: in pieces, repeated, killed."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from trajectories import STEPS, held_out, make_fields
from waiting import LIMIT, until

from framework.errors import RunError
from framework.simulation.block import Block
from framework.simulation.solver_actor import checksum
from framework.training.scores import (
    Trajectories,
    score,
    step_errors,
    summarise,
)
from framework.training.validation import Validation
from framework.training.weights import arrays_of
from surrogates.base import Mode, Problem, Surrogate
from surrogates.fno import Fno
from surrogates.mlp import Mlp

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


with_ray = pytest.mark.usefixtures("local_ray")


PROBLEM = Problem(
    ("p", "q"),
    (0.0, 0.0),
    (1.0, 1.0),
    (False, False),
    (0.0, 1.0),
    (0.1, 0.2),
    2,
    (4, 4),
    np.random.default_rng(0).normal(size=(1, 4, 4)).astype(np.float32),
)
DATA = held_out(make_fields(3, STEPS, 2, 4, 4))
OTHER = held_out(make_fields(3, STEPS, 2, 4, 4, seed=1))


def make_block(index: int, first: int, stop: int, data: Trajectories = DATA) -> Block:
    fields = data.fields[index, first:stop]
    checksums = np.array([checksum(step) for step in fields], dtype=np.uint32)
    parameters = data.parameters[index].astype(np.float64)
    times = data.times[index, first:stop].astype(np.float64)
    return Block(-1 - index, first, fields, parameters, times, checksums)


def some(data: Trajectories, *indices: int) -> Trajectories:
    chosen = [*indices]
    return Trajectories(
        data.simulations[chosen],
        data.parameters[chosen],
        data.times[chosen],
        data.fields[chosen],
    )


@with_ray
def test_trajectories_in_pieces_are_scored_once_complete(tmp_path: Path) -> None:
    validation = Validation(partial(Mlp, PROBLEM), 1, tmp_path, STEPS)
    surrogate = Mlp(PROBLEM)
    for index, first, stop in ((0, 0, 1), (1, 0, 3), (0, 1, 4), (2, 0, 2)):
        validation.add(make_block(index, first, stop), stop == STEPS)
    assert validation.final(surrogate, 1) is None  # one is complete
    validation.add(make_block(1, 3, 4), last=True)
    data = some(DATA, 0, 1)
    expected = summarise(score(surrogate, data), data, 2)
    assert validation.final(surrogate, 2) == expected
    validation.add(make_block(2, 2, 4), last=True)
    expected = summarise(score(surrogate, DATA), DATA, 3)
    assert validation.final(surrogate, 3) == expected
    assert validation.latest == expected


@with_ray
def test_a_simulation_that_starts_anew_replaces_what_there_was_of_it(tmp_path: Path) -> None:
    validation = Validation(partial(Mlp, PROBLEM), 1, tmp_path, STEPS)
    surrogate = Mlp(PROBLEM)
    validation.add(make_block(0, 0, 4), last=True)
    validation.add(make_block(1, 0, 2), last=False)
    validation.add(make_block(1, 0, 3, OTHER), last=False)  # before it was complete
    validation.add(make_block(1, 3, 4, OTHER), last=True)
    validation.final(surrogate, 1)
    validation.add(make_block(0, 0, 3, OTHER), last=False)  # and after
    validation.add(make_block(0, 3, 4, OTHER), last=True)
    data = some(OTHER, 0, 1)
    expected = summarise(score(surrogate, data), data, 2)
    assert validation.final(surrogate, 2) == expected


@with_ray
@pytest.mark.parametrize("mode", ["direct", "autoregressive"])
def test_the_score_is_of_the_weights_at_submission(
    mode: Mode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where Ray's processes are not
    make = partial(Fno, PROBLEM, mode, modes=4, hidden_channels=4, layers=1)
    validation = Validation(make, 1, Path("held_out"), STEPS)
    for index in range(3):
        validation.add(make_block(index, 0, STEPS), last=True)
    surrogate = make()
    surrogate.normalise_fields(torch.tensor([2.0, 1.0]), torch.tensor([3.0, 2.0]), torch.ones(2))
    expected = summarise(score(surrogate, DATA), DATA, 7, step_errors(surrogate, DATA))
    validation.submit(arrays_of(surrogate), 7)
    with torch.no_grad():
        for parameter in surrogate.parameters():
            parameter.zero_()
    validation.poll(timeout=None)
    # An FNO's sums may be rounded otherwise in another process, by where its arrays lie.
    assert validation.latest is not None
    assert numbers(asdict(validation.latest)) == pytest.approx(numbers(asdict(expected)), rel=1e-5)


def numbers(value: Any) -> list[float]:
    """All that a summary says, in order."""
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in numbers(value[key])]
    if isinstance(value, tuple):
        return [number for item in value for number in numbers(item)]
    return [] if value is None else [float(value)]


def behind_gate(directory: Path) -> Callable[[], Surrogate]:
    """Makes a surrogate and tells its process; the first one waits until there is a file `open`."""

    # A function inside a function is sent by Ray as it is: its processes cannot import this file.
    def make() -> Surrogate:
        attempts = len(list(directory.glob("*.pid")))
        Path(directory, "new").write_text(str(os.getpid()))
        Path(directory, "new").rename(directory / f"{attempts}.pid")
        deadline = time.monotonic() + LIMIT
        while not attempts and not Path(directory, "open").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return Mlp(PROBLEM)

    return make


@with_ray
def test_nobody_waits_for_a_score_and_one_is_computed_at_a_time(tmp_path: Path) -> None:
    validation = Validation(behind_gate(tmp_path), 1, tmp_path, STEPS)
    for index in range(3):
        validation.add(make_block(index, 0, STEPS), last=True)
    validation.submit(arrays_of(Mlp(PROBLEM)), 1)
    validation.submit(arrays_of(Mlp(PROBLEM)), 2)
    validation.poll()
    assert validation.latest is None
    (tmp_path / "open").touch()
    validation.poll(timeout=LIMIT)
    assert validation.latest is not None
    assert validation.latest.step == 1
    assert len(list(tmp_path.glob("*.pid"))) == 1
    final = validation.final(Mlp(PROBLEM), 3)
    assert final is not None
    assert final.step == 3
    assert int((tmp_path / "1.pid").read_text()) == os.getpid()  # not in a new process


@with_ray
def test_a_killed_scoring_process_is_replaced(tmp_path: Path) -> None:
    validation = Validation(behind_gate(tmp_path), 1, tmp_path, STEPS)
    for index in range(3):
        validation.add(make_block(index, 0, STEPS), last=True)
    surrogate = Mlp(PROBLEM)
    validation.submit(arrays_of(surrogate), 5)
    until((tmp_path / "0.pid").exists)
    os.kill(int((tmp_path / "0.pid").read_text()), signal.SIGKILL)
    validation.poll(timeout=LIMIT)
    assert validation.latest == summarise(score(surrogate, DATA), DATA, 5)
    assert (tmp_path / "1.pid").exists()


@with_ray
def test_scoring_that_dies_again_and_again_is_told_and_left_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def die() -> Surrogate:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    validation = Validation(die, 1, tmp_path, STEPS)
    for index in range(3):
        validation.add(make_block(index, 0, STEPS), last=True)
    validation.submit(arrays_of(Mlp(PROBLEM)), 5)
    validation.poll(timeout=LIMIT)
    assert validation.latest is None
    assert "the process that scores the surrogate has died" in capsys.readouterr().err


@with_ray
def test_an_error_while_scoring_says_what_the_surrogate_raised(tmp_path: Path) -> None:
    def fail() -> Surrogate:
        raise ValueError("no such device")

    validation = Validation(fail, 1, tmp_path, STEPS)
    for index in range(3):
        validation.add(make_block(index, 0, STEPS), last=True)
    validation.submit(arrays_of(Mlp(PROBLEM)), 5)
    with pytest.raises(RunError, match="scoring the surrogate failed: no such device"):
        validation.poll(timeout=LIMIT)
    validation.poll()  # the next one may work again
    with pytest.raises(RunError, match="scoring the surrogate failed: no such device"):
        validation.final(Mlp(PROBLEM), 6)
