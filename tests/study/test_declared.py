"""What a solver declares wrongly is refused in one sentence, before anything starts."""

import sys
from pathlib import Path

import pytest
from commands import SMALL, in_process, once
from places import QUICKSTART

SOLVERS = """
import numpy as np
from light import Light
from solvers.base import Field, Grid, ParameterSpace, Solver

class NoParameters(Light):
    parameters = ParameterSpace()

class AListOfParameters(Light):
    parameters = list(Light.parameters.items)

class NoFields(Light):
    fields = ()

class TwoAlike(Light):
    fields = (Field("u"), Field("u"))

class Strings(Light):
    fields = ("u",)

class HalfAStep(Light):
    def __init__(self) -> None:
        super().__init__()
        self.stored_steps = 2.5

class NoStep(Light):
    def __init__(self) -> None:
        super().__init__()
        self.stored_steps = 0

def gridded(shape, spacing=None):
    def make(self) -> None:
        Light.__init__(self)
        self.grid = Grid(shape, (1.0,) * len(shape) if spacing is None else spacing)
    return {"__init__": make}

NoAxis = type("NoAxis", (Light,), gridded(()))
FourAxes = type("FourAxes", (Light,), gridded((2, 2, 2, 2)))
NoPoint = type("NoPoint", (Light,), gridded((4, 0)))
NumpyPoints = type("NumpyPoints", (Light,), gridded((np.int64(4),)))
AList = type("AList", (Light,), gridded([4, 4]))
NoSpacing = type("NoSpacing", (Light,), gridded((4, 4), (0.1,)))

class NoGrid(Solver):
    parameters, fields, stored_steps = Light.parameters, Light.fields, 10
    def times(self, parameters):
        return np.arange(10.0)
    def solve(self, parameters, seed):
        yield np.zeros((1, 4))

class StaticComplex(Light):
    static_fields = {"map": np.ones((16, 16), dtype=complex)}

class StaticHuge(Light):
    static_fields = {"map": np.full((16, 16), 1e300)}

class StaticOfAnotherShape(Light):
    static_fields = {"map": np.ones((16, 15))}

class OneName(Light):
    grid_settings = "grid_size"

class UnknownName(Light):
    grid_settings = ("grid_size", "points")

class SeedByName(Light):
    uses_seed = "yes"

class FlatAffine(Light):
    affine = np.ones(4)
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the solvers of a user."""
    (tmp_path / "wrong.py").write_text(SOLVERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "wrong", raising=False)
    return tmp_path


@pytest.mark.parametrize("command", ["train", "simulate", "compare"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoParameters", "parameters is a ParameterSpace without parameters in it"),
        ("AListOfParameters", "it has to be a ParameterSpace(Parameter(...), ...)"),
        ("NoFields", "fields is empty: it has to name one field or more, each once"),
        ("TwoAlike", "fields is u, u: it has to name one field or more, each once"),
        ("Strings", "fields is ('u',): it has to be a tuple such as (Field('u'),)"),
        ("HalfAStep", "stored_steps is 2.5: it has to be a whole number of at least 1"),
        ("NoStep", "stored_steps is 0: it has to be a whole number of at least 1"),
        ("NoAxis", "grid.shape is (): it has to be a tuple of one to three whole numbers from 1"),
        ("FourAxes", "grid.shape is (2, 2, 2, 2): it has to be a tuple of one to three"),
        ("NoPoint", "grid.shape is (4, 0): it has to be a tuple of one to three"),
        ("NumpyPoints", "grid.shape is (np.int64(4),): it has to be a tuple of one to three"),
        ("AList", "grid.shape is [4, 4]: it has to be a tuple of one to three"),
        ("NoSpacing", "grid.spacing is (0.1,): it has to be a tuple, a positive number for each"),
        ("NoGrid", "not set: grid"),
        ("StaticComplex", "the static field map has the type complex128: it has to hold real"),
        ("StaticHuge", "the static field map has NaN, infinity, or a number too large"),
        ("StaticOfAnotherShape", "the static field map has shape (16, 15): it has to be (16, 16)"),
        (
            "OneName",
            "grid_settings is 'grid_size': it has to be a tuple of names, such as ('points'",
        ),
        ("UnknownName", "grid_settings names points, which the constructor has not"),
        ("SeedByName", "uses_seed is 'yes': it has to be True or False"),
        ("FlatAffine", "it has to be an array [4, 4]"),
    ],
)
def test_a_solver_that_declares_what_cannot_be_is_refused(
    directory: Path, command: str, name: str, message: str
) -> None:
    overrides = once(*SMALL, f"solver={{name: wrong:{name}}}", "training.stop.steps=50")
    ran = in_process(directory, command, str(QUICKSTART), *overrides)
    assert ran.returncode == 2, ran.stderr
    _checking, sentence = ran.stderr.splitlines()
    assert sentence.startswith(f"millstream: {QUICKSTART}: solver: ")
    assert message in sentence
    assert not (directory / "runs").exists()
