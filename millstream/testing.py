"""The checks of `millstream check`, for the tests of a solver, a surrogate or a buffer.

Example:
    >>> from millstream.testing import check_solver
    >>> from my_solver import Wave
    >>> def test_wave() -> None:
    ...     check_solver(Wave, points=32)
"""

from typing import Any

from framework.check.named import check_class
from framework.stream.buffers.buffer import Buffer
from solvers.base import Solver
from surrogates.base import Surrogate

__all__ = ["check_buffer", "check_solver", "check_surrogate"]


def check_solver(solver: type[Solver], *, limit: float = 60.0, **settings: Any) -> None:
    """Check that a solver with these settings keeps its contract, and measure what it claims.

    `limit`: the most seconds that one check may take. Raises AssertionError with a table of the
    findings if a check fails, and ValueError if the constructor refuses the settings.
    """
    _check(solver, Solver, settings, limit)


def check_surrogate(surrogate: type[Surrogate], *, limit: float = 60.0, **settings: Any) -> None:
    """Check a surrogate on grids of one to three axes, in both modes, and that it learns.

    `limit` and the errors raised are those of `check_solver`.
    """
    _check(surrogate, Surrogate, settings, limit)


def check_buffer(buffer: type[Buffer], *, limit: float = 60.0) -> None:
    """Check what a buffer draws while samples are put, and that a run can be resumed.

    `limit` and the errors raised are those of `check_solver`.
    """
    _check(buffer, Buffer, {}, limit)


def _check(found: type[Any], base: type[Any], settings: dict[str, Any], limit: float) -> None:
    if not (isinstance(found, type) and issubclass(found, base)):
        name = getattr(found, "__name__", repr(found))
        raise ValueError(f"{name} is not a subclass of {base.__name__}")
    if not limit > 0:
        raise ValueError(f"limit is {limit:g} seconds: it must be positive")
    checked = check_class(found, settings, limit)
    if checked.failures:
        raise AssertionError(checked.text())
