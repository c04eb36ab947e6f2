"""Draw an answer: three planes with the outlines of the patient and of the match.

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
from framework.inverse.observed.masks import Mask
from framework.pictures.planes import aspect, crop, empty, ground, others, outline, plane
from framework.pictures.style import STYLE
from solvers.base import ImagedSolver

# Colours of the masks, in the solver's order: those of Okabe and Ito visible on a dark ground.
_MASK_COLOURS = ("#F0E442", "#56B4E9", "#CC79A7", "#E69F00")
_LINE_STYLES: Any = {"patient": "solid", "match": (0, (2, 1.2))}
# For the side that an axis points to, in NIfTI's letters: the plane across the axis, and the
# opposite side.
_PLANE_NAMES = {
    **dict.fromkeys("SI", "axial"),
    **dict.fromkeys("AP", "coronal"),
    **dict.fromkeys("RL", "sagittal"),
}
_OPPOSITE = dict(zip("SIAPRL", "ISPALR", strict=True))


def draw_match(
    picture: Path,
    solver: ImagedSolver,
    observed: Mapping[str, Mask],
    matched: Mapping[str, Mask],
    title: str,
    density: NDArray[np.float32] | None = None,
    density_name: str = "mean density",
) -> None:
    """Draw the masks observed and those of the match into a PNG; all arrays are [*grid].

    The solver has an affine; `matched` has the masks of `observed`. The planes go through the
    middle of the first of `solver.masks` that was observed. `density`, 0 or more, is shown in
    colour under the outlines, if given. Raises WriteError.
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
            for name, colour in _mask_colours(solver, observed).items()
            for whose, style in _LINE_STYLES.items()
        ]
        look: Any = {"loc": "outside lower center", "ncols": len(handles), "labelcolor": "white"}
        figure.legend(handles=handles, **look)
        figure.savefig(picture, dpi=160)


def _draw_planes(
    row: Sequence[Axes],
    solver: ImagedSolver,
    observed: Mapping[str, Mask],
    matched: Mapping[str, Mask],
    density: NDArray[np.float32] | None,
) -> None:
    """Draw the axial, the coronal and the sagittal plane."""
    colours = _mask_colours(solver, observed)
    middle = np.rint(np.argwhere(observed[next(iter(colours))]).mean(0)).astype(int)
    under = ground(solver)
    codes: tuple[str, ...] = nibabel.aff2axcodes(solver.affine)  # type: ignore[no-untyped-call]
    order = sorted(range(3), key=lambda axis: list(_PLANE_NAMES).index(codes[axis]))
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
            for masks, style in zip((observed, matched), _LINE_STYLES.values(), strict=True):
                mask = plane(masks[name], axis, index)
                outline(axes, mask, colors=[colour], linestyles=[style], linewidths=1.5)
        if under is not None:
            crop(axes, under, axis)
        empty(axes)
        _name_plane(axes, codes, axis)


def _mask_colours(solver: ImagedSolver, observed: Mapping[str, Mask]) -> dict[str, str]:
    """Return the colours of the masks that were observed, in the solver's order."""
    colours = zip(solver.masks, _MASK_COLOURS, strict=False)
    return {name: colour for name, colour in colours if name in observed}


def _name_plane(axes: Axes, codes: tuple[str, ...], axis: int) -> None:
    """Write the names of the plane and of its sides; front and top are shown above."""
    axes.set_title(f"{_PLANE_NAMES[codes[axis]]} plane", fontsize=9, loc="center", color="white")
    right, up = (codes[other] for other in others(axis))
    if up in "PI":
        axes.invert_yaxis()
        up = _OPPOSITE[up]
    for x, y, letter in ((0.02, 0.5, _OPPOSITE[right]), (0.98, 0.5, right), (0.5, 0.97, up)):
        axes.text(
            x, y, letter, transform=axes.transAxes, color="#BBBBBB", fontsize=8, ha="center",
            va="center",
        )  # fmt: skip
