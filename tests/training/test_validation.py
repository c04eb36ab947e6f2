"""The measures against plain loops, and scoring by Ray tasks: in pieces, repeated, killed."""

import json
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from numpy.typing import NDArray
from torch import Tensor
from waiting import LIMIT, until

from framework.errors import RunError
from framework.simulation.block import Block
from framework.simulation.solver_actor import checksum
from framework.training.scores import (
    Trajectories,
    measure,
    score,
    step_errors,
    summarise,
    trivial_errors,
)
from framework.training.validation import Validation
from surrogates.base import Mode, Problem, Surrogate
from surrogates.fno import Fno
from surrogates.mlp import Mlp

torch.set_num_threads(1)
Fields = NDArray[np.float32]
STEPS = 4


def make_fields(*shape: int, seed: int = 0) -> Fields:
    return np.random.default_rng(seed).normal(2, 3, shape).astype(np.float32)


def held_out(fields: Fields) -> Trajectories:
    random = np.random.default_rng(0)
    times = np.cumsum(random.uniform(0.1, 0.2, fields.shape[:2]), 1)
    parameters = random.uniform(size=(len(fields), 2))
    ids = -1 - np.arange(len(fields))
    return Trajectories(ids, parameters.astype(np.float32), times.astype(np.float32), fields)


def by_loops(predicted: Fields, reference: Fields) -> dict[str, list[list[float]]]:
    """The three measures, by their definitions, number by number."""
    found: dict[str, list[list[float]]] = {"relative_l2": [], "nrmse": [], "max": []}
    for v in range(len(reference)):
        rows: dict[str, list[float]] = {name: [] for name in found}
        for t in range(reference.shape[1]):
            error, norm, greatest, by_field = 0.0, 0.0, 0.0, []
            for c in range(reference.shape[2]):
                e2 = u2 = 0.0
                pairs = zip(predicted[v, t, c].flat, reference[v, t, c].flat, strict=True)
                for p, u in pairs:
                    e2 += (float(p) - float(u)) ** 2
                    u2 += float(u) ** 2
                    greatest = max(greatest, abs(float(p) - float(u)))
                by_field.append((e2 / u2) ** 0.5)
                error, norm = error + e2, norm + u2
            rows["relative_l2"].append((error / norm) ** 0.5)
            rows["nrmse"].append(sum(by_field) / len(by_field))
            rows["max"].append(greatest)
        for name, row in rows.items():
            found[name].append(row)
    return found


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("grid", [(7,), (4, 5), (3, 2, 4)])
def test_measures_are_their_definitions(channels: int, grid: tuple[int, ...]) -> None:
    shape = (3, STEPS, channels, *grid)
    reference, predicted = make_fields(*shape), make_fields(*shape, seed=1)
    found = measure(predicted, reference)
    for name, expected in by_loops(predicted, reference).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-12)
    if channels == 1:
        np.testing.assert_allclose(found["nrmse"], found["relative_l2"], rtol=1e-12)


def test_trivial_predictors_are_the_mean_and_the_first_fields() -> None:
    fields = make_fields(3, STEPS, 2, 5)
    mean = [[np.mean([fields[v, t] for v in range(3)], 0) for t in range(STEPS)]] * 3
    first = [[fields[v, 0]] * STEPS for v in range(3)]
    for given in (0, 1):
        found = trivial_errors(held_out(fields), given)
        # The initial field is no prediction of itself.
        for name, predicted, begin in (("mean_field", mean, given), ("initial_field", first, 1)):
            errors = by_loops(np.array(predicted)[:, begin:], fields[:, begin:])["relative_l2"]
            assert found[name] == pytest.approx(np.mean(errors), rel=1e-6)
    assert set(trivial_errors(held_out(fields[:, :1]), 0)) == {"mean_field"}


def test_a_summary_is_taken_over_trajectories() -> None:
    """Trajectory v is wrong by v %, with twice that at the first of the two times."""
    fields = make_fields(11, 2, 1, 6)
    percent = np.arange(11)[:, None, None, None] * np.array([2, 1])[:, None, None] / 100
    data = held_out(fields)
    found = summarise(measure((fields * (1 + percent)).astype(np.float32), fields), data, 1)
    expected = {"mean": 0.075, "p50": 0.075, "p90": 0.135, "p99": 0.1485, "max": 0.15}
    assert asdict(found.relative_l2) == pytest.approx(expected, rel=1e-4)
    assert found.nrmse == pytest.approx(0.075, rel=1e-4)
    assert found.simulations == 11
    at_second = {"mean": 0.05, "p50": 0.05, "p90": 0.09, "p99": 0.099, "max": 0.1}
    assert asdict(found.per_time[1].relative_l2) == pytest.approx(at_second, rel=1e-4)
    assert found.per_time[1].t == pytest.approx(data.times[:, 1].mean())
    assert found.max == max(entry.max for entry in found.per_time)


def test_a_time_without_a_reference_does_not_count() -> None:
    """Trajectory 0 is zero at first, then wrong by 20 %; trajectory 1 by 10 % at all times."""
    fields = make_fields(2, STEPS, 2, 5)
    fields[0, :3] = 0
    predicted = fields * np.array([1.2, 1.1], dtype=np.float32)[:, None, None, None]
    predicted[0, :3] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = summarise(measure(predicted, fields), held_out(fields), 1)
    assert found.relative_l2.mean == pytest.approx(0.15, rel=1e-5)
    assert found.nrmse == pytest.approx(0.15, rel=1e-5)
    assert found.per_time[0].relative_l2.mean == pytest.approx(0.1, rel=1e-5)
    assert found.per_time[3].nrmse == pytest.approx(0.15, rel=1e-5)
    # Trajectory 0 can be told from its first fields at none of the times that count.
    first = measure(fields[:, :1], fields)["relative_l2"]
    expected = (first[0, 3] + first[1, 1:].mean()) / 2
    assert found.trivial["initial_field"] == pytest.approx(expected)


def test_a_field_without_a_reference_does_not_count() -> None:
    fields = make_fields(2, STEPS, 2, 5)
    fields[:, :, 1] = 0
    predicted = 1.5 * fields + np.array([0, 1], dtype=np.float32)[:, None]
    assert measure(predicted, fields)["nrmse"] == pytest.approx(0.5)
    assert (measure(predicted, fields)["relative_l2"] > 0.5).all()


def test_fields_that_are_zero_throughout_have_no_score_and_nothing_warns() -> None:
    zero = np.zeros((2, STEPS, 1, 5), dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = summarise(measure(zero + 1, zero), held_out(zero), 1)
    assert np.isnan(
        [found.nrmse, *asdict(found.relative_l2).values(), *found.trivial.values()]
    ).all()
    assert found.max == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_prediction_that_is_no_number_counts_as_very_wrong(value: float) -> None:
    """A rollout that blew up must not be left out of the mean."""
    fields = make_fields(3, STEPS, 1, 5)
    predicted = fields.copy()
    predicted[1, 2:] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = summarise(measure(predicted, fields), held_out(fields), 1)
    assert found.relative_l2.p50 == 0
    assert found.relative_l2.mean > 1e30
    assert found.nrmse > 1e30
    assert found.max > 1e30
    json.dumps(asdict(found), allow_nan=False)


# ---- Scores of surrogates.


class Ramp(Surrogate):
    """Knows that the fields are parameter * time * (1, 2, ..., size); `factor` makes it wrong."""

    def __init__(self, problem: Problem, mode: Mode, factor: float) -> None:
        super().__init__(problem, mode)
        self.factor = factor

    def forward(self, conditions: Tensor, state: Tensor) -> Tensor:
        # The parameter and the time lie in [0, 2], the step in [0, 1].
        parameter, time = conditions[:, 0] + 1, conditions[:, 1] + 1
        span = time if self.mode == "direct" else (conditions[:, 2] + 1) / 2
        ramp = torch.arange(1, 1 + self.problem.grid[0], dtype=torch.float32)
        return (self.factor * parameter * span)[:, None, None] * ramp


def ramps(size: int, count: int) -> Trajectories:
    """Numbers that single precision holds exactly; the times 1/2, 1, 3/2, 2."""
    parameters = (np.arange(1, count + 1) / 64).astype(np.float32)
    times = np.tile(np.arange(1, STEPS + 1, dtype=np.float32) / 2, (count, 1))
    ramp = np.arange(1, 1 + size, dtype=np.float32)
    fields = (parameters[:, None] * times)[:, :, None, None] * ramp
    return Trajectories(-1 - np.arange(len(fields)), parameters[:, None], times, fields)


def ramp_surrogate(size: int, mode: Mode, factor: float) -> Surrogate:
    static = np.zeros((0, size), dtype=np.float32)
    problem = Problem(("p",), (0.0,), (2.0,), (False,), (0, 2), (0, 1), 1, (size,), static)
    return Ramp(problem, mode, factor)


@pytest.mark.parametrize("mode", ["direct", "autoregressive"])
@pytest.mark.parametrize(("size", "count"), [(5, 3), (2**17, 5)])
def test_a_surrogate_that_knows_the_answer_scores_zero(mode: Mode, size: int, count: int) -> None:
    """The large one is predicted in several pieces, the last of them smaller."""
    data = ramps(size, count)
    for name, errors in score(ramp_surrogate(size, mode, 1), data).items():
        assert not errors.any(), name


def test_a_known_error_is_found() -> None:
    data = ramps(5, 3)
    direct = score(ramp_surrogate(5, "direct", 1.25), data)
    np.testing.assert_allclose(direct["relative_l2"], np.full((3, STEPS), 0.25), rtol=1e-6)
    # By rollout: the first time is given, and then every step adds its error to those before.
    steps = score(ramp_surrogate(5, "autoregressive", 1.25), data)
    expected = (0.25 * (data.times - data.times[:, :1]) / data.times)[:, 1:]
    np.testing.assert_allclose(steps["relative_l2"], expected, rtol=1e-6)


def test_the_given_fields_are_no_prediction() -> None:
    """With two stored steps, counting the given one would halve the error."""
    data = ramps(5, 3)
    two = replace(data, times=data.times[:, :2], fields=data.fields[:, :2])
    surrogate = ramp_surrogate(5, "autoregressive", 1.25)
    found = summarise(score(surrogate, two), two, 1)
    # From time 1/2 to time 1 the ramp doubles: a quarter of the added half is an eighth.
    assert found.relative_l2.mean == pytest.approx(0.125, rel=1e-6)
    assert [entry.t for entry in found.per_time] == [1.0]
    assert found.trivial["initial_field"] == pytest.approx(0.5, rel=1e-6)


def test_the_last_time_has_a_score_of_its_own() -> None:
    data = ramps(5, 3)
    found = summarise(score(ramp_surrogate(5, "autoregressive", 1.25), data), data, 1)
    assert found.last_time is not None
    assert found.last_time.mean == pytest.approx(0.25 * 1.5 / 2, rel=1e-6)
    assert found.relative_l2.mean == pytest.approx(0.25 * np.mean([1 / 2, 2 / 3, 3 / 4]), rel=1e-6)
    assert found.relative_l2.mean < found.last_time.mean


@pytest.mark.parametrize(("size", "count"), [(5, 3), (2**17, 5)])
def test_single_steps_start_from_true_states(size: int, count: int) -> None:
    """A step adds 1/2 to the time: its error is a quarter of that, of the fields at its end."""
    found = step_errors(ramp_surrogate(size, "autoregressive", 1.25), ramps(size, count))
    expected = 0.25 * 0.5 / np.array([1.0, 1.5, 2.0])
    assert found is not None
    assert found.mean == pytest.approx(expected.mean(), rel=1e-5)
    assert found.p50 == pytest.approx(expected[1], rel=1e-5)
    assert found.max == pytest.approx(expected[0], rel=1e-5)
    assert found.std == pytest.approx(expected.std(), rel=1e-5)
    assert step_errors(ramp_surrogate(5, "direct", 1.25), ramps(5, 3)) is None


# ---- With Ray.


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
def test_trajectories_in_pieces_are_scored_once_complete() -> None:
    validation = Validation(partial(Mlp, PROBLEM), cpus=1)
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
def test_a_simulation_that_starts_anew_replaces_what_there_was_of_it() -> None:
    validation = Validation(partial(Mlp, PROBLEM), cpus=1)
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
def test_the_score_is_of_the_weights_at_submission(mode: Mode) -> None:
    make = partial(Fno, PROBLEM, mode, modes=4, hidden_channels=4, layers=1)
    validation = Validation(make, cpus=1)
    for index in range(3):
        validation.add(make_block(index, 0, STEPS), last=True)
    surrogate = make()
    surrogate.normalise_fields(torch.tensor([2.0, 1.0]), torch.tensor([3.0, 2.0]), torch.ones(2))
    expected = summarise(score(surrogate, DATA), DATA, 7, step_errors(surrogate, DATA))
    validation.submit(surrogate, 7)
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
    validation = Validation(behind_gate(tmp_path), cpus=1)
    for index in range(3):
        validation.add(make_block(index, 0, STEPS), last=True)
    validation.submit(Mlp(PROBLEM), 1)
    validation.submit(Mlp(PROBLEM), 2)
    validation.poll()
    assert validation.latest is None
    (tmp_path / "open").touch()
    final = validation.final(Mlp(PROBLEM), 3)
    assert final is not None
    assert final.step == 3
    assert len(list(tmp_path.glob("*.pid"))) == 2  # for steps 1 and 3


@with_ray
def test_a_killed_scoring_process_is_replaced(tmp_path: Path) -> None:
    validation = Validation(behind_gate(tmp_path), cpus=1)
    for index in range(3):
        validation.add(make_block(index, 0, STEPS), last=True)
    surrogate = Mlp(PROBLEM)
    validation.submit(surrogate, 5)
    until((tmp_path / "0.pid").exists)
    os.kill(int((tmp_path / "0.pid").read_text()), signal.SIGKILL)
    validation.poll(timeout=LIMIT)
    assert validation.latest == summarise(score(surrogate, DATA), DATA, 5)
    assert (tmp_path / "1.pid").exists()


@with_ray
def test_scoring_that_dies_again_and_again_is_told_and_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def die() -> Surrogate:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    validation = Validation(die, cpus=1)
    for index in range(3):
        validation.add(make_block(index, 0, STEPS), last=True)
    assert validation.final(Mlp(PROBLEM), 5) is None
    assert "the process that scores the surrogate has died" in capsys.readouterr().err


@with_ray
def test_an_error_while_scoring_says_what_the_surrogate_raised() -> None:
    def fail() -> Surrogate:
        raise ValueError("no such device")

    validation = Validation(fail, cpus=1)
    for index in range(3):
        validation.add(make_block(index, 0, STEPS), last=True)
    validation.submit(Mlp(PROBLEM), 5)
    with pytest.raises(RunError, match="scoring the surrogate failed: no such device"):
        validation.poll(timeout=LIMIT)
    validation.poll()  # the next one may work again
