"""Pictures of simulations, stored or predicted; the dimension of the grid decides which.

one point    every field over time
1-D          each field over space and time
2-D          each field at several times
3-D          three planes through the point where the first field is highest, over the static
             fields, if there are any, with the outlines of the masks that would be observed

Shapes: K kept times, C fields, p parameters, `*grid` the grid's axes.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from framework.errors import SolverError
from framework.files import writing
from framework.pictures.planes import PLANES, aspect, crop, empty, ground, outline, plane
from framework.pictures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    STYLE,
    VERMILLION,
    in_units,
    named,
    point,
)
from framework.store.reader import StoreReader
from solvers.base import ParameterSpace, Solver

_MOST_SIMULATIONS, _MOST_TIMES, _MOST_FIELDS = 3, 5, 2
_FIELD_COLOURS = (VERMILLION, BLUE, ORANGE, GREEN, GREY)


@dataclass(frozen=True)
class Trajectory:
    """The fields of one trajectory."""

    name: str
    parameters: NDArray[np.float64]  # [p]
    times: NDArray[np.float64]  # [K]
    fields: NDArray[np.float32]  # [K, C, *grid]


def draw_store(path: str, solver: Solver, space: ParameterSpace, picture: Path) -> None:
    """Draw some of a store's simulations into a PNG.

    Raises SolverError if none is complete, and WriteError.
    """
    reader = StoreReader(path)
    ids = reader.complete[:_MOST_SIMULATIONS]
    if not len(ids):
        raise SolverError(f"no simulation is complete in {path}: there is nothing to draw")
    trajectories = [
        Trajectory(f"Simulation {id}", reader.parameters[id], reader.t[id], reader.fields(id))
        for id in ids.tolist()
    ]
    with matplotlib.rc_context(STYLE), writing(picture):
        draw_trajectories(trajectories, solver, space).savefig(picture)


def draw_trajectories(
    trajectories: Sequence[Trajectory], solver: Solver, space: ParameterSpace
) -> Figure:
    """Draw one or more trajectories, one below the other."""
    shape = solver.grid.shape
    if math.prod(shape) == 1:
        draw, height = _draw_course, 1.9
    elif len(shape) == 1:
        draw, height = _draw_space_time, 2.4
    elif len(shape) == 2:
        draw, height = _draw_times, 2.1 * min(len(solver.fields), _MOST_FIELDS)
    else:
        draw, height = _draw_three_planes, 3.1
    size = (9.0, (height + 0.45) * len(trajectories) + 0.2)
    figure = Figure(figsize=size, layout="constrained")
    parts = figure.subfigures(len(trajectories), 1, squeeze=False)[:, 0]
    for part, trajectory in zip(parts, trajectories, strict=True):
        title = f"{trajectory.name}: {point(space, trajectory.parameters)}"
        lines = textwrap.wrap(title, 120, max_lines=2, placeholder=" ...")
        part.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=9.5)
        draw(part, trajectory, solver)
    return figure


def _draw_course(part: Any, trajectory: Trajectory, solver: Solver) -> None:
    axes = part.subplots(1, 1)
    courses = trajectory.fields.reshape(len(trajectory.times), -1).T
    for field, values, colour in zip(solver.fields, courses, _FIELD_COLOURS, strict=False):
        marker = "o" if len(values) == 1 else ""
        axes.plot(trajectory.times, values, color=colour, marker=marker, label=named(field))
    axes.legend(loc="upper right", ncols=3, fontsize=8.5)
    axes.margins(x=0)
    axes.grid(True)
    axes.set_xlabel("time" + in_units(solver.time_units))


def _draw_space_time(part: Any, trajectory: Trajectory, solver: Solver) -> None:
    (n,), (spacing,) = solver.grid.shape, solver.grid.spacing
    row = part.subplots(1, min(len(solver.fields), _MOST_FIELDS), squeeze=False)[0]
    x = np.arange(n) * spacing
    for channel, axes in enumerate(row):
        values = trajectory.fields[:, channel]
        axes.set_xlabel("axis 0" + in_units(solver.grid.units))
        if len(values) == 1:
            axes.plot(x, values[0], color=BLUE)
            axes.set_ylabel(named(solver.fields[channel]))
            continue
        image = axes.pcolormesh(x, trajectory.times, values, cmap="viridis", shading="nearest")
        part.colorbar(image, ax=axes, label=named(solver.fields[channel]))
        axes.set_ylabel("time" + in_units(solver.time_units))


def _draw_times(part: Any, trajectory: Trajectory, solver: Solver) -> None:
    fields = solver.fields[:_MOST_FIELDS]
    chosen = np.unique(np.linspace(0, len(trajectory.times) - 1, _MOST_TIMES).round().astype(int))
    panels = part.subplots(len(fields), len(chosen), squeeze=False)
    for channel, (field, row) in enumerate(zip(fields, panels, strict=True)):
        values = trajectory.fields[chosen, channel]
        for axes, step, image in zip(row, chosen, values, strict=True):
            drawn = axes.imshow(
                image,
                origin="lower",
                cmap="viridis",
                vmin=values.min(),
                vmax=values.max(),
                aspect=solver.grid.spacing[0] / solver.grid.spacing[1],
            )
            empty(axes)
            if channel == 0:
                axes.set_title(_at(trajectory.times[step], solver), fontsize=9, loc="center")
        part.colorbar(drawn, ax=row, label=named(field), shrink=0.9)


def _draw_three_planes(part: Any, trajectory: Trajectory, solver: Solver) -> None:
    fields = trajectory.fields[-1]
    centre = map(int, np.unravel_index(int(fields[0].argmax()), fields[0].shape))
    observed = solver.observe(fields).items()
    masks = [(name, image) for name, image in observed if image.dtype == np.bool_]
    outlines = [
        (name, image, colour)
        for (name, image), colour in zip(masks, _FIELD_COLOURS, strict=False)
        if image.any()
    ]
    under, most = ground(solver), fields[0].max() or 1.0
    row = part.subplots(1, 3)
    for axis, (axes, index) in enumerate(zip(row, centre, strict=True)):
        look: dict[str, Any] = {"origin": "lower", "aspect": aspect(solver, axis)}
        if under is not None:
            axes.imshow(plane(under, axis, index), cmap="gray", **look)
        for _, mask, colour in outlines:
            outline(axes, plane(mask, axis, index), colors=[colour], linewidths=1.2)
        values = plane(fields[0], axis, index)
        # Over the static fields, a density is as opaque as it is high.
        alpha = None if under is None else np.clip(2 * values / most, 0, 0.7)
        limits = {"vmin": fields[0].min(), "vmax": fields[0].max()}
        drawn = axes.imshow(values, cmap="inferno", alpha=alpha, zorder=0.5, **limits, **look)
        if under is not None:
            crop(axes, under, axis)
        empty(axes)
        name = f"{PLANES[axis]} plane" if solver.affine is not None else f"across axis {axis}"
        axes.set_title(f"{name}, {_at(trajectory.times[-1], solver)}", fontsize=9, loc="center")
    part.colorbar(drawn, ax=row, label=named(solver.fields[0]), shrink=0.8)
    handles = [Line2D([], [], color=colour, label=name) for name, _, colour in outlines]
    if handles:
        row[0].legend(handles=handles, loc="lower left", fontsize=8, labelcolor="white")


def _at(time: float, solver: Solver) -> str:
    units = "" if solver.time_units == "1" else f" {solver.time_units}"
    return f"t = {time:.3g}{units}"
