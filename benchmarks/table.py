"""How the benchmarks print what they have measured."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from framework.report.words import aligned


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns under their names, aligned to the right but for the first."""
    print("\n".join(aligned([head, *rows])))


def spread(values: NDArray[np.float64]) -> str:
    """The median, and between which values the middle half lies."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{median:.2f} ({low:.2f}-{high:.2f})"
