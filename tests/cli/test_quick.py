"""Help, lists and mistakes in a study answer at once: without Ray, zarr, torch or MLflow."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from places import QUICKSTART, ROOT

# Runs commands, one after another, where what is slow to import cannot be imported.
BLOCKED = """
import json, sys

for name in ("ray", "zarr", "torch", "mlflow", "matplotlib", "numba", "scipy", "xarray"):
    sys.modules[name] = None
import framework.study.study
from typer.testing import CliRunner
from framework.cli.main import app

ended = {}
for arguments in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, arguments)
    error = result.exception
    ended[" ".join(arguments)] = {
        "status": result.exit_code,
        "output": result.stdout,
        "errors": result.stderr,
        "raised": None if error is None or isinstance(error, SystemExit) else repr(error),
    }
print(json.dumps(ended))
"""
STUDY = str(QUICKSTART)
COMMANDS = [
    "train",
    "resume",
    "simulate",
    "compare",
    "predict",
    "export",
    "index",
    "invert",
    "list",
]
HELP = [["--help"], *([command, "--help"] for command in COMMANDS)]
LISTS = [["list"], *(["list", kind] for kind in ("solvers", "surrogates", "studies"))]
MISTAKES = [
    *(
        ([command, STUDY, "training.batch=5"], "training.batch is not a setting")
        for command in ("train", "simulate", "compare")
    ),
    (["train", STUDY, "solver.grid_size=many"], "solver.grid_size is 'many'"),
    (["simulate", STUDY, "solver.grid_size=2"], "solver.grid_size is 2: input should be"),
    (["train", STUDY, "solver.points=2"], "solver.points is not a setting"),
    (["simulate", STUDY, "solver.name=heet"], "did you mean heat?"),
    (["simulate", STUDY, "surrogate={name: fno, modes: 0}"], "surrogate.modes is 0"),
    (["train", "nowhere.yaml"], "nowhere.yaml cannot be read"),
    (["resume", "runs/none"], "is not the directory of a run"),
    (["predict", "runs/none", "top=hot"], "top=hot is not of the form name=number"),
    (["export", "runs/none", "--format", "onnx"], "--format is onnx: it has to be one of pt2"),
    (["list", "planets"], "planets cannot be listed"),
]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How each command ended: command line -> status, output and errors."""
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            BLOCKED,
            json.dumps([*HELP, *LISTS, *(arguments for arguments, _ in MISTAKES)]),
        ],
        cwd=tmp_path_factory.mktemp("quick"),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=480,
    )
    assert ran.returncode == 0, ran.stderr
    answers: dict[str, Any] = json.loads(ran.stdout)
    assert {key: value["raised"] for key, value in answers.items() if value["raised"]} == {}
    return answers


@pytest.mark.parametrize("arguments", [*HELP, *LISTS], ids=" ".join)
def test_help_and_lists_need_nothing_slow(ended: dict[str, Any], arguments: list[str]) -> None:
    found = ended[" ".join(arguments)]
    assert found["status"] == 0
    assert len(found["output"]) > 5


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_are_found_before_anything_slow_is_imported(
    ended: dict[str, Any], arguments: list[str], message: str
) -> None:
    found = ended[" ".join(arguments)]
    assert found["status"] == 2
    assert message in found["errors"]
    assert "checking" not in found["errors"]
