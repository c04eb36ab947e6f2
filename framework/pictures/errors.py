"""Truth, prediction and error of one held-out simulation, at several times.

Shapes: T stored times, K of them drawn, C fields, p parameters, `*grid` the grid's axes (one to
three).
"""

import math
import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from framework.pictures.style import BLUE, GREY, VERMILLION, in_units, named, point
from framework.study.ids import held_out_number
from framework.training.scores import measure
from solvers.base import Field, Grid, ParameterSpace

# How many of the times and of the fields are drawn.
_TIMES, _FIELDS = 5, 3
# Inches: a panel's width, between panels, around them, a line of text.
_PANEL, _GAP, _LEFT, _RIGHT, _BOTTOM, _LINE = 1.85, 0.12, 0.85, 1.0, 0.6, 0.2


@dataclass(frozen=True)
class Comparison:
    """One held-out simulation as the solver computed it, and as the surrogate predicts it."""

    simulation: int  # its id, which is negative
    parameters: NDArray[np.floating[Any]]  # [p]
    times: NDArray[np.floating[Any]]  # [T]
    truth: NDArray[np.float32]  # [T, C, *grid]
    predicted: NDArray[np.float32]  # [T, C, *grid]
    space: ParameterSpace
    fields: tuple[Field, ...]
    grid: Grid

    def relative_l2(self) -> NDArray[np.float64]:
        """The relative L2 error at each time [T]; NaN where the truth is zero."""
        errors: NDArray[np.float64]
        (errors,) = measure(self.predicted[None], self.truth[None])["relative_l2"]
        return errors

    def slice(self) -> int:
        """Across axis 0 of a 3-D grid, the slice in which the truth changes most over time, each
        field counting alike; the middle one if nothing changes."""
        changes = np.square(self.truth - self.truth[:1], dtype=np.float64).sum((0, 3, 4))  # [C, n]
        shares = changes / np.maximum(changes.sum(1, keepdims=True), np.finfo(float).tiny)
        return int(shares.sum(0).argmax()) if shares.any() else self.grid.shape[0] // 2


def draw_comparison(comparison: Comparison) -> Figure:
    """A column for each time, and for each field some rows; of a 3-D field one slice.

    On a grid of one point, each field over time.
    """
    if math.prod(comparison.grid.shape) == 1:
        return _draw_courses(comparison)
    times = np.unique(np.linspace(0, len(comparison.times) - 1, _TIMES).round().astype(int))
    panels = _Panels(comparison, len(times))
    at = comparison.slice() if len(comparison.grid.shape) == 3 else 0
    errors = comparison.relative_l2()[times]
    for axes, t, error in zip(panels.axes[0], comparison.times[times], errors, strict=True):
        axes.set_title(f"t = {t:.3g}\nrelative L2 {_percent(error)}", loc="center")
    for channel in range(panels.fields):
        truth, predicted = (
            _drawable(fields[times, channel], at)
            for fields in (comparison.truth, comparison.predicted)
        )
        if panels.lines:
            _draw_lines(panels, channel, truth, predicted)
        else:
            _draw_images(panels, channel, truth, predicted)
    return panels.figure


def _draw_courses(comparison: Comparison) -> Figure:
    fields = comparison.fields[:_FIELDS]
    figure = Figure(figsize=(9.0, 1.9 * len(fields) + 0.8), layout="constrained")
    panels = figure.subplots(len(fields), 1, sharex=True, squeeze=False)[:, 0]
    for channel, (axes, field) in enumerate(zip(panels, fields, strict=True)):
        truth = comparison.truth[:, channel].reshape(-1)
        predicted = comparison.predicted[:, channel].reshape(-1)
        axes.plot(comparison.times, truth, color=GREY, linewidth=3, alpha=0.6, label="truth")
        axes.plot(comparison.times, predicted, color=VERMILLION, linewidth=1.3, label="prediction")
        axes.set_ylabel(named(field))
        axes.grid(True)
        axes.margins(x=0)
    panels[0].legend(loc="best", ncols=2)
    panels[-1].set_xlabel("time")
    figure.suptitle("\n".join(_heading(comparison, 110)), x=0.01, ha="left", fontsize=10)
    return figure


class _Panels:
    """A figure with panels of one size, placed by hand: that is fast, and pictures are alike."""

    def __init__(self, comparison: Comparison, columns: int) -> None:
        self.comparison = comparison
        self.lines = len(comparison.grid.shape) == 1
        self.fields = min(len(comparison.fields), _FIELDS)
        self.extent = _extent(comparison.grid)
        left, right, lower, upper = self.extent
        shape = 0.8 if self.lines else (upper - lower) / (right - left)
        self.to_scale = 0.25 <= shape <= 2
        self._height = _PANEL * min(max(shape, 0.45), 2)
        self._rows = 2 if self.lines else 3  # of a field
        width = _LEFT + columns * (_PANEL + _GAP) + (0 if self.lines else _RIGHT)
        heading = _heading(comparison, int(11 * width))
        self._block = self._rows * (self._height + _GAP) + _BOTTOM
        self._top = 0.65 + len(heading) * _LINE
        self._size = (width, self._top + self.fields * self._block)
        self.figure = Figure(figsize=self._size)
        for line, text in enumerate(heading):
            y = 1 - (0.1 + line * _LINE) / self._size[1]
            weight = "normal" if line else "bold"
            self.figure.text(0.1 / width, y, text, va="top", fontsize=10, weight=weight)
        self.axes = [
            [self._panel(channel, row, column) for column in range(columns)]
            for channel in range(self.fields)
            for row in range(self._rows)
        ]

    def of_field(self, channel: int) -> list[list[Axes]]:
        """The rows of a field."""
        return self.axes[channel * self._rows : (channel + 1) * self._rows]

    def colour_bar(self, image: AxesImage, channel: int, first: int, last: int, label: str) -> None:
        """At the right of the rows `first` to `last` of a field."""
        place = [_LEFT + len(self.axes[0]) * (_PANEL + _GAP), self._bottom(channel, last)]
        height = (last - first + 1) * (self._height + _GAP) - _GAP
        axes = self.figure.add_axes(self._relative(*place, 0.13, height))
        bar = self.figure.colorbar(image, cax=axes, extend="both" if first else "neither")
        bar.set_label(label)
        bar.outline.set_visible(False)
        bar.locator = MaxNLocator(5)
        bar.update_ticks()

    def _panel(self, channel: int, row: int, column: int) -> Axes:
        left = _LEFT + column * (_PANEL + _GAP)
        place = self._relative(left, self._bottom(channel, row), _PANEL, self._height)
        axes = self.figure.add_axes(place)
        lowest = row == self._rows - 1
        axes.tick_params(labelleft=column == 0, labelbottom=lowest, length=2.5, labelsize=8.5)
        if lowest and column == 0:
            last, units = len(self.comparison.grid.shape) - 1, self.comparison.grid.units
            label = "axis 0" if self.lines else f"axis {last} across, axis {last - 1} up"
            axes.set_xlabel(label + in_units(units), loc="left", labelpad=2)
        return axes

    def _bottom(self, channel: int, row: int) -> float:
        above = self._top + channel * self._block + (row + 1) * (self._height + _GAP) - _GAP
        return self._size[1] - above

    def _relative(self, *inches: float) -> tuple[float, float, float, float]:
        left, bottom, width, height = inches
        return (
            left / self._size[0],
            bottom / self._size[1],
            width / self._size[0],
            height / self._size[1],
        )


def _draw_lines(
    panels: _Panels, channel: int, truth: NDArray[np.float32], predicted: NDArray[np.float32]
) -> None:
    """Fields [K, points]: truth and prediction in one row, the error in another."""
    x = np.arange(truth.shape[1]) * panels.comparison.grid.spacing[0]
    upper, lower = panels.of_field(channel)
    both, error = (truth, predicted), predicted - truth
    for column, (above, below) in enumerate(zip(upper, lower, strict=True)):
        above.plot(x, truth[column], color=GREY, linewidth=3, alpha=0.6, label="truth")
        above.plot(x, predicted[column], color=VERMILLION, linewidth=1.3, label="prediction")
        below.axhline(0, color=GREY, linewidth=0.8)
        below.plot(x, error[column], color=BLUE, linewidth=1.3)
        above.set_ylim(*_span(*both))
        below.set_ylim(*_span(error, -error))
        for axes in (above, below):
            axes.grid(True)
            axes.margins(x=0)
            axes.set_xticks(_ticks(x[-1]))
            axes.yaxis.set_major_locator(MaxNLocator(4))
    field = panels.comparison.fields[channel]
    upper[0].set_ylabel(named(field))
    lower[0].set_ylabel("error" + in_units(field.units))
    if channel == 0:
        upper[0].legend(loc="best", fontsize=8, handlelength=1.2, borderpad=0.1)


def _draw_images(
    panels: _Panels, channel: int, truth: NDArray[np.float32], predicted: NDArray[np.float32]
) -> None:
    """Fields [K, rows, columns]: truth and prediction share a colour scale."""
    rows = panels.of_field(channel)
    field, error = panels.comparison.fields[channel], predicted - truth
    low, high = _span(truth, margin=0)
    worst = _greatest_error(error)
    kinds: tuple[tuple[str, NDArray[np.float32], dict[str, Any]], ...] = (
        ("truth", truth, {"vmin": low, "vmax": high, "cmap": "viridis"}),
        ("prediction", predicted, {"vmin": low, "vmax": high, "cmap": "viridis"}),
        ("error", error, {"vmin": -worst, "vmax": worst, "cmap": "RdBu_r"}),
    )
    for row, (name, images, scale) in zip(rows, kinds, strict=True):
        for axes, image in zip(row, images, strict=True):
            drawn = axes.imshow(
                image,
                origin="lower",
                extent=panels.extent,
                aspect="equal" if panels.to_scale else "auto",
                **scale,
            )
            axes.set_xticks(_ticks(panels.extent[1]))
            axes.set_yticks(_ticks(panels.extent[3]))
            axes.spines[:].set_visible(False)
        row[0].set_ylabel(name, fontsize=10.5)
        if name != "truth":
            first = 2 if name == "error" else 0
            label = named(field) if name == "prediction" else "error" + in_units(field.units)
            panels.colour_bar(drawn, channel, first, max(first, 1), label)


def _heading(comparison: Comparison, width: int) -> list[str]:
    """What is seen, in lines of up to `width` characters."""
    errors = comparison.relative_l2()
    error = _percent(float(np.nanmean(errors)) if np.isfinite(errors).any() else np.nan)
    what = (
        f"Held-out simulation {held_out_number(comparison.simulation)}, the median by error: "
        f"relative L2 {error} over its {len(errors)} times"
    )
    if len(comparison.grid.shape) == 3:
        what += f"; slice {comparison.slice()} of axis 0, where most changes"
    if len(comparison.fields) > _FIELDS:
        what += f"; the first {_FIELDS} of {len(comparison.fields)} fields"
    values = point(comparison.space, comparison.parameters)
    return [
        textwrap.shorten(what, width, placeholder=" ..."),
        *textwrap.wrap(values, width, max_lines=3, placeholder=" ..."),
    ]


def _greatest_error(error: NDArray[np.float32]) -> float:
    """The end of the colour scale of errors [K, rows, columns].

    But for a few points it is the greatest one, unless that is far from what is usual at the times:
    the jump at the first time of many problems would leave all else white.
    """
    known = [np.abs(image[np.isfinite(image)]) for image in error if np.isfinite(image).any()]
    greatest = [float(np.percentile(values, 99.5)) for values in known] or [0.0]
    return min(max(greatest), 2 * float(np.median(greatest)) or np.inf) or 1.0


def _percent(error: float) -> str:
    if not np.isfinite(error):
        return "unknown"  # the truth is zero
    return f"{100 * error:.3g} %" if error < 1e4 else "beyond all bounds"


def _drawable(fields: NDArray[np.float32], at: int) -> NDArray[np.float32]:
    """Fields [K, *grid] as lines or images [K, ...], of 3-D ones the slice `at` of axis 0; NaN
    where they are infinite."""
    if fields.ndim == 4:
        fields = fields[:, at]
    return np.where(np.isfinite(fields), fields, np.nan)


def _extent(grid: Grid) -> tuple[float, float, float, float]:
    """Left, right, lower and upper end of an image of a field, in the grid's units.

    Points lie in the middle of an image's squares, the first one at 0.
    """
    sides = [(-h / 2, (n - 0.5) * h) for n, h in zip(grid.shape, grid.spacing, strict=True)]
    return (*sides[-1], *sides[-2]) if len(sides) > 1 else (*sides[0], 0.0, 1.0)


def _ticks(end: float) -> list[float]:
    """Two or three round values from 0 on; none near the end, where the next panel's first is."""
    values = MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]).tick_values(0, end)
    return [float(value) for value in np.asarray(values) if value < 0.85 * end]


def _span(*arrays: NDArray[np.float32], margin: float = 0.05) -> tuple[float, float]:
    """The least and the greatest of what is finite, some room added; never the same."""
    values = np.concatenate([array[np.isfinite(array)] for array in arrays])
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    room = margin * (high - low)
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        room = max(abs(low), abs(high), 1.0) / 2
    return low - room, high + room
