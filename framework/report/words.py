"""Numbers in words, and tables, for printing."""

import math
from collections.abc import Sequence


def percent(share: float) -> str:
    """Return a share of the time, in whole per cent."""
    return f"{100 * share:.0f} %"


def error_percent(error: float) -> str:
    """Return a relative error in per cent, to two decimals; `unknown` for NaN."""
    return "unknown" if math.isnan(error) else f"{100 * error:.2f} %"


def digits(part: float) -> str:
    """Return a part in per cent, without the sign: to three digits, at most two decimals."""
    value = 100 * part
    if not math.isfinite(value):
        return "unknown"
    if abs(value) >= 1e6:
        return f"{value:.0e}"
    return f"{value:.{max(0, 2 - int(math.log10(max(abs(value), 1))))}f}"


def digits_percent(part: float) -> str:
    """Return a part in per cent, see `digits`."""
    return f"{digits(part)} %"


def large(number: float) -> str:
    """Return three digits and a prefix, to be followed by a unit."""
    prefixes = ["", "k", "M", "G", "T", "P"]
    rounded = float(f"{number:.3g}")  # 999.9 is told as 1 k
    power = min(int(math.log10(max(rounded, 1)) // 3), len(prefixes) - 1)
    return f"{number / 1000**power:.3g} {prefixes[power]}"


def duration(seconds: float) -> str:
    """Return a duration to about two figures."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 100:
        return f"{int(minutes)} min {int(seconds) % 60} s"
    return f"{int(minutes / 60)} h {int(minutes) % 60} min"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: the first column left-aligned, the others right-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        ).rstrip()
        for row in rows
    ]
