"""A picture of an answer: three planes, the patient's outlines against those of the match.

Shapes: `*grid` the solver's grid, of three axes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import nibabel
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from framework.files import writing
from framework.pictures.planes import aspect, crop, empty, ground, others, outline, plane
from framework.pictures.style import STYLE
from solvers.base import Solver

Mask = NDArray[np.bool_]

# Of the masks, in the solver's order; those of Okabe and Ito that show on a dark ground.
_COLOURS = ("#F0E442", "#56B4E9", "#CC79A7", "#E69F00")
_STYLES: Any = {"patient": "solid", "match": (0, (2, 1.2))}
# Axes by the side to which they lead, in NIfTI's letters: the plane across each, and its opposite.
_PLANES = {
    **dict.fromkeys("SI", "axial"),
    **dict.fromkeys("AP", "coronal"),
    **dict.fromkeys("RL", "sagittal"),
}
_OPPOSITE = dict(zip("SIAPRL", "ISPALR", strict=True))


def draw_match(
    picture: Path,
    solver: Solver,
    observed: Mapping[str, Mask],
    matched: Mapping[str, Mask],
    title: str,
    density: NDArray[np.float32] | None = None,
    density_name: str = "mean density",
) -> None:
    """Draw masks that were observed against those of the match into a PNG; all arrays [*grid].

    The solver's grid lies in a scanner's space; `matched` has the masks of `observed`. The planes
    go through the middle of the first of `solver.masks` that was observed. `density`, 0 or more, is
    shown in colour under the outlines, if given. Raises RunError if it cannot be written.
    """
    with matplotlib.rc_context(STYLE), writing(picture):
        figure = Figure(figsize=(10.0, 4.6), layout="constrained", facecolor="black")
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, color="white")
        row = figure.subplots(1, 3)
        _draw_planes(row, solver, observed, matched, density)
        if density is not None:
            colours = ScalarMappable(Normalize(0, density.max()), "inferno")
            bar = figure.colorbar(colours, ax=row, shrink=0.7, label=density_name)
            bar.ax.tick_params(colors="white")
            bar.ax.yaxis.label.set_color("white")
        handles = [
            Line2D([], [], color=colour, linestyle=style, label=f"{name}, {whose}")
            for name, colour in _colours(solver, observed).items()
            for whose, style in _STYLES.items()
        ]
        look: Any = {"loc": "outside lower center", "ncols": len(handles), "labelcolor": "white"}
        figure.legend(handles=handles, **look)
        figure.savefig(picture, dpi=160)


def _draw_planes(
    row: Sequence[Axes],
    solver: Solver,
    observed: Mapping[str, Mask],
    matched: Mapping[str, Mask],
    density: NDArray[np.float32] | None,
) -> None:
    """Axial, coronal, sagittal."""
    colours = _colours(solver, observed)
    middle = np.rint(np.argwhere(observed[next(iter(colours))]).mean(0)).astype(int)
    under = ground(solver)
    codes: tuple[str, ...] = nibabel.aff2axcodes(solver.affine)  # type: ignore[no-untyped-call]
    order = sorted(range(3), key=lambda axis: list(_PLANES).index(codes[axis]))
    for axes, axis in zip(row, order, strict=True):
        index = int(middle[axis])
        look: dict[str, Any] = {"origin": "lower", "aspect": aspect(solver, axis)}
        if under is not None:
            axes.imshow(plane(under, axis, index), cmap="gray", vmax=1.15 * under.max(), **look)
        if density is not None:
            values = plane(density, axis, index)
            alpha = np.clip(2 * values / density.max(), 0, 0.6)
            axes.imshow(values, cmap="inferno", alpha=alpha, vmin=0, vmax=density.max(), **look)
        for name, colour in colours.items():
            for masks, style in zip((observed, matched), _STYLES.values(), strict=True):
                mask = plane(masks[name], axis, index)
                outline(axes, mask, colors=[colour], linestyles=[style], linewidths=1.5)
        if under is not None:
            crop(axes, under, axis)
        empty(axes)
        _name(axes, codes, axis)


def _colours(solver: Solver, observed: Mapping[str, Mask]) -> dict[str, str]:
    """Of the masks that were observed, in the solver's order."""
    colours = zip(solver.masks, _COLOURS, strict=False)
    return {name: colour for name, colour in colours if name in observed}


def _name(axes: Axes, codes: tuple[str, ...], axis: int) -> None:
    """Which plane it is and which side is which; front and top are shown above."""
    axes.set_title(f"{_PLANES[codes[axis]]} plane", fontsize=9, loc="center", color="white")
    right, up = (codes[other] for other in others(axis))
    if up in "PI":
        axes.invert_yaxis()
        up = _OPPOSITE[up]
    for x, y, letter in ((0.02, 0.5, _OPPOSITE[right]), (0.98, 0.5, right), (0.5, 0.97, up)):
        axes.text(
            x, y, letter, transform=axes.transAxes, color="#BBBBBB", fontsize=8, ha="center",
            va="center",
        )  # fmt: skip
