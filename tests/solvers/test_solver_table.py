"""The table of solvers says of each what its class says."""

import importlib
import inspect
import math
from typing import get_type_hints

import pytest

from framework.study.component import describe
from solvers.base import Solver
from solvers.table import TABLE


def solver_class(name: str) -> type[Solver]:
    module, _, attribute = TABLE[name].path.partition(":")
    found: type[Solver] = getattr(importlib.import_module(module), attribute)
    return found


@pytest.mark.parametrize("name", TABLE)
def test_the_settings_are_the_arguments_of_the_constructor(name: str) -> None:
    there, here = solver_class(name), TABLE[name].settings
    constructed = inspect.signature(there).parameters
    assert [(item.name, item.default, item.kind) for item in constructed.values()] == [
        (item.name, item.default, item.kind) for item in inspect.signature(here).parameters.values()
    ]
    annotated = get_type_hints(there.__init__, include_extras=True)
    assert get_type_hints(here, include_extras=True) == annotated


@pytest.mark.parametrize("name", TABLE)
def test_the_summary_is_the_first_sentence_of_the_documentation(name: str) -> None:
    assert describe(name, TABLE[name].settings) == describe(name, solver_class(name))


@pytest.mark.parametrize("name", [name for name in TABLE if name != "external"])
def test_the_facts_are_those_of_the_solver_with_its_default_settings(name: str) -> None:
    solver = solver_class(name)()
    parameters = [
        f"{item.name} [{item.low:g}, {item.high:g}]{units(item.units)}"
        + (" log-uniform" if item.prior == "log_uniform" else "")
        for item in solver.parameters.items
    ]
    spacing = " x ".join(f"{spacing:.3g}" for spacing in solver.grid.spacing)
    times = "" if solver.time_units == "1" else f", times in {solver.time_units}"
    orders = {"space": solver.order.space, "time": solver.order.time}
    assert TABLE[name].facts == {
        "fields": ", ".join(field.name + units(field.units) for field in solver.fields),
        "grid": f"{' x '.join(map(str, solver.grid.shape))}, spacing {spacing}"
        f"{units(solver.grid.units)}",
        "stored": f"{solver.stored_steps} steps{times}",
        "order": ", ".join(f"{n:g} in {axis}" for axis, n in orders.items() if math.isfinite(n)),
        "parameters": ", ".join(parameters),
    }


def test_what_cannot_be_made_without_settings_has_no_facts() -> None:
    assert TABLE["external"].facts == {}


def units(units: str) -> str:
    return "" if units == "1" else f" {units}"
