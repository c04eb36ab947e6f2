"""How all pictures of a run look.

The colours are those of Okabe and Ito, which the colour-blind can tell apart.
"""

from typing import Any

import matplotlib

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
