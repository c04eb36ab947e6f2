"""Which code made a store's simulations: what counts as the solver's code, and what follows."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zarr
from commands import millstream
from places import QUICKSTART

from framework.study.component import SOLVER, Component, factory
from framework.study.fingerprint import changed, fingerprint
from solvers.base import Solver
from solvers.heat import Heat

OWN = """
import numpy as np
{imports}
from solvers.base import Field, Grid, Order, Parameter, ParameterSpace, Solver

class Own(Solver):
    parameters = ParameterSpace(Parameter("a", 0.0, 1.0))
    fields = (Field("u"),)
    order = Order(space=2, time=2)
    grid = Grid((8,), (1.0,))
    stored_steps = 3

    def times(self, parameters):
        return np.arange(3.0)

    def solve(self, parameters, seed):
        from {lazy} import late
        for t in range(3):
            yield np.full((1, 8), parameters[0] * t, dtype=np.float32)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to import from; what was imported from it is forgotten at the end."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("wave_package", "wave_plain", "helper", "later", "unrelated"):
        for module in [key for key in sys.modules if key.split(".")[0] == name]:
            del sys.modules[module]


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def made(module: str) -> dict[str, Any]:
    solver: Solver = importlib.import_module(module).Own()
    return fingerprint(solver)


def external(*command: str) -> Solver:
    """A program as a solver."""
    component = Component(
        name="external",
        command=[*command],
        parameters={"a": [0, 1]},
        fields={"u": "1"},
        grid={"shape": [4], "spacing": [1.0]},
        stored_steps=2,
        final_time=1.0,
    )
    solver: Solver = factory(component, SOLVER)()
    return solver


def test_a_package_s_imported_files_are_its_code(folder: Path) -> None:
    package = folder / "wave_package"
    imports = "from . import near\nfrom wave_package.sub import far\nimport json"
    files = {
        "__init__.py": "",
        "own.py": OWN.format(imports=imports, lazy=".late"),
        "near.py": "x = 1",
        "far.py": "",
        "late.py": "late = 1",
        "unused.py": "",
    }
    write(package, files)
    write(package / "sub", {"__init__.py": "", "far.py": "from .. import deep"})
    write(package, {"deep.py": ""})
    found = made("wave_package.own")["files"]
    expected = {"__init__.py", "own.py", "near.py", "late.py", "deep.py"}
    assert set(found) == expected | {"sub/__init__.py", "sub/far.py"}
    for name in found:
        text = (package / name).read_text()
        (package / name).write_text(text + "\n# changed")
        assert changed({"version": 1, "files": found}, made("wave_package.own")) == (
            f"{name} has changed since"
        )
        (package / name).write_text(text)
    assert made("wave_package.own")["files"] == found


def test_a_plain_module_s_code_lies_in_its_folder(folder: Path) -> None:
    write(
        folder,
        {
            "wave_plain.py": OWN.format(imports="import helper", lazy="later"),
            "helper.py": "",
            "later.py": "late = 1",
            "unrelated.py": "",
        },
    )
    write(folder / "site-packages", {"elsewhere.py": ""})
    importlib.import_module("unrelated")
    assert set(made("wave_plain")["files"]) == {"wave_plain.py", "helper.py", "later.py"}


def test_what_is_beside_a_link_is_its_code(folder: Path) -> None:
    write(folder / "real", {"linked.py": OWN.format(imports="import helper", lazy="later")})
    write(folder, {"helper.py": "", "later.py": "late = 1"})
    (folder / "wave_plain.py").symlink_to(folder / "real" / "linked.py")
    assert set(made("wave_plain")["files"]) == {"wave_plain.py", "helper.py", "later.py"}


def test_no_file_is_run_to_be_noted(folder: Path) -> None:
    """One that nobody has imported may be broken, or end the process."""
    write(
        folder,
        {
            "wave_plain.py": OWN.format(imports="", lazy="later.deep"),
            "unrelated.py": "",
        },
    )
    write(folder / "later", {"__init__.py": "raise SystemExit", "deep.py": "import unrelated ("})
    assert set(made("wave_plain")["files"]) == {
        "wave_plain.py",
        "later/__init__.py",
        "later/deep.py",
    }


def test_what_was_added_or_removed_is_told() -> None:
    before = {"version": 1, "files": {"a.py": "1", "b.py": "2", "c.py": "3"}}
    after = {"version": 1, "files": {"a.py": "1", "b.py": "9", "d.py": "4", "e.py": "5"}}
    assert changed(before, after) == (
        "b.py has changed since, d.py, e.py have been added since, c.py has been removed since"
    )
    assert not changed(before, before)


def test_a_built_in_solver_s_code_is_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(Heat())
    assert before == {"version": 1, "files": {}}
    monkeypatch.setattr(Heat, "version", 2)
    assert changed(before, fingerprint(Heat())) == "the solver's version was 1 and is 2"


@pytest.mark.parametrize("launcher", [[], [sys.executable], ["/usr/bin/env", "sh"]])
def test_a_program_s_code_is_its_file(tmp_path: Path, launcher: list[str]) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    solver = external(*launcher, str(program), "{a}")
    before = fingerprint(solver)
    assert set(before["files"]) == {"program"}
    program.write_text("#!/bin/sh\nexit 0\n")
    assert changed(before, fingerprint(solver)) == "program has changed since"


def test_a_program_and_its_input_files_count(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    inputs = [tmp_path / "one" / "in.dat", tmp_path / "two" / "in.dat"]
    for path in inputs:
        path.parent.mkdir()
        path.write_text(path.parent.name)
    solver = external(str(program), *map(str, inputs), "{a}")
    before = fingerprint(solver)
    assert set(before["files"]) == {"program", "in.dat", "in.dat (2)"}
    for path, name in [(program, "program"), (inputs[1], "in.dat (2)")]:
        text = path.read_text()
        path.write_text(f"{text}# changed")
        assert changed(before, fingerprint(solver)) == f"{name} has changed since"
        path.write_text(text)


@pytest.mark.usefixtures("on_cluster")
def test_a_store_of_other_code_is_continued_only_if_asked(tmp_path: Path) -> None:
    solver = tmp_path / "own_wave.py"
    text = OWN.format(imports="", lazy="math").replace("import late", "import pi")
    solver.write_text(text)

    def simulate(count: int, *more: str) -> Any:
        return millstream(
            tmp_path,
            *("simulate", str(QUICKSTART), "name=own", "solver={name: 'own_wave:Own'}"),
            *("ensemble.group_size=1", "surrogate={name: mlp}", *more),
            f"design={{simulations: {count}}}",
            "--json",
        )

    ran = simulate(3)
    assert ran.returncode == 0, ran.stderr
    solver.write_text(text + "\n# more accurate\n")
    refused = simulate(5)
    assert refused.returncode == 2
    assert "own_wave.py has changed since; restore it, set store.path" in (refused.stderr)
    assert "store.accept_code_change: true" in refused.stderr
    accepted = simulate(5, "store.accept_code_change=true")
    assert accepted.returncode == 0, accepted.stderr
    attributes = dict(zarr.open_group(tmp_path / "stores/own.zarr", mode="r").attrs)
    (earlier,) = json.loads(json.dumps(attributes["earlier_code"]))
    assert earlier["simulations"] == [0, 1, 2]
    assert earlier["code"]["files"] != attributes["study"]["code"]["files"]  # type: ignore[index, call-overload]
    assert simulate(6).returncode == 0  # by the code that is now the store's
