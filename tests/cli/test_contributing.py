"""The examples of CONTRIBUTING.md run as they stand there, and are as short as it says."""

import re
import sys
from pathlib import Path

import pytest
from commands import in_process, millstream, the_object
from places import ROOT
from waiting import LIMIT

pytestmark = pytest.mark.usefixtures("on_cluster")

GUIDE = ROOT / "CONTRIBUTING.md"


def examples() -> dict[str, str]:
    """The code blocks that begin with a file's name: name -> text."""
    blocks = re.findall(r"```\w+\n# (\S+)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    return dict(blocks)


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the examples, as if millstream had been started there."""
    for name, text in examples().items():
        (tmp_path / name).write_text(text)
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def code_lines(text: str) -> int:
    return len([line for line in text.splitlines() if line.strip()])


def test_the_examples_are_as_short_as_promised() -> None:
    declaration, numerics = examples()["my_solver.py"].split("    def solve(")
    assert code_lines(declaration) <= 20
    assert code_lines(numerics) <= 15
    assert code_lines(examples()["my_surrogate.py"]) <= 60


def test_the_examples_run_and_learn(tmp_path: Path) -> None:
    for name, text in examples().items():
        (tmp_path / name).write_text(text)
    ran = millstream(tmp_path, "train", "study.yaml", "--json")
    assert ran.returncode == 0, ran.stderr
    summary = the_object(ran.stdout)
    assert summary["simulations"] == {"requested": 60, "completed": 60, "quarantined": 0}
    assert summary["samples"]["untrained"] == 0
    errors = summary["validation"]["relative_l2"]
    assert errors["mean"] < min(summary["validation"]["trivial"].values()) / 2
    predicted = millstream(tmp_path, "predict", "runs/burgers", "viscosity=0.05", "amplitude=0.8")
    assert predicted.returncode == 0, predicted.stderr


@pytest.mark.parametrize("name", ["my_solver:Burgers", "my_surrogate:DeepONet", "my_buffer:Newest"])
def test_the_examples_pass_their_checks(name: str, importable: Path) -> None:
    ran = in_process(importable, "check", name, f"--limit={LIMIT:g}")
    assert ran.returncode == 0, ran.stdout
    assert " ok, 0 FAIL, " in ran.stdout


def test_the_surrogate_also_learns_autoregressively(importable: Path) -> None:
    command = ("train", "study.yaml", "surrogate.mode=autoregressive", "--json")
    ran = in_process(importable, *command)
    assert ran.returncode == 0, ran.stderr
    summary = the_object(ran.stdout)
    assert summary["samples"]["unique_trained"] == 60 * 19
    errors = summary["validation"]["relative_l2"]
    assert errors["mean"] < min(summary["validation"]["trivial"].values())
    arguments = ["viscosity=0.05", "amplitude=0.8", "--out", "p.npz"]
    assert in_process(importable, "predict", "runs/burgers", *arguments).returncode == 0
