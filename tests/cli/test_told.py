"""Every command says what it waits for, before it waits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import SMALL, in_process, once
from places import QUICKSTART, ROOT

STUDY = str(QUICKSTART)
# Runs a command where what takes long to import says so instead.
WATCHED = """
import json, sys
from importlib.abc import MetaPathFinder

SLOW = {"ray", "zarr", "torch", "mlflow", "matplotlib", "numba", "scipy", "xarray"}

class Watch(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in SLOW:
            raise SystemExit(f"importing {name}")

sys.meta_path.insert(0, Watch())
from framework.cli.main import app
app(json.loads(sys.argv[1]))
"""
FIRST = [
    (["train", STUDY], f"checking {STUDY}: solver heat, surrogate fno"),
    (["simulate", STUDY], f"checking {STUDY}: solver heat, surrogate fno"),
    (["compare", STUDY], f"checking {STUDY}: solver heat, surrogate fno"),
    (["resume", "runs/small"], "checking runs/small/study.yaml: solver light:Light"),
    (["predict", "runs/small", "top=1"], "loading the surrogate of runs/small"),
    (
        ["predict", "models:/small/1", "top=1"],
        "loading the surrogate of models:/small/1, fetched from MLflow",
    ),
    (["index", "stores/small.zarr"], "reading the store stores/small.zarr and making its solver"),
    (["invert", "small.zarr", "--field", "x.npz"], "reading the store small.zarr, and searching"),
    (["check", "heat"], "checking heat"),
]


@pytest.mark.parametrize(("arguments", "line"), FIRST, ids=lambda value: str(value)[:30])
def test_a_line_comes_before_anything_slow_is_imported(
    tmp_path: Path, arguments: list[str], line: str
) -> None:
    run = tmp_path / "runs" / "small"
    run.mkdir(parents=True)
    (run / "study.yaml").write_text(
        QUICKSTART.read_text().replace("name: heat", "name: 'light:Light'", 1)
    )
    ran = subprocess.run(
        [sys.executable, "-c", WATCHED, json.dumps(arguments)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=480,
    )
    told, slow = ran.stderr.splitlines()
    assert told.startswith(f"millstream: {line}")
    assert "importing " in slow


@pytest.mark.usefixtures("on_cluster")
def test_a_run_says_what_it_waits_for_from_its_start_to_its_end(tmp_path: Path) -> None:
    tracked = ["tracking.uri=sqlite:///mlflow.db", "design.simulations=12"]
    ran = in_process(tmp_path, "train", STUDY, *once(*SMALL, *tracked))
    assert ran.returncode == 0, ran.stderr
    lines = [
        f"checking {STUDY}: solver light:Light, surrogate mlp",
        "joining the Ray cluster at ",
        "starting 2 solver processes: 4 held-out simulations come first, and training begins when "
        "the buffer holds 40 samples",
        "scoring the surrogate on the held-out simulations",
        "drawing pictures into runs/small/pictures",
        "sending what is left to MLflow at sqlite:///mlflow.db, for at most 60 s",
    ]
    places = [ran.stderr.index(f"millstream: {line}") for line in lines]
    assert places == sorted(places)
    source = once(*SMALL, "training.source=stores/small.zarr", "design.simulations=12")
    ran = in_process(tmp_path, "train", STUDY, *source)
    assert ran.returncode == 0, ran.stderr
    assert "and reading stores/small.zarr once for the statistics of its fields" in ran.stderr
    ran = in_process(
        tmp_path, "simulate", STUDY, *once(*SMALL, "design.simulations=14"), "--picture"
    )
    assert ran.returncode == 0, ran.stderr
    for line in ("joining the Ray cluster at ", "starting the solver processes: 2", "drawing "):
        assert f"millstream: {line}" in ran.stderr
