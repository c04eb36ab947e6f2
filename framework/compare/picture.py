"""The picture of a comparison: the errors of the arms, and by how much online was better."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from framework.compare.report import by_name
from framework.pictures.style import BLUE, GREY, ORANGE, STYLE, VERMILLION
from framework.report.words import digits_percent

_ACROSS, _ROW, _MARGINS = 9.0, 0.42, 1.5  # inches
_MEASURE_COLOURS = {"mean": BLUE, "p90": ORANGE, "p99": VERMILLION}
_OURS = "reservoir"
_NAMES = {"mean": "mean", "p90": "90th percentile", "p99": "99th percentile"}


def draw_arms(found: dict[str, Any], path: Path) -> bool:
    """Draw the trained arms of a result (see `report.result`) into a PNG.

    Returns False if there are none. Raises OSError.
    """
    done = by_name([arm for arm in found["arms"] if arm["status"] == "done"])
    if not done:
        return False
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(_ACROSS, _MARGINS + _ROW * len(done)), layout="constrained")
        errors, better = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        _draw_arm_errors(errors, done)
        _draw_improvement(better, list(done), found["improvement"])
        figure.savefig(path)
    return True


def _draw_arm_errors(axes: Axes, done: dict[str, list[dict[str, Any]]]) -> None:
    """Draw a row for each arm: the mean of every seed, and three measures averaged over seeds."""
    for row, arms in enumerate(done.values()):
        values = {key: [arm["validation"][key] for arm in arms] for key in _NAMES}
        means = [100 * np.mean(values[key]) for key in _NAMES]
        axes.plot([means[0], means[-1]], [row, row], color=GREY, linewidth=0.8, zorder=1)
        seeds = 100 * np.array(values["mean"])
        axes.plot(seeds, np.full(len(seeds), row + 0.2), "|", color=BLUE, markersize=7)
        for key, mean in zip(_NAMES, means, strict=True):
            label = _NAMES[key] if row == 0 else None
            axes.plot(mean, row, "o", color=_MEASURE_COLOURS[key], markersize=6, label=label)
    axes.set_yticks(range(len(done)), [name.replace("_", " ") for name in done])
    axes.set_ylim(len(done) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(_few_minor(axes)))
    axes.grid(True, axis="x", which="both")
    axes.set_xlabel("relative L2 over held-out trajectories [%]")
    axes.set_title("Errors (ticks: the mean of each seed)")
    axes.legend(loc="best", fontsize=8)


def _few_minor(axes: Axes) -> Any:
    """Return a formatter that labels minor ticks if fewer than three powers of ten are in view."""

    def label(value: float, _: int) -> str:
        low, high = axes.get_xlim()
        narrow = np.floor(np.log10(high)) - np.ceil(np.log10(low)) < 2
        leading = round(value / 10 ** np.floor(np.log10(value)))
        return f"{value:g}" if narrow and leading in (2, 3, 5) else ""

    return label


def _draw_improvement(
    axes: Axes, names: Sequence[str], improvement: Sequence[dict[str, Any]]
) -> None:
    """Draw by how much the reservoir's mean error is lower than that of each other arm."""
    axes.axvline(0, color=GREY, linewidth=0.8)
    for found in improvement:
        if found["of"] != _OURS or found["mean"] is None:
            continue
        row = names.index(found["against"])
        low, high = found["ci95"] or [found["mean"]] * 2
        axes.plot([100 * low, 100 * high], [row, row], color=BLUE)
        axes.plot(100 * found["mean"], row, "o", color=BLUE)
        axes.annotate(
            digits_percent(found["mean"]),
            (100 * found["mean"], row),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.grid(True, axis="x")
    axes.set_xlabel("lower by [%], with 95 % interval")
    axes.set_title("Error of the reservoir, against each")
