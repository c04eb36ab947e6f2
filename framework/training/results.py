"""The scores of a surrogate as plain data, without torch; scores.py defines the measures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Distribution:
    """Mean, percentiles and maximum over trajectories; all NaN where nothing is finite."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True)
class StepErrors:
    """Mean, percentiles, maximum and standard deviation over single predicted steps."""

    mean: float
    p50: float
    p99: float
    max: float
    std: float


@dataclass(frozen=True)
class TimeScores:
    """The scores at one predicted time; `t` is its mean over the trajectories."""

    t: float
    relative_l2: Distribution
    nrmse: float
    max: float


@dataclass(frozen=True)
class Scores:
    """The scores of a surrogate after `step` optimiser steps, over the times that it predicts.

    `last_time` and `one_step` are None in the scores of runs made before they were measured;
    `one_step` also in mode `direct`, which does not go from step to step.
    """

    step: int
    simulations: int
    median_simulation: int  # the id of the one whose relative L2 error is the median
    relative_l2: Distribution
    nrmse: float
    max: float
    trivial: dict[str, float]  # see `scores.trivial_errors`
    per_time: tuple[TimeScores, ...]  # the predicted times
    last_time: Distribution | None = None  # relative L2 at the last time
    one_step: StepErrors | None = None  # relative L2 of one step from a true state
