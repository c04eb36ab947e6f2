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

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from framework.training.results import Distribution, Scores, StepErrors, TimeScores
from surrogates.base import Surrogate

# How many grid points are predicted at once, to bound the memory of scoring.
_CHUNK_POINTS = 2**18


@dataclass(frozen=True)
class Trajectories:
    """Held-out simulations as the solver computed them."""

    simulations: NDArray[np.int64]  # [V]
    parameters: NDArray[np.float32]  # [V, p]
    times: NDArray[np.float32]  # [V, T]
    fields: NDArray[np.float32]  # [V, T, C, *grid]


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
    predicted = np.empty_like(held_out.fields)
    chunk = max(1, _CHUNK_POINTS // held_out.fields[0, 0].size)
    for start in range(0, len(predicted), chunk):
        part = slice(start, start + chunk)
        rollout = surrogate.rollout(
            torch.tensor(held_out.parameters[part]),
            torch.tensor(held_out.times[part]),
            torch.tensor(held_out.fields[part, 0]),
        )
        for step, fields in enumerate(rollout):
            predicted[part, step] = fields.numpy()
    given = surrogate.given_times
    return measure(predicted[:, given:], held_out.fields[:, given:])


@torch.no_grad()
def step_errors(surrogate: Surrogate, held_out: Trajectories) -> StepErrors | None:
    """Return the errors of single steps from true states; None of a surrogate in mode `direct`."""
    if surrogate.mode == "direct":
        return None
    errors = []
    chunk = max(1, _CHUNK_POINTS // held_out.fields[0, 0].size)
    starts = held_out.fields.shape[1] - surrogate.bundle
    for first in range(0, len(held_out.fields), chunk):
        part = slice(first, first + chunk)
        for start in range(starts):
            rollout = surrogate.rollout(
                torch.tensor(held_out.parameters[part]),
                torch.tensor(held_out.times[part, start : start + surrogate.bundle + 1]),
                torch.tensor(held_out.fields[part, start]),
            )
            next(rollout)  # the given fields
            predicted = next(rollout).numpy()[:, None]
            truth = held_out.fields[part, start + 1 : start + 2]
            errors.append(measure(predicted, truth)["relative_l2"])
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
    fields, later = held_out.fields[:, first:], held_out.fields[:, 1:]
    mean = fields.mean(0, keepdims=True, dtype=np.float64).astype(np.float32)
    found = {"mean_field": mean_score(measure(mean, fields)["relative_l2"])}
    if later.shape[1]:
        initial = measure(held_out.fields[:, :1], later)
        found["initial_field"] = mean_score(initial["relative_l2"])
    return found


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
