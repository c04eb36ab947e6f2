"""What a solver refuses before it starts: steps that are unstable, grids that fit no memory."""

import math
import os

# Where the stability region of the classical fourth-order Runge-Kutta method meets the imaginary
# axis. Along the negative real axis it reaches 2.79.
RUNGE_KUTTA_4 = 2.78


def require_stable(rate: float, interval: float, substeps: int) -> None:
    """Raise ValueError if `substeps` steps of a fourth-order Runge-Kutta method are too few for an
    `interval` between stored times in which things change at most at `rate` (the largest
    eigenvalue's modulus of what is integrated explicitly)."""
    needed = max(rate * interval / RUNGE_KUTTA_4, 1.0)
    if substeps < needed:
        raise ValueError(
            f"substeps is {substeps}: its time steps of {interval / substeps:.3g} would be "
            f"unstable, as they are longer than {RUNGE_KUTTA_4 / rate:.3g}; it has to be at least "
            f"{math.ceil(needed) if math.isfinite(needed) else 'more than can be counted'}"
        )


def require_memory(setting: str, shape: tuple[int, ...], numbers: int) -> None:
    """Raise ValueError if the `numbers` of double precision that one simulation keeps at a time are
    more than the machine's memory. `setting` is the one by which the grid's `shape` can shrink."""
    needed = 8 * numbers
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > present:
        raise ValueError(
            f"one simulation on {' x '.join(map(str, shape))} points would take "
            f"{needed / 2**30:,.1f} GiB of memory, and this machine has "
            f"{present / 2**30:,.1f} GiB; choose a smaller {setting}"
        )
