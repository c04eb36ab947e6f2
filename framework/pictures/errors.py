"""Truth, prediction and error of one held-out simulation, at several times.

Shapes: T stored times, K of them drawn, C fields, `*grid` the grid's axes (one to three).
"""

import math
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from framework.pictures.comparison import (
    SHOWN_FIELDS,
    Comparison,
    drawn_times,
    error_text,
    heading,
)
from framework.pictures.panels import Panels, round_ticks
from framework.pictures.style import BLUE, GREY, VERMILLION, in_units, named


def draw_comparison(comparison: Comparison) -> Figure:
    """Draw a column for each time and some rows for each field; one slice of a 3-D field.

    On a grid of one point, draw each field over time.
    """
    if math.prod(comparison.grid.shape) == 1:
        return _draw_courses(comparison)
    times = drawn_times(len(comparison.times), comparison.grid)
    panels = Panels(
        comparison.grid,
        min(len(comparison.fields), SHOWN_FIELDS),
        len(times),
        partial(heading, comparison),
    )
    at = comparison.slice() if len(comparison.grid.shape) == 3 else 0
    errors = comparison.relative_l2()[times]
    for axes, index, error in zip(panels.axes[0], times, errors, strict=True):
        said = "given" if index < comparison.given else f"relative L2 {error_text(error)}"
        axes.set_title(f"t = {comparison.times[index]:.3g}\n{said}", loc="center")
    for channel in range(panels.fields):
        truth, predicted = (
            _drawable(fields[times, channel], at)
            for fields in (comparison.truth, comparison.predicted)
        )
        if panels.lines:
            _draw_lines(panels, comparison, channel, truth, predicted)
        else:
            _draw_images(panels, comparison, channel, truth, predicted)
    return panels.figure


def _draw_courses(comparison: Comparison) -> Figure:
    fields = comparison.fields[:SHOWN_FIELDS]
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
    figure.suptitle("\n".join(heading(comparison, 110)), x=0.01, ha="left", fontsize=10)
    return figure


def _draw_lines(
    panels: Panels,
    comparison: Comparison,
    channel: int,
    truth: NDArray[np.float32],
    predicted: NDArray[np.float32],
) -> None:
    """Draw fields [K, points]: truth and prediction in one row, the error in another."""
    x = np.arange(truth.shape[1]) * comparison.grid.spacing[0]
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
            axes.set_xticks(round_ticks(x[-1]))
            axes.yaxis.set_major_locator(MaxNLocator(4))
    field = comparison.fields[channel]
    upper[0].set_ylabel(named(field))
    lower[0].set_ylabel("error" + in_units(field.units))
    if channel == 0:
        upper[0].legend(loc="best", fontsize=8, handlelength=1.2, borderpad=0.1)


def _draw_images(
    panels: Panels,
    comparison: Comparison,
    channel: int,
    truth: NDArray[np.float32],
    predicted: NDArray[np.float32],
) -> None:
    """Draw fields [K, rows, columns]; truth and prediction share a colour scale."""
    rows = panels.of_field(channel)
    field, error = comparison.fields[channel], predicted - truth
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
            axes.set_xticks(round_ticks(panels.extent[1]))
            axes.set_yticks(round_ticks(panels.extent[3]))
            axes.spines[:].set_visible(False)
        row[0].set_ylabel(name, fontsize=10.5)
        if name != "truth":
            first = 2 if name == "error" else 0
            label = named(field) if name == "prediction" else "error" + in_units(field.units)
            panels.colour_bar(drawn, channel, first, max(first, 1), label)


def _greatest_error(error: NDArray[np.float32]) -> float:
    """Return the end of the colour scale of errors [K, rows, columns].

    It is the greatest error without a few points, and at most twice what is usual over the times:
    the jump at the first time of many problems would otherwise leave all else white.
    """
    known = [np.abs(image[np.isfinite(image)]) for image in error if np.isfinite(image).any()]
    greatest = [float(np.percentile(values, 99.5)) for values in known] or [0.0]
    return min(max(greatest), 2 * float(np.median(greatest)) or np.inf) or 1.0


def _drawable(fields: NDArray[np.float32], at: int) -> NDArray[np.float32]:
    """Return fields [K, *grid] as lines or images [K, ...], with NaN where they are infinite.

    3-D fields are cut at the slice `at` of axis 0.
    """
    if fields.ndim == 4:
        fields = fields[:, at]
    return np.where(np.isfinite(fields), fields, np.nan)


def _span(*arrays: NDArray[np.float32], margin: float = 0.05) -> tuple[float, float]:
    """Return the ends of a scale, never equal: the least and the greatest finite value.

    Some room is added to them.
    """
    values = np.concatenate([array[np.isfinite(array)] for array in arrays])
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    room = margin * (high - low)
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        room = max(abs(low), abs(high), 1.0) / 2
    return low - room, high + room
