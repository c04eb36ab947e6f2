"""The look of all pictures, and the labels of fields and parameters in them.

The colours are those of Okabe and Ito, which the colour-blind can tell apart.
"""

from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from solvers.base import Field, ParameterSpace

matplotlib.use("agg")

BLUE, ORANGE, GREEN, VERMILLION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6E6E6E"

STYLE: Any = {  # matplotlib's settings
    "figure.dpi": 130,
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
}


def in_units(units: str) -> str:
    """Return the units of an axis, to follow its name; nothing for numbers without units."""
    return "" if units == "1" else f" [{units}]"


def named(field: Field) -> str:
    """Return the name of a field with its units."""
    return field.name + in_units(field.units)


def point(space: ParameterSpace, parameters: NDArray[np.floating[Any]]) -> str:
    """Return the values of parameters [p], with their names and units, as text."""
    return ", ".join(
        f"{item.name} = {value:.4g}" + ("" if item.units == "1" else f" {item.units}")
        for item, value in zip(space.items, parameters, strict=True)
    )
