"""The errors of a surrogate on held-out trajectories, by three measures.

Shapes: V held-out simulations, T stored times, P of them predicted, C fields, p parameters, `*grid`
the grid's axes.
With e the error and u the reference of one simulation at one time:
- relative L2: ||e|| / ||u|| over all fields and points,
- nRMSE: for each field RMSE(e) / RMS(u), averaged over the fields, as PDEBench defines it
  (arXiv 2210.07182); with one field it equals the relative L2,
- max: the greatest |e|, in the field's units.
A trajectory's score is the mean over its P predicted times: all T of them in mode `direct`; in mode
`autoregressive` all but the first, whose fields are given. Means and percentiles are taken over
trajectories. Beside it stand the relative L2 at the last time, and, of an autoregressive surrogate,
the relative L2 of one step: predicted from the true fields at one stored time, at the next. Of
several steps predicted at once (K, a bundle) it is the first, and the steps are those after which K
more times are stored. Where u is zero there is no relative error: such a time does not count. A
prediction that is infinite or not a number counts as the greatest number of single precision.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from framework.training.results import Distribution, Scores, StepErrors, TimeScores
from surrogates.base import Surrogate

# How many grid points are predicted at once, to bound the memory of scoring.
_CHUNK_POINTS = 2**16
# How many bytes of true fields are held at once, or one step of one trajectory if that is more. The
# work on them in double precision takes about eight times as much.
PART_BYTES = 2**23


class TrueFields(Protocol):
    """Fields [V, T, C, *grid]: an array, or files that are read in parts."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes."""

    def __getitem__(self, part: tuple[slice, slice], /) -> NDArray[np.float32]:
        """Return the fields of a range of simulations and a range of times."""


@dataclass(frozen=True)
class Trajectories:
    """Held-out simulations as the solver computed them."""

    simulations: NDArray[np.int64]  # [V]
    parameters: NDArray[np.float32]  # [V, p]
    times: NDArray[np.float32]  # [V, T]
    fields: TrueFields  # [V, T, C, *grid]


# The errors of one predictor: name of the measure -> [V, P].
Errors = dict[str, NDArray[np.float64]]


def measure(predicted: NDArray[np.float32], reference: NDArray[np.float32]) -> Errors:
    """Return the errors of fields [V, T, C, *grid]; an axis of `predicted` may have length 1."""
    worst = float(np.finfo(np.float32).max)
    finite = np.nan_to_num(predicted.astype(np.float64), nan=worst, posinf=worst, neginf=-worst)
    error = finite - reference
    points = tuple(range(3, reference.ndim))
    squared_error = np.square(error).sum(points)  # [V, T, C]
    squared_norm = np.square(reference, dtype=np.float64).sum(points)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.sqrt(squared_error.sum(-1) / squared_norm.sum(-1))
        by_field = np.sqrt(squared_error / squared_norm)
    relative[squared_norm.sum(-1) == 0] = np.nan
    by_field[squared_norm == 0] = np.nan
    return {
        "relative_l2": relative,
        "nrmse": _finite_mean(by_field, -1),
        "max": np.abs(error).max((2, *points)),
    }


@torch.no_grad()
def score(surrogate: Surrogate, held_out: Trajectories) -> Errors:
    """Return a surrogate's errors at the times that it predicts, from a rollout."""
    errors = []
    for part in _chunks(held_out):
        rollout = surrogate.rollout(
            torch.tensor(held_out.parameters[part]),
            torch.tensor(held_out.times[part]),
            torch.tensor(held_out.fields[part, :1][:, 0]),
        )
        errors.append(_joined([*_rollout_errors(rollout, held_out, part)], 1))
    given = surrogate.given_times
    return {name: values[:, given:] for name, values in _joined(errors, 0).items()}


def _rollout_errors(
    rollout: Iterator[torch.Tensor], held_out: Trajectories, part: slice
) -> Iterator[Errors]:
    """Yield the errors of a rollout of some trajectories, some times after the others."""
    for steps in _ranges(0, held_out.fields.shape[1], _steps_at_once(held_out, part)):
        truth = held_out.fields[part, steps]
        predicted = [next(rollout).numpy() for _ in range(truth.shape[1])]
        yield measure(np.stack(predicted, 1).astype(np.float32, copy=False), truth)


@torch.no_grad()
def step_errors(surrogate: Surrogate, held_out: Trajectories) -> StepErrors | None:
    """Return the errors of single steps from true states; None of a surrogate in mode `direct`."""
    if surrogate.mode == "direct":
        return None
    errors = []
    starts = held_out.fields.shape[1] - surrogate.bundle
    for part in _chunks(held_out):
        following = held_out.fields[part, :1]
        for start in range(starts):
            current, following = following, held_out.fields[part, start + 1 : start + 2]
            rollout = surrogate.rollout(
                torch.tensor(held_out.parameters[part]),
                torch.tensor(held_out.times[part, start : start + surrogate.bundle + 1]),
                torch.tensor(current[:, 0]),
            )
            next(rollout)  # the given fields
            predicted = next(rollout).numpy()[:, None]
            errors.append(measure(predicted, following)["relative_l2"])
    found = np.concatenate([part.ravel() for part in errors])
    found = found[np.isfinite(found)]
    if not len(found):
        return StepErrors(*[float("nan")] * 5)
    p50, p99, greatest = map(float, np.percentile(found, (50, 99, 100)))
    return StepErrors(float(found.mean()), p50, p99, greatest, float(found.std()))


def trivial_errors(held_out: Trajectories, first: int) -> dict[str, float]:
    """Return the mean relative L2 of two predictors that know nothing of the physics, by name.

    `mean_field` predicts, at each of the times `first` and later, the mean of the held-out
    trajectories themselves: the best that any fixed field can do. `initial_field` predicts the
    first stored step at all later times; where no other is stored, it does not exist.
    """
    fields = held_out.fields
    count, stored, *shape = fields.shape
    at_once = max(1, PART_BYTES // (4 * math.prod(shape)))  # steps of one trajectory
    groups = [*_ranges(0, count, max(1, at_once // stored))]
    by_mean, by_initial = [], []
    for steps in _ranges(first, stored, at_once):
        total = np.zeros((), dtype=np.float64)
        for part in groups:
            total = total + fields[part, steps].sum(0, keepdims=True, dtype=np.float64)
        mean = (total / count).astype(np.float32)
        by_mean.append(_joined([measure(mean, fields[part, steps]) for part in groups], 0))
    for part in groups if stored > 1 else ():
        initial = fields[part, :1]
        later = [measure(initial, fields[part, at]) for at in _ranges(1, stored, at_once)]
        by_initial.append(_joined(later, 1))
    found = {"mean_field": mean_score(_joined(by_mean, 1)["relative_l2"])}
    if by_initial:
        found["initial_field"] = mean_score(_joined(by_initial, 0)["relative_l2"])
    return found


def _chunks(held_out: Trajectories) -> Iterator[slice]:
    """Yield the ranges of trajectories that are predicted at once."""
    count, _, *shape = held_out.fields.shape
    return _ranges(0, count, max(1, _CHUNK_POINTS // math.prod(shape)))


def _steps_at_once(held_out: Trajectories, part: slice) -> int:
    """Return how many steps of some trajectories are held at once."""
    count = len(held_out.simulations[part])
    return max(1, PART_BYTES // (4 * count * math.prod(held_out.fields.shape[2:])))


def _ranges(first: int, stop: int, size: int) -> Iterator[slice]:
    """Yield ranges of up to `size` numbers, from `first` to `stop`."""
    return (slice(start, min(start + size, stop)) for start in range(first, stop, size))


def _joined(errors: Sequence[Errors], axis: int) -> Errors:
    """Join errors of different trajectories (axis 0) or times (axis 1)."""
    return {name: np.concatenate([one[name] for one in errors], axis) for name in errors[0]}


def summarise(
    errors: Errors, held_out: Trajectories, step: int, one_step: StepErrors | None = None
) -> Scores:
    """Return the scores, overall and at each predicted time, after `step` optimiser steps."""
    relative = errors["relative_l2"]
    first = held_out.times.shape[1] - relative.shape[1]
    by_error = np.argsort(_finite_mean(relative, 1))
    return Scores(
        step=step,
        simulations=len(relative),
        median_simulation=int(held_out.simulations[by_error[(len(relative) - 1) // 2]]),
        relative_l2=_distribution(_finite_mean(relative, 1)),
        nrmse=mean_score(errors["nrmse"]),
        max=float(errors["max"].max()),
        trivial=trivial_errors(held_out, first),
        per_time=tuple(
            TimeScores(
                t=float(held_out.times[:, first + index].mean()),
                relative_l2=_distribution(relative[:, index]),
                nrmse=float(_finite_mean(errors["nrmse"][:, index], 0)),
                max=float(errors["max"][:, index].max()),
            )
            for index in range(relative.shape[1])
        ),
        last_time=_distribution(relative[:, -1]),
        one_step=one_step,
    )


def mean_score(errors: NDArray[np.float64]) -> float:
    """Return the mean over trajectories of the scores of errors [V, P]."""
    return float(_finite_mean(_finite_mean(errors, 1), 0))


def _finite_mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Return the mean of the values that are not NaN; NaN where none is left."""
    count = np.isfinite(values).sum(axis)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.nansum(values, axis) / count
    return mean


def _distribution(values: NDArray[np.float64]) -> Distribution:
    """Return the distribution of the finite values [V]."""
    values = values[np.isfinite(values)]
    if not len(values):
        return Distribution(*[float("nan")] * 5)
    return Distribution(float(values.mean()), *map(float, np.percentile(values, (50, 90, 99, 100))))
