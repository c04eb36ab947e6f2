"""Checks what a name stands for: a solver, a surrogate or a buffer, of ours or of the user's."""

import importlib
from collections.abc import Mapping
from typing import Any

from framework.check.findings import Checked
from framework.check.maker import Maker
from framework.check.running import run_checks
from framework.check.simulated import Simulated
from framework.check.solver import solver_checks
from framework.errors import StudyError
from framework.study.component import SOLVER, their_mistakes
from solvers.base import Solver


def check_named(name: str, settings: Mapping[str, Any], limit: float) -> Checked:
    """Check what a registered name or an import path such as my_solver:Wave stands for.

    `limit`: the most seconds that one check may take. Raises StudyError if there is no such class,
    or its constructor refuses the settings.
    """
    try:
        found = _find(name)
        if issubclass(found, Solver):
            return checked_solver(Maker(found, settings), limit, name)
    except ValueError as error:
        raise StudyError(str(error)) from None
    raise StudyError(f"{name} is no solver: only solvers can be checked")


def checked_solver(maker: Maker[Solver], limit: float, name: str = "") -> Checked:
    """Run all checks of a solver. Raises ValueError if its constructor does."""
    findings = run_checks(solver_checks(Simulated(maker)), limit)
    return Checked(name or maker.name, "solver", findings)


def _find(name: str) -> type[Any]:
    """The class that a name stands for. Raises ValueError."""
    known = {name: entry.path for name, entry in SOLVER.table.items()}
    if name not in known and ":" not in name:
        raise ValueError(
            f"{name} is not known: it must be one of {', '.join(known)}, or an import path such as "
            "my_package.wave:Wave"
        )
    module, _, attribute = known.get(name, name).partition(":")
    with their_mistakes(f"importing {module} failed"):
        loaded = importlib.import_module(module)
    found = getattr(loaded, attribute, None)
    if not isinstance(found, type):
        raise ValueError(f"{module} has no class {attribute}")
    return found
