"""What a study can name, for `millstream list`."""

import math
from pathlib import Path

import solvers.base
import surrogates.base
from framework.study.component import describe, find, settings_of
from solvers.base import Solver
from surrogates.base import Surrogate


def listing() -> dict[str, list[dict[str, str]]]:
    """What a study can name, and the studies in configs/: for each its name and what it is."""
    entries: dict[str, list[dict[str, str]]] = {"solvers": [], "surrogates": [], "studies": []}
    for name in solvers.base.REGISTERED:
        solver = find(name, "solver", solvers.base.REGISTERED, Solver)
        entry = describe(name, solver, leading=0)
        settings = settings_of(solver, leading=0).model_fields.values()
        if not any(setting.is_required() for setting in settings):
            entry |= _facts(solver())
        entries["solvers"].append(entry)
    for name in surrogates.base.REGISTERED:
        surrogate = find(name, "surrogate", surrogates.base.REGISTERED, Surrogate)
        entries["surrogates"].append(describe(name, surrogate, leading=1))
    for path in sorted(Path("configs").rglob("*.yaml")):
        comment = path.read_text().partition("\n")[0]
        entries["studies"].append({"name": str(path), "summary": comment.lstrip("# ")})
    return entries


def _facts(solver: Solver) -> dict[str, str]:
    """Of a solver with the settings that it has: its fields, grid, times and parameters."""
    grid, order = solver.grid, solver.order
    points = " x ".join(map(str, grid.shape))
    spacing = " x ".join(f"{spacing:.3g}" for spacing in grid.spacing)
    times = "" if solver.time_units == "1" else f", times in {solver.time_units}"
    parameters = (
        f"{item.name} [{item.low:g}, {item.high:g}]{_units(item.units)}"
        + (" log-uniform" if item.prior == "log_uniform" else "")
        for item in solver.parameters.items
    )
    orders = {"space": order.space, "time": order.time}
    return {
        "fields": ", ".join(field.name + _units(field.units) for field in solver.fields),
        "grid": f"{points}, spacing {spacing}{_units(grid.units)}",
        "stored": f"{solver.stored_steps} steps{times}",
        "order": ", ".join(f"{n:g} in {axis}" for axis, n in orders.items() if math.isfinite(n)),
        "parameters": ", ".join(parameters),
    }


def _units(units: str) -> str:
    return "" if units == "1" else f" {units}"
