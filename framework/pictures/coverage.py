"""A picture of the points of the parameter space that were simulated.

All panels are drawn in one pair of axes, each in its own square of side 1: dozens of pairs would
take many seconds. A panel's coordinates are those of the prior's unit cube, so that points that
cover the space evenly look even. Where the prior of a parameter depends on other parameters, its
values have no fixed places; its axis then shows quantiles.

Shapes: p parameters, n simulations.
"""

import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import Locator, LogLocator, MaxNLocator
from numpy.typing import NDArray

from framework.pictures.style import BLUE, GREY, VERMILLION
from framework.study.streams import Stream, generator
from solvers.base import Parameter, ParameterSpace

_SHOWN_PARAMETERS = 8
_PITCH = 1.08  # from one panel to the next
_DOTS = 3000  # points; more of them are drawn as densities
_PLACES = np.linspace(0.0, 1.0, 201)  # at which a parameter's values are looked up for its ticks
# Inches at the left, at the right, below and above the panels.
_LEFT, _RIGHT, _BELOW_ALL, _ABOVE_ALL = 1.0, 0.25, 0.85, 0.75


@dataclass(frozen=True)
class DesignPoints:
    """The parameters of a run's simulations, in the order of `space`."""

    space: ParameterSpace
    completed: NDArray[np.float64]  # [n, p]
    quarantined: NDArray[np.float64]  # [n, p]
    held_out: NDArray[np.float64]  # [n, p]


def draw_coverage(points: DesignPoints) -> Figure:
    """Draw a histogram of each parameter, and below it every pair of parameters."""
    count = min(len(points.space), _SHOWN_PARAMETERS)
    completed, quarantined, held_out = (
        points.space.to_unit(values)[:, :count]
        for values in (points.completed, points.quarantined, points.held_out)
    )
    figure, axes, inches = _empty(count)
    for row in range(count):
        for column in range(row + 1):
            x, y = _corner(row, column, count)
            axes.add_patch(Rectangle((x, y), 1, 1, fill=False, color="#BBBBBB", linewidth=0.8))
            if column == row:
                _draw_histogram(axes, completed[:, row], x, y)
                continue
            _draw_cloud(axes, completed[:, [column, row]], x, y, inches)
            for group, style in ((held_out, _HELD_OUT), (quarantined, _QUARANTINED)):
                axes.plot(x + group[:, column], y + group[:, row], **style)
    if count == 1:
        axes.plot(held_out[:, 0], np.full(len(held_out), 0.04), **_HELD_OUT)
        axes.plot(quarantined[:, 0], np.full(len(quarantined), 0.04), **_QUARANTINED)
    _name_axes(axes, points.space, count, inches)
    title = "Coverage of the parameter space"
    if len(points.space) > count:
        title += f": the first {count} of {len(points.space)} parameters"
    width, height = figure.get_size_inches()
    figure.text(0.1 / width, 1 - 0.1 / height, title, va="top", fontsize=10, weight="bold")
    counts = (len(points.completed), len(points.held_out), len(points.quarantined))
    _add_legend(axes, dict(zip(("completed", "held out", "quarantined"), counts, strict=True)))
    return figure


_COMPLETED: dict[str, Any] = {"marker": "o", "linestyle": "", "color": BLUE, "markeredgewidth": 0}
_HELD_OUT: dict[str, Any] = {
    "marker": "o",
    "linestyle": "",
    "markersize": 4.5,
    "markerfacecolor": "none",
    "markeredgecolor": "black",
    "markeredgewidth": 0.9,
}
_QUARANTINED: dict[str, Any] = {
    "marker": "X",
    "linestyle": "",
    "markersize": 6,
    "color": VERMILLION,
    "markeredgecolor": "white",
    "markeredgewidth": 0.6,
}


def _empty(count: int) -> tuple[Figure, Axes, float]:
    """Return a figure, axes that hold count x count panels, and a panel's side in inches."""
    panel = min(max(8.0 / count, 1.2), 2.5)
    panels = (count - 1) * _PITCH + 1
    inner = (panels * panel if count > 1 else 2.2 * panel, panels * panel)
    width, height = inner[0] + _LEFT + _RIGHT, inner[1] + _BELOW_ALL + _ABOVE_ALL
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes(
        (_LEFT / width, _BELOW_ALL / height, inner[0] / width, inner[1] / height)
    )
    axes.set_xlim(-0.01, panels + 0.01)
    axes.set_ylim(-0.01, panels + 0.01)
    axes.spines[:].set_visible(False)
    return figure, axes, panel


def _corner(row: int, column: int, count: int) -> tuple[float, float]:
    """Return the lower left corner of a panel."""
    return column * _PITCH, (count - 1 - row) * _PITCH


def _draw_histogram(axes: Axes, values: NDArray[np.float64], x: float, y: float) -> None:
    """Draw the histogram of values [n], and a line at the height of an even spread."""
    bins = int(np.clip(np.sqrt(len(values)), 4, 25))
    counts, edges = np.histogram(values, bins, (0, 1))
    scale = 0.9 / max(counts.max(), 1)
    axes.stairs(y + scale * counts, x + edges, baseline=y, fill=True, color=BLUE, alpha=0.55)
    even = y + scale * len(values) / bins
    axes.plot([x, x + 1], [even, even], color=GREY, linewidth=1, linestyle="--")


def _draw_cloud(axes: Axes, pairs: NDArray[np.float64], x: float, y: float, inches: float) -> None:
    """Draw points [n, 2]; many of them as their density, from white to blue."""
    if len(pairs) <= _DOTS:
        size = float(np.clip(60 * inches / np.sqrt(max(len(pairs), 1)), 1.4, 4.5))
        axes.plot(x + pairs[:, 0], y + pairs[:, 1], markersize=size, alpha=0.6, **_COMPLETED)
        return
    counts, _, _ = np.histogram2d(pairs[:, 1], pairs[:, 0], 40, ((0, 1), (0, 1)))
    axes.imshow(
        counts,
        origin="lower",
        extent=(x, x + 1, y, y + 1),
        aspect="auto",
        cmap="Blues",
        vmin=0,
        vmax=1.5 * np.percentile(counts, 99) or 1,
        zorder=0,
    )


def _name_axes(axes: Axes, space: ParameterSpace, count: int, inches: float) -> None:
    """Write names, units and ticks of the first parameters at the left and below."""
    across: list[tuple[float, str]] = []
    upwards: list[tuple[float, str]] = []
    for index, item in enumerate(space.items[:count]):
        x, y = _corner(index, index, count)
        name = item.name.replace("_", " ") + ("" if item.units == "1" else f" [{item.units}]")
        quantiles = _quantiles(space, index)
        if quantiles is None:
            name += ", quantile"
            ticks = [(0.25, "0.25"), (0.75, "0.75")]
        else:
            ticks = _parameter_ticks(item, quantiles, 4 if inches > 1.8 else 2)
        across += [(x + place, text) for place, text in ticks]
        text = textwrap.fill(name, int(11 * inches), break_long_words=False)
        axes.text(x + 0.5, -0.36 / inches, text, ha="center", va="top", fontsize=9.5)
        if index:
            upwards += [(y + place, text) for place, text in ticks]
            place = (-0.62 / inches, y + 0.5)
            axes.text(*place, text, ha="center", va="center", rotation=90, fontsize=9.5)
    axes.set_xticks(*zip(*across, strict=True))
    if upwards:
        axes.set_yticks(*zip(*upwards, strict=True))
    else:
        axes.set_yticks([])
        axes.set_ylabel("simulations")
    axes.tick_params(length=2.5, labelsize=8)


def _quantiles(space: ParameterSpace, index: int) -> NDArray[np.float64] | None:
    """Return a parameter's values at `_PLACES`; None if they depend on the other parameters."""
    # Any places of the other parameters will do, whatever the study's seed: it only matters whether
    # the values differ between them.
    random = generator(0, Stream.PICTURE)
    unit = random.random((8, 1, len(space))).repeat(len(_PLACES), 1)
    unit[..., index] = _PLACES
    values = space.from_unit(unit)[..., index]
    return values[0] if np.allclose(values, values[0], rtol=1e-9, atol=0) else None


def _parameter_ticks(
    item: Parameter, quantiles: NDArray[np.float64], most: int
) -> list[tuple[float, str]]:
    """Return places from 0 to 1 of round values between a parameter's bounds, and the values."""
    low, high = quantiles[[0, -1]]
    locator: Locator
    if item.prior == "log_uniform" and high > 4 * low:
        locator = LogLocator(subs=(1.0,) if high >= 30 * low else (1.0, 2.0, 5.0))
    else:
        locator = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10])
    values = np.asarray(locator.tick_values(low, high), dtype=np.float64)
    places = np.interp(values, quantiles, _PLACES)
    inside = (places > 0.04) & (places < 0.96)  # others would run into the next panel's
    step = max(-(-int(inside.sum()) // (most + 1)), 1)
    ticks = zip(places[inside][::step].tolist(), values[inside][::step].tolist(), strict=True)
    return [(place, f"{value:g}") for place, value in ticks]


def _add_legend(axes: Axes, counts: dict[str, int]) -> None:
    """Draw the legend at the upper right, where no panels are."""
    styles = {"completed": _COMPLETED, "held out": _HELD_OUT, "quarantined": _QUARANTINED}
    handles = [
        Line2D([], [], label=f"{counts[name]:,} {name}", **style)
        for name, style in styles.items()
        if counts[name]
    ]
    handles.append(Line2D([], [], color=GREY, linewidth=1, linestyle="--", label="if even"))
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(handles))
