"""The settings that a solver declares to refine its grid change nothing else."""

import importlib
import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.base import Solver
from solvers.external import External
from solvers.table import TABLE

pytestmark = pytest.mark.usefixtures("one_thread")

# The values that each setting may take here, few enough to be quick.
VALUES = {"grid_size": (24, 32), "points": (32, 80), "substeps": (16, 64)}
# Of other settings, a value that is not the default one.
OTHERS: dict[str, Any] = {
    "stored_steps": 7,
    "final_time": 0.4,
    "length": 60.0,
    "dimensions": 1,
    "first_time": 0.5,
}
# What stays the same only in the surrogate's eyes: how exactly a simulation is computed.
NUMERICAL = {"substeps", "step", "precision"}


def kind_of(name: str) -> type[Solver]:
    module, _, attribute = TABLE[name].path.partition(":")
    found: type[Solver] = getattr(importlib.import_module(module), attribute)
    return found


def facts(solver: Solver) -> dict[str, Any]:
    """What a surrogate has learnt, beside the grid: where, when, of what and within what."""
    space = solver.parameters
    middle = space.from_unit(np.full(len(space), 0.5))
    shape, spacing = np.array(solver.grid.shape), np.array(solver.grid.spacing)
    return {
        # A grid's outermost points lie on its ends, or half a spacing within.
        "extents": [
            np.round(shape * spacing, 6).tolist(),
            np.round((shape - 1) * spacing, 6).tolist(),
        ],
        "axes": len(shape),
        "units": (solver.grid.units, solver.time_units),
        "times": solver.times(middle).tolist(),
        "fields": solver.fields,
        "names": space.names,
        "bounds": (space.low.tolist(), space.high.tolist(), space.log.tolist()),
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    extents = zip(one["extents"], other["extents"], strict=True)
    return any(np.allclose(a, b) for a, b in extents if len(a) == len(b)) and all(
        one[key] == other[key] for key in one if key != "extents"
    )


BUILT_IN = [name for name in TABLE if name != "external"]


@pytest.mark.parametrize("name", BUILT_IN)
@settings(max_examples=8)
@given(data=st.data())
def test_a_declared_setting_refines_the_grid_alone(name: str, data: st.DataObject) -> None:
    kind = kind_of(name)
    drawn = {
        setting: data.draw(st.integers(*VALUES[setting]), label=setting)
        for setting in kind.grid_settings
    }
    assert set(drawn) <= set(inspect.signature(kind).parameters)
    base = {"grid_size": 28} if "grid_size" in drawn else {}
    assert same(facts(kind(**base)), facts(kind(**drawn)))


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_changes_more_than_the_grid_is_not_declared(name: str) -> None:
    kind = kind_of(name)
    base = {"grid_size": 28} if "grid_size" in inspect.signature(kind).parameters else {}
    for setting in set(inspect.signature(kind).parameters) & set(OTHERS):
        assert not same(facts(kind(**base)), facts(kind(**{**base, setting: OTHERS[setting]})))
        assert setting not in kind.grid_settings
    for setting in set(inspect.signature(kind).parameters) - set(OTHERS) - NUMERICAL - set(VALUES):
        assert setting not in kind.grid_settings


def test_of_a_program_no_setting_is_known_to_refine_the_grid() -> None:
    assert External.grid_settings == ()
