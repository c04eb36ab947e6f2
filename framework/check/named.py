"""Check the solver, surrogate or buffer of a name, Millstream's or the user's own."""

import importlib
from collections.abc import Mapping
from inspect import signature
from typing import Any

from framework.check.buffer import buffer_checks
from framework.check.findings import Check, Checked, KindChecked
from framework.check.maker import Maker
from framework.check.running import run_checks
from framework.check.simulated import Simulated
from framework.check.solver import solver_checks
from framework.check.surrogate import surrogate_checks
from framework.check.trial import MODES
from framework.errors import StudyError, did_you_mean
from framework.stream.buffers.buffer import Buffer
from framework.study.buffers import BUFFERS
from framework.study.component import SOLVER, SURROGATE, their_mistakes
from solvers.base import Solver
from surrogates.base import Surrogate


def check_named(name: str, settings: Mapping[str, Any], limit: float) -> Checked:
    """Check the class of a registered name or an import path such as my_solver:Wave.

    `limit`: the most seconds that one check may take. Raises StudyError if there is no such class,
    or its constructor refuses the settings.
    """
    try:
        return check_class(_find(name), settings, limit, name)
    except ValueError as error:
        raise StudyError(str(error)) from None


def check_class(
    found: type[Any], settings: Mapping[str, Any], limit: float, name: str = ""
) -> Checked:
    """Run all checks of a solver, a surrogate or a buffer.

    Raises ValueError if it is none of them, or its constructor refuses the settings.
    """
    kind, checks = checks_of(found, settings)
    return Checked(name or found.__name__, kind, run_checks(checks, limit))


def checks_of(found: type[Any], settings: Mapping[str, Any]) -> tuple[KindChecked, list[Check]]:
    """Return the kind of a class, and its checks. Raises ValueError as `check_class` does."""
    if issubclass(found, Solver):
        return "solver", solver_checks(Simulated(Maker[Solver](found, settings)))
    if issubclass(found, Surrogate):
        return "surrogate", surrogate_checks(_surrogate_maker(found, settings))
    if issubclass(found, Buffer):
        if settings:
            raise ValueError(
                f"{', '.join(settings)}: a buffer is checked with many sizes, and has no settings"
            )
        return "buffer", buffer_checks(found)
    raise ValueError(f"{found.__name__} is neither a Solver nor a Surrogate nor a Buffer")


def _surrogate_maker(found: type[Surrogate], settings: Mapping[str, Any]) -> Maker[Surrogate]:
    """Return a maker with a mode that the class has, as each check then chooses one."""
    refused = []
    for mode in MODES if "mode" in signature(found).parameters else ():
        try:
            return Maker(found, {"mode": mode, **settings}, SURROGATE.leading)
        except ValueError as error:
            refused.append(error)
    if refused:
        raise refused[0]
    return Maker(found, settings, SURROGATE.leading)


def _find(name: str) -> type[Any]:
    """Return the class of a name. Raises ValueError."""
    tables: tuple[Mapping[str, Any], ...] = (SOLVER.table, SURROGATE.table, BUFFERS)
    known = {name: entry.path for table in tables for name, entry in table.items()}
    if name not in known and ":" not in name:
        raise ValueError(
            f"{name} is not known: it must be one of {', '.join(known)}, or an import path such as "
            f"my_package.wave:Wave{did_you_mean(name, known)}"
        )
    module, _, attribute = known.get(name, name).partition(":")
    with their_mistakes(f"importing {module} failed"):
        loaded = importlib.import_module(module)
    found = getattr(loaded, attribute, None)
    if not isinstance(found, type):
        raise ValueError(f"{module} has no class {attribute}")
    return found
