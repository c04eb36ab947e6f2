"""One held-out simulation and its prediction, with their heading.

Shapes: T stored times, C fields, p parameters, n points along axis 0, `*grid` the grid's axes.
"""

import math
import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.pictures.style import point
from framework.study.ids import held_out_number
from framework.training.scores import measure
from solvers.base import Field, Grid, ParameterSpace

SHOWN_FIELDS = 3
_SHOWN_TIMES = 5


@dataclass(frozen=True)
class Comparison:
    """One held-out simulation as the solver computed it, and as the surrogate predicts it.

    T may be only the times that are drawn, see `drawn_times`.
    """

    simulation: int  # its id, which is negative
    parameters: NDArray[np.floating[Any]]  # [p]
    times: NDArray[np.floating[Any]]  # [T]
    truth: NDArray[np.float32]  # [T, C, *grid]
    predicted: NDArray[np.float32]  # [T, C, *grid]
    space: ParameterSpace
    fields: tuple[Field, ...]
    grid: Grid
    given: int = 0  # how many of the first times were given, and not predicted
    # Relative L2 errors at every stored time, where those above are only some; NaN where given.
    all_errors: NDArray[np.float64] | None = None

    def relative_l2(self) -> NDArray[np.float64]:
        """Return the relative L2 error at each time [T].

        It is NaN where the truth is zero, and at the times that were given.
        """
        errors: NDArray[np.float64]
        (errors,) = measure(self.predicted[None], self.truth[None])["relative_l2"]
        errors[: self.given] = np.nan
        return errors

    def slice(self) -> int:
        """Return the slice across axis 0 of a 3-D grid in which the truth changes most over time.

        Each field counts alike. If nothing changes, it is the middle slice.
        """
        changes = np.square(self.truth - self.truth[:1], dtype=np.float64).sum((0, 3, 4))  # [C, n]
        shares = changes / np.maximum(changes.sum(1, keepdims=True), np.finfo(float).tiny)
        return int(shares.sum(0).argmax()) if shares.any() else self.grid.shape[0] // 2


def drawn_times(stored: int, grid: Grid) -> NDArray[np.int64]:
    """Return which of the stored times are drawn: some, or all of fields of a single point."""
    if math.prod(grid.shape) == 1:
        return np.arange(stored)
    return np.unique(np.linspace(0, stored - 1, _SHOWN_TIMES).round().astype(np.int64))


def heading(comparison: Comparison, width: int) -> list[str]:
    """Describe the picture, in lines of up to `width` characters."""
    errors = comparison.relative_l2() if comparison.all_errors is None else comparison.all_errors
    error = error_text(float(np.nanmean(errors)) if np.isfinite(errors).any() else np.nan)
    what = (
        f"Held-out simulation {held_out_number(comparison.simulation)}, the median by error: "
        f"relative L2 {error} over its {len(errors) - comparison.given} predicted times"
    )
    if len(comparison.grid.shape) == 3:
        what += f"; slice {comparison.slice()} of axis 0, where most changes"
    if len(comparison.fields) > SHOWN_FIELDS:
        what += f"; the first {SHOWN_FIELDS} of {len(comparison.fields)} fields"
    values = point(comparison.space, comparison.parameters)
    return [
        textwrap.shorten(what, width, placeholder=" ..."),
        *textwrap.wrap(values, width, max_lines=3, placeholder=" ..."),
    ]


def error_text(error: float) -> str:
    """Return a relative error in per cent, or words if it is unknown or without bounds."""
    if not np.isfinite(error):
        return "unknown"  # the truth is zero
    return f"{100 * error:.3g} %" if error < 1e4 else "beyond all bounds"
