"""What a study says of a program: both forms of everything, and what is refused before it runs."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from framework.errors import StudyError
from framework.study.case import Case
from framework.study.component import SOLVER, Component, factory
from framework.study.identity import first_difference, identity, study_hash
from framework.study.study import Study
from solvers.base import Solver

SETTINGS = """
name: external
command: [sh, -c, "exit 3", 64, 0.5, "{rate}", "{{text}}"]
parameters:
  rate: [0.1, 1e-0]
  size: {low: 1e-3, high: 2, units: m, prior: log_uniform}
env: {SIZE: "{size}", LEVEL: 3}
fields: {u: K, v: 1/s}
grid: {shape: [4, 6], spacing: [0.5, 0.25], units: m}
stored_steps: 5
final_time: 2
time_units: s
"""
STUDY = """
name: small
solver: {}
design: {simulations: 4}
buffer: {kind: fifo, capacity: 4}
surrogate: {name: mlp, hidden: [4]}
"""


def settings(**changes: Any) -> dict[str, Any]:
    """The settings above with some replaced, or left out where they are `...`."""
    values = yaml.safe_load(SETTINGS) | changes
    return {key: value for key, value in values.items() if value is not ...}


def made(**changes: Any) -> Solver:
    """A solver as a study makes it."""
    component = Component.model_validate(settings(**changes))
    solver = factory(component, SOLVER)()
    assert isinstance(solver, Solver)
    return solver


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Millstream is started, with a few files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "model").write_text("#!/bin/sh\n")
    (tmp_path / "build" / "model").chmod(0o755)
    (tmp_path / "plain").write_text("no program")
    (tmp_path / "in.txt").write_text("rate = {rate}, size = {size}")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    return tmp_path


def test_a_study_says_what_the_solver_is() -> None:
    solver = made()
    assert [vars(item) for item in solver.parameters.items] == [
        {
            "name": "rate",
            "low": 0.1,
            "high": 1.0,
            "units": "1",
            "prior": "uniform",
            "minimum": -np.inf,
        },
        {
            "name": "size",
            "low": 0.001,
            "high": 2.0,
            "units": "m",
            "prior": "log_uniform",
            "minimum": -np.inf,
        },
    ]
    assert [(field.name, field.units) for field in solver.fields] == [("u", "K"), ("v", "1/s")]
    assert vars(solver.grid) == {"shape": (4, 6), "spacing": (0.5, 0.25), "units": "m"}
    assert solver.stored_steps == 5
    assert solver.time_units == "s"
    np.testing.assert_array_equal(solver.times(np.zeros(2)), [0, 0.5, 1, 1.5, 2])


def test_stored_times_can_be_listed() -> None:
    solver = made(stored_steps=..., final_time=..., times=[0, 1, 10])
    np.testing.assert_array_equal(solver.times(np.zeros(2)), [0, 1, 10])
    assert solver.stored_steps == 3


@pytest.mark.parametrize("name", ["./build/model", "build/model", "../{here}/build/model"])
def test_a_program_is_found_from_where_millstream_was_started(name: str, here: Path) -> None:
    made(command=[name.replace("{here}", here.name), "{rate}"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"command": ["no-such-program"]},
            "which is in none of the directories of PATH: ./no-such-program is a file in /",
        ),
        ({"command": ["./modle", "{rate}"]}, "solver.command: there is no ./modle in /"),
        ({"command": ["bin/model"]}, "solver.command: there is no bin/model in /"),
        ({"command": ["/no/model"]}, "command begins with /no/model, which does not exist"),
        ({"command": ["./{rate}"]}, "the program itself can have no placeholder"),
        (
            {"command": ["sh", "./in.txt", "{rate}"], "template": "in.txt"},
            "/in.txt itself: write in.txt, the filled one lies in the program's directory",
        ),
        ({"command": ["./plain"]}, "/plain, which is not executable: chmod +x /"),
        ({"command": ["./build"]}, "/build, which is a directory"),
        ({"command": ["{rate}"]}, "the program itself can have no placeholder"),
        ({"command": ["sh", "./model.sh"]}, "solver.command: there is no ./model.sh in /"),
        ({"command": []}, "solver.command is []"),
        ({"command": "sh run.sh"}, "solver.command is 'sh run.sh': "),
        ({"command": ["sh", True]}, "solver.command: it is ['sh', True]: true and false"),
        (
            {"command": ["sh", "{rato}"]},
            "placeholder {rato}, but the parameters are rate, size, seed; did you mean {rate}?",
        ),
        (
            {"command": ["sh", "${HOME}"]},
            "placeholder {HOME}, but the parameters are rate, size, seed; {{HOME}} means the text",
        ),
        ({"command": ["sh", "{rate}", "a\0b"]}, "command has a zero byte in it"),
        ({"env": {"A": "{b}"}}, "env.A has the placeholder {b}"),
        (
            {"env": {}},
            "is not told the parameter size: {size} has to be in command, env or the template",
        ),
        ({"env": {"A=B": "{size}"}}, "env has 'A=B'"),
        ({"env": {"MILLSTREAM_TOKEN": "{size}"}}, "env has 'MILLSTREAM_TOKEN'"),
        ({"template": "absent.txt"}, "/absent.txt cannot be read: No such file"),
        ({"template": "build"}, "/build cannot be read: Is a directory"),
        ({"template": "binary"}, "/binary is not text in UTF-8"),
        ({"parameters": {}}, "solver.parameters is {}"),
        ({"parameters": {"rate": [1, 0], "size": [0, 1]}}, "bounds of rate are [1.0, 0.0]"),
        (
            {"parameters": {"rate": [1]}},
            "solver.parameters.rate: it is [1]: it has to be [low, high]",
        ),
        ({"parameters": {"rate": {"low": 1}}}, "solver.parameters.rate.high is missing"),
        (
            {"parameters": {"rate": {"low": 0, "high": 1, "unit": "m"}, "size": [0, 1]}},
            "solver.parameters.rate.unit",
        ),
        (
            {"parameters": {"rate": [0, "a lot"], "size": [0, 1]}},
            "solver.parameters.rate.high is 'a lot'",
        ),
        ({"parameters": {"seed": [0, 1]}}, "a parameter cannot be called 'seed'"),
        ({"parameters": {"a-b": [0, 1]}}, "a parameter cannot be called 'a-b'"),
        ({"fields": {}}, "solver.fields is {}"),
        ({"fields": ["u"]}, "solver.fields is ['u']"),
        (
            {"grid": {"shape": [4, 6], "spacing": [1]}},
            "grid.spacing is [1.0]: it has to be a positive number for each of the 2 axes",
        ),
        ({"grid": {"shape": [4], "spacing": [0]}}, "grid.spacing is [0.0]"),
        ({"grid": {"shape": [], "spacing": []}}, "grid.shape is []: it has to be one to three"),
        ({"grid": {"shape": [0], "spacing": [1]}}, "grid.shape is [0]"),
        ({"grid": {"shape": [4]}}, "solver.grid.spacing"),
        ({"grid": {"shape": [4], "spacing": [1], "unit": "m"}}, "solver.grid.unit"),
        ({"times": [0, 1]}, "give either stored_steps and final_time, or times"),
        ({"final_time": ...}, "give either stored_steps and final_time, or times"),
        ({"final_time": ..., "stored_steps": ..., "times": [0, 0]}, "times are [0.0, 0.0]"),
        ({"final_time": ..., "stored_steps": ..., "times": []}, "solver.times is []"),
        ({"stored_steps": 0}, "solver.stored_steps is 0"),
        ({"time_limit": 0}, "solver.time_limit is 0"),
        (
            {"stays": True, "env": {}},
            "command has the placeholder {rate}, but stays is true: the program asks for the param",
        ),
        (
            {"stays": True, "command": ["sh"], "env": {"SEED": "{seed}"}},
            "env.SEED has the placeholder {seed}, but stays is true",
        ),
        ({"uses_seed": True}, "uses_seed is true, but stays is not"),
        ({"shell": True}, "solver.shell is not a setting: solver has command, parameters, fields,"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_runs(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    study = yaml.safe_load(STUDY) | {"solver": settings(**changes)}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    with pytest.raises(StudyError) as caught:
        Case(Study.load(tmp_path / "study.yaml"))
    said = str(caught.value)
    assert message in said
    assert "\n" not in said


def test_a_long_path_of_temporary_files_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / (80 * "x")))
    with pytest.raises(ValueError, match="set TMPDIR to a shorter one"):
        made()


def test_what_a_template_says_is_part_of_what_is_stored_and_where_it_lies_is_not(
    here: Path,
) -> None:
    def stored(template: str) -> Any:
        values = yaml.safe_load(STUDY) | {"solver": settings(template=template)}
        study = Study.model_validate(values)
        return identity(Case(study))

    (here / "elsewhere").mkdir()
    (here / "elsewhere" / "in.txt").write_text((here / "in.txt").read_text())
    first = stored("in.txt")
    assert stored("elsewhere/in.txt") == first
    (here / "in.txt").write_text("rate = {rate}, size = {size}, order = 2")
    assert stored("in.txt") != first
    assert "in.txt" in stored("in.txt")["solver"]["template"]


def test_whether_a_program_stays_makes_no_difference_to_what_is_stored() -> None:
    """Nor do stores of before there were these settings differ from those of now."""
    solver = settings(command=["sh"], env={}, stays=True, uses_seed=True)
    study = Study.model_validate(yaml.safe_load(STUDY) | {"solver": solver})
    now = identity(Case(study))
    before = {key: now["solver"][key] for key in now["solver"].keys() - {"stays", "uses_seed"}}
    assert first_difference(now | {"solver": before}, now) == ""


def test_a_solver_is_made_alike_where_another_process_was_started(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "words").write_text("#!/bin/sh\nexit 3")
    component = Component.model_validate(
        settings(command=["build/model", "./words"], template="in.txt")
    )
    make = factory(component, SOLVER)
    monkeypatch.chdir("/")
    assert isinstance(make(), Solver)


def test_what_is_stored_does_not_depend_on_where_millstream_was_started(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(here, here / "copy")
    stored = []
    for directory in (here, here / "copy"):
        monkeypatch.chdir(directory)
        values = settings(command=["build/model", "./plain", "{rate}", 5], template="in.txt")
        study = Study.model_validate(yaml.safe_load(STUDY) | {"solver": values})
        stored.append(identity(Case(study)))
    assert stored[0] == stored[1]
    assert stored[0]["solver"]["command"] == ["./build/model", "./plain", "{rate}", 5]


@pytest.mark.parametrize("setting", ["parameters", "fields"])
def test_the_order_of_parameters_and_fields_is_part_of_what_is_stored(setting: str) -> None:
    values = settings()
    backwards = settings(**{setting: dict(reversed(values[setting].items()))})
    first, second = (
        Study.model_validate(yaml.safe_load(STUDY) | {"solver": solver})
        for solver in (values, backwards)
    )
    assert study_hash(identity(Case(first))) != study_hash(identity(Case(second)))
