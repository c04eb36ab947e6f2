"""What is noted of a solver's static fields, so that others are noticed: they may come from files.

Their bits cannot be noted: another processor rounds the products that make them otherwise. Noted
are two sums with random weights, which agree within rounding, and which no change of the fields
leaves as they were. Stores of before have a hash of the bits instead.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.study.streams import Stream, generator
from solvers.base import Solver

# Of single precision at each point of a field, in units of its largest value: several roundings.
_POINT_ROUNDING = 1e-6


def static_sums(solver: Solver) -> dict[str, list[float]]:
    """Return what is noted of each static field, by name."""
    return {name: _sums(values) for name, values in solver.static_fields.items()}


def changed_static_fields(noted: Mapping[str, Any], solver: Solver) -> list[str]:
    """Return the names of the fields that were noted and are others now, or gone.

    Where a hash was noted, another processor's rounding counts as a change: see `has_only_hash`.
    """
    here = solver.static_fields
    return [name for name in noted if name not in here or not _agree(noted[name], here[name])]


def has_only_hash(noted: Any) -> bool:
    """Return whether of a field there is only a hash, which says nothing about how much differs."""
    return isinstance(noted, str)


def _agree(noted: Any, values: NDArray[np.float32]) -> bool:
    if has_only_hash(noted):
        bits = np.ascontiguousarray(values).tobytes()
        return bool(noted == hashlib.sha256(bits).hexdigest()[:16])
    tolerance = _POINT_ROUNDING * float(np.abs(values).max()) * values.size**0.5
    return np.allclose(noted, _sums(values), rtol=0, atol=tolerance)


def _sums(values: NDArray[np.float32]) -> list[float]:
    flat = np.asarray(values, dtype=np.float64).ravel()
    weights = (generator(0, Stream.STATIC, index).random(flat.size) - 0.5 for index in range(2))
    return [float(flat @ each) for each in weights]
