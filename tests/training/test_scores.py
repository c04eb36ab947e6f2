"""The measures of errors, against plain loops and on surrogates whose errors are known."""

import json
import warnings
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import Tensor
from trajectories import STEPS, Fields, held_out, make_fields

from framework.training.scores import (
    Trajectories,
    measure,
    score,
    step_errors,
    summarise,
    trivial_errors,
)
from surrogates.base import Mode, Problem, Surrogate

torch.set_num_threads(1)


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
