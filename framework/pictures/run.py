"""The pictures of a run, drawn at its end from its history and a few arrays.

fields.png    truth, prediction and error of one held-out simulation
curves.png    the loss and the validation error over the optimiser steps
timeline.png  the buffer's occupancy, rates and waits over the seconds
coverage.png  the parameters that were simulated

A picture for which there is not enough yet is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray
from PIL import Image

from framework.errors import tell
from framework.pictures.comparison import Comparison
from framework.pictures.coverage import DesignPoints, draw_coverage
from framework.pictures.errors import draw_comparison
from framework.pictures.style import BLUE, GREEN, GREY, ORANGE, STYLE, VERMILLION
from framework.tracking.history import Record

Series = NDArray[np.float64]

# A timeline shows at most this many intervals of time.
_INTERVALS = 400
# Rows are taken every 2 s or less: a longer time than this between two rows is a gap.
_GAP_SECONDS = 7.0
_INCHES = 9.0  # of a picture's width
_LARGE = 400_000  # bytes


def draw_pictures(
    directory: Path,
    history: Sequence[Record],
    comparison: Comparison | None,
    points: DesignPoints,
    trivial: Mapping[str, float],
) -> list[Path]:
    """Draw into `directory` the pictures for which there is enough data; return their files.

    `trivial`: the relative L2 errors of predictors that know nothing, by name; may be empty.
    """
    drawings: dict[str, Callable[[], Figure]] = {}
    if comparison is not None:
        drawings["fields"] = lambda: draw_comparison(comparison)
    if len(_column(history, "training/loss", "step")[0]):
        drawings["curves"] = lambda: draw_curves(history, trivial)
    if len(history) > 2 and history[-1].get("samples/received"):
        drawings["timeline"] = lambda: draw_timeline(history)
    if len(points.completed):
        drawings["coverage"] = lambda: draw_coverage(points)
    drawn = []
    try:
        directory.mkdir(exist_ok=True)
        with matplotlib.rc_context(STYLE):
            for name, draw in drawings.items():
                path = directory / f"{name}.png"
                _save(draw(), path)
                drawn.append(path)
    except OSError as error:
        tell(f"cannot draw into {directory}: {error.strerror}")
    return drawn


def _save(figure: Figure, path: Path) -> None:
    """Write a PNG; a large one with a palette of 256 colours, which takes a third of the bytes."""
    figure.savefig(path)
    if path.stat().st_size > _LARGE:
        with Image.open(path) as image:
            small = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
        small.save(path, optimize=True)


def draw_curves(history: Sequence[Record], trivial: Mapping[str, float]) -> Figure:
    """Draw the loss, and the validation error if there is one, over the optimiser steps."""
    steps, _ = _column(history, "validation/relative_l2", "validation/step")
    figure = Figure(figsize=(_INCHES, 6.0 if len(steps) else 3.4), layout="constrained")
    axes = figure.subplots(2 if len(steps) else 1, 1, sharex=True, squeeze=False)[:, 0]
    _draw_loss(axes[0], history)
    if len(steps):
        _draw_validation(axes[1], history, trivial)
    axes[-1].set_xlabel("optimiser steps")
    axes[-1].set_xlim(left=0)
    return figure


def draw_timeline(history: Sequence[Record]) -> Figure:
    """Draw the buffer, the rates of samples, and the waits, over the seconds of the run."""
    rows = _thinned(history)
    figure = Figure(figsize=(_INCHES, 7.0), layout="constrained")
    buffer, rates, waits = figure.subplots(3, 1, sharex=True)
    _draw_buffer(buffer, rows)
    _draw_rates(rates, rows)
    _draw_waits(waits, rows)
    for axes in (buffer, rates, waits):
        axes.grid(True)
        axes.set_ylim(bottom=0)
        _mark_end_of_simulations(axes, history, "simulations done" if axes is buffer else "")
    _mark_checkpoints(buffer, history)
    _entitle(buffer, "Samples in the buffer", "samples")
    _entitle(rates, "Rates", "samples/s")
    _entitle(waits, "Who waits", "share of the time [%]")
    waits.set_xlabel("seconds of the run")
    waits.set_xlim(0, history[-1]["seconds"])
    return figure


def _draw_loss(axes: Axes, history: Sequence[Record]) -> None:
    steps, losses = _column(history, "training/loss", "step")
    losses = np.where(losses > 0, losses, np.nan)
    smooth = len(steps) >= 8
    marker = "o" if len(steps) == 1 else ""
    alpha = 0.35 if smooth else 1.0
    axes.plot(
        steps, losses, color=BLUE, alpha=alpha, linewidth=1, marker=marker, label="of a batch"
    )
    if smooth:
        axes.plot(steps, _smoothed(losses), color=BLUE, linewidth=1.8, label="smoothed")
    axes.set_yscale("log")
    axes.grid(True)
    at, rates = _column(history, "training/learning_rate", "step")
    if len(rates) and rates.max() > rates.min():
        beside = axes.twinx()
        beside.plot(at, rates, color=GREY, linewidth=1, linestyle=":")
        beside.set_ylabel("learning rate", color=GREY)
        beside.tick_params(axis="y", colors=GREY)
        beside.set_ylim(bottom=0)
        axes.plot([], [], color=GREY, linewidth=1, linestyle=":", label="learning rate")
    _entitle(axes, "Training loss", "loss, normalised units")


def _draw_validation(axes: Axes, history: Sequence[Record], trivial: Mapping[str, float]) -> None:
    every: list[float] = []
    for key, label, colour, width in (
        ("relative_l2", "mean", VERMILLION, 1.8),
        ("relative_l2_last_time", "last time", ORANGE, 1.2),
        ("relative_l2_one_step", "one step", GREEN, 1.2),
    ):
        steps, errors = _column(history, f"validation/{key}", "validation/step")
        if len(steps):
            style: Any = {"marker": "o" if len(steps) <= 60 else "", "markersize": 3.5}
            axes.plot(steps, 100 * errors, color=colour, linewidth=width, label=label, **style)
            every += [*(100 * errors)]
    known = {name: 100 * error for name, error in trivial.items() if error > 0}
    for (name, error), style in zip(known.items(), ("--", "-."), strict=False):
        label = name.replace("_", " ")
        axes.axhline(error, color=GREY, linewidth=1, linestyle=style, label=label)
    every += known.values()
    if min(every) > 0 and max(every) / min(every) > 4:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.grid(True)
    _, errors = _column(history, "validation/relative_l2", "validation/step")
    title = f"Held-out error: {100 * errors[-1]:.3g} %"
    _entitle(axes, title, "relative L2 [%]")


def _draw_buffer(axes: Axes, rows: Sequence[Record]) -> None:
    x, held = _series(rows, "buffer/held")
    axes.fill_between(x, held, color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(x, held, color=BLUE)
    capacity = rows[-1].get("buffer/capacity")
    if capacity:
        axes.axhline(capacity, color=GREY, linewidth=1, linestyle="--", label="capacity")


def _draw_rates(axes: Axes, rows: Sequence[Record]) -> None:
    for key, label, colour in (
        ("samples/received", "received from the solvers", GREEN),
        ("samples/drawn", "drawn by training", ORANGE),
    ):
        x, counts = _series(rows, key)
        seconds = np.diff(x)
        axes.plot(x[1:] - seconds / 2, np.diff(counts) / seconds, color=colour, label=label)


def _draw_waits(axes: Axes, rows: Sequence[Record]) -> None:
    for key, label, colour, style in (
        ("wait/solvers", "solvers, to hand over", GREEN, "-"),
        ("wait/training", "training, for samples", ORANGE, "-"),
        ("wait/redraws", "redraws", ORANGE, ":"),
        ("wait/transport", "receiver, for solvers", GREY, "--"),
    ):
        x, shares = _series(rows, key)
        axes.plot(x, 100 * shares, color=colour, linestyle=style, label=label)
    axes.set_ylim(top=102)


def _mark_checkpoints(axes: Axes, history: Sequence[Record]) -> None:
    at = [row["seconds"] for row in history if "checkpoint/seconds" in row]
    if at:
        style: Any = {"markersize": 6 if len(at) < 60 else 3, "clip_on": False, "zorder": 5}
        axes.plot(at, [0] * len(at), "^", color=VERMILLION, label="checkpoint", **style)


def _mark_end_of_simulations(axes: Axes, history: Sequence[Record], label: str) -> None:
    """Mark when all simulations were done: once, and again if the run was extended."""
    over = False
    for row in history:
        ended = row.get("simulations/completed", 0) + row.get("simulations/quarantined", 0)
        was, over = over, 0 < row.get("simulations/requested", 0) <= ended
        if over and not was:
            style: Any = {"linewidth": 1.2, "linestyle": ":", "label": label}
            axes.axvline(row["seconds"], color="black", **style)
            label = ""


def _entitle(axes: Axes, title: str, label: str) -> None:
    """Add a title, a label of the values, and a legend on the title's line."""
    axes.set_title(title)
    axes.set_ylabel(label)
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        place: Any = {"loc": "lower right", "bbox_to_anchor": (1, 0.98), "borderaxespad": 0}
        axes.legend(ncols=len(handles), columnspacing=1.4, handlelength=1.6, **place)


def _column(history: Sequence[Record], key: str, at: str) -> tuple[Series, Series]:
    """Return the figures `at` and `key` of rows with both; for equal `at`, of the last row."""
    values = {row[at]: row[key] for row in history if key in row and at in row}
    return np.array([*values.keys()], dtype=float), np.array([*values.values()], dtype=float)


def _thinned(history: Sequence[Record]) -> list[Record]:
    """Return about _INTERVALS rows, each of several: the last counters, and the mean shares."""
    apart: list[Record] = []
    for row in history:
        if not apart or row["seconds"] - apart[-1]["seconds"] >= 1:
            apart.append(row)
    each = -(-len(apart) // _INTERVALS)
    rows = []
    for start in range(0, len(apart), each):
        group = apart[start : start + each]
        means = {
            key: float(np.mean([row[key] for row in group if key in row]))
            for key in group[-1]
            if key.startswith("wait/")
        }
        rows.append({**group[-1], **means})
    return rows


def _series(rows: Sequence[Record], key: str) -> tuple[Series, Series]:
    """Return the seconds of all rows and their figures; NaN where there is none, and in gaps."""
    x = np.array([row["seconds"] for row in rows])
    y = np.array([row.get(key, np.nan) for row in rows])
    between = np.diff(x)
    usual = np.median(between) if len(between) else 0.0
    gaps = np.flatnonzero(between > max(_GAP_SECONDS, 3 * usual)) + 1
    return np.insert(x, gaps, x[gaps - 1] + 0.5), np.insert(y, gaps, np.nan)


def _smoothed(values: Series) -> Series:
    """Return geometric means over a sliding window, narrower at the ends."""
    half = max(len(values) // 30, 2)
    logs = np.log(values)
    known = np.isfinite(logs)
    sums, counts = (
        np.concatenate([[0.0], np.cumsum(array)]) for array in (np.where(known, logs, 0), known)
    )
    index = np.arange(len(values))
    first, last = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    with np.errstate(invalid="ignore"):
        means: Series = np.exp((sums[last] - sums[first]) / (counts[last] - counts[first]))
    return means
