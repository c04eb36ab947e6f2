"""What only a solver or a surrogate can tell is found before Ray starts, and each is made once."""

import sys
from pathlib import Path

import pytest
import ray
from commands import SMALL, in_process, once
from places import QUICKSTART

MINE = '''
import os
from pathlib import Path

from light import Light
from surrogates.mlp import Mlp

class Counted(Light):
    """Light that notes the process of each of its instances."""
    def __init__(self, grid_size: int = 16, stored_steps: int = 10) -> None:
        super().__init__(grid_size, stored_steps)
        with Path(__file__).with_name("made").open("a") as file:
            file.write(f"{os.getpid()}\\n")

class Refuses(Mlp):
    """An Mlp that refuses some settings."""
    def __init__(self, problem, mode="direct", width: int = 8) -> None:
        if width > 8:
            raise ValueError(f"width is {width}: it has to be 8 at most")
        super().__init__(problem, mode, (width,))
'''
COUNTED = once(
    *SMALL, "solver={name: 'mine:Counted'}", "design.simulations=8", "buffer.watermark=8"
)
POINT = ["initial=150", "left=480", "right=200", "bottom=300", "top=120"]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a module of the user's own."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # that of the test before
    return tmp_path


def made(directory: Path) -> int:
    """How many solvers the last command has made in its own process, which made the first."""
    processes = (directory / "made").read_text().split()
    (directory / "made").unlink()
    return processes.count(processes[0])


@pytest.mark.usefixtures("on_cluster")
def test_every_command_makes_the_solver_once(directory: Path) -> None:
    for command in ("simulate", "train"):
        ran = in_process(directory, command, str(QUICKSTART), *COUNTED)
        assert ran.returncode == 0, ran.stderr
        assert made(directory) == 1
    ran = in_process(directory, "resume", "runs/small")
    assert ran.returncode == 0, ran.stderr
    assert made(directory) == 1
    ran = in_process(directory, "predict", "runs/small", *POINT)
    assert ran.returncode == 0, ran.stderr
    assert not (directory / "made").exists()


@pytest.mark.parametrize("command", ["train", "simulate", "compare"])
@pytest.mark.parametrize(
    ("surrogate", "message"),
    [
        ("{name: fno, modes: 17}", "surrogate: modes is 17, but a grid of (16, 16) has at most 16"),
        ("{name: mine:Refuses, width: 9}", "surrogate: width is 9: it has to be 8 at most"),
        ("{name: mine:Refuses, depth: 2}", "surrogate.depth is not a setting"),
        ("{name: mine:Absent}", "surrogate.name is mine:Absent: mine has no Absent"),
    ],
)
def test_a_surrogate_that_its_constructor_refuses_is_found_before_ray_starts(
    directory: Path, command: str, surrogate: str, message: str
) -> None:
    ray.shutdown()
    arguments = once(*COUNTED, f"surrogate={surrogate}", "training.stop.steps=50")
    ran = in_process(directory, command, str(QUICKSTART), *arguments)
    assert ran.returncode == 2, ran.stderr
    checking, error = ran.stderr.splitlines()
    name = surrogate.strip("{}").split(",")[0].removeprefix("name: ")
    said = f"checking {QUICKSTART}: solver mine:Counted, surrogate {name}"
    assert checking == f"millstream: {said}"
    assert message in error
    assert not ray.is_initialized()
    assert made(directory) == 1
    assert not (directory / "stores").exists()
    assert not (directory / "runs").exists()
