"""Limits that a solver checks before it starts: stable time steps, and memory for the grid."""

import math
import os

# Where the stability region of the classical fourth-order Runge-Kutta method meets the imaginary
# axis. Along the negative real axis it reaches 2.79.
RUNGE_KUTTA_4 = 2.78


def require_stable(rate: float, interval: float, substeps: int) -> None:
    """Raise ValueError if `substeps` steps are too few between two stored times.

    The steps are those of a fourth-order Runge-Kutta method, `interval` is the time between two
    stored times, and `rate` the fastest rate of change: the modulus of the largest eigenvalue of
    the part that is integrated explicitly.
    """
    needed = max(rate * interval / RUNGE_KUTTA_4, 1.0)
    if substeps < needed:
        raise ValueError(
            f"substeps is {substeps}: its time steps of {interval / substeps:.3g} would be "
            f"unstable, as they are longer than {RUNGE_KUTTA_4 / rate:.3g}; it has to be at least "
            f"{math.ceil(needed) if math.isfinite(needed) else 'more than can be counted'}"
        )


def require_memory(setting: str, shape: tuple[int, ...], numbers: int) -> None:
    """Raise ValueError if one simulation needs more than the machine's memory.

    `numbers`: how many numbers of double precision it keeps at a time. `setting` is the one that
    can make the grid's `shape` smaller.
    """
    needed = 8 * numbers
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > present:
        raise ValueError(
            f"one simulation on {' x '.join(map(str, shape))} points would take "
            f"{needed / 2**30:,.1f} GiB of memory, and this machine has "
            f"{present / 2**30:,.1f} GiB; choose a smaller {setting}"
        )
