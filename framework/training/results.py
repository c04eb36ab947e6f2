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
class TimeScores:
    """The scores at one stored time; `t` is its mean over the trajectories."""

    t: float
    relative_l2: Distribution
    nrmse: float
    max: float


@dataclass(frozen=True)
class Scores:
    """The scores of a surrogate after `step` optimiser steps."""

    step: int
    simulations: int
    median_simulation: int  # the id of the one whose relative L2 error is the median
    relative_l2: Distribution
    nrmse: float
    max: float
    trivial: dict[str, float]  # see `scores.trivial_errors`
    per_time: tuple[TimeScores, ...]  # [T]
