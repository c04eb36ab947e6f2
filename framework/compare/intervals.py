"""The improvement of one arm over another, with intervals paired by seed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import t

_CONFIDENCE = 0.95


def half_interval(values: Sequence[float]) -> float:
    """Return half of Student's 95 % interval for the mean of two values or more."""
    n = len(values)
    return float(t.ppf((1 + _CONFIDENCE) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))


def improvement(errors: Sequence[float], others: Sequence[float]) -> dict[str, Any]:
    """Return the part by which `errors` [n] are lower than `others` [n], seed by seed.

    It is 1 - the geometric mean of the ratios error / other, with the interval of Student's t for
    the mean of their logarithms: anything common to all arms of a seed cancels. With fewer than
    three pairs there is no interval (None), with none no mean.
    """
    pairs = [(a, b) for a, b in zip(errors, others, strict=True) if np.isfinite([a, b]).all()]
    if not pairs:
        return {"mean": None, "ci95": None}
    tiny = np.finfo(float).tiny
    logs = np.array([np.log(max(a, tiny)) - np.log(max(b, tiny)) for a, b in pairs])
    mean = logs.mean()
    found: dict[str, Any] = {"mean": float(-np.expm1(mean)), "ci95": None}
    if len(pairs) >= 3:
        half = half_interval(logs.tolist())
        found["ci95"] = [float(-np.expm1(mean + half)), float(-np.expm1(mean - half))]
    return found
