"""Held-out trajectories in files: written in blocks, read in parts, damaged, too large."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trajectories import STEPS, Fields, held_out, make_fields

from framework.errors import DamagedError, WriteError
from framework.simulation.block import Block
from framework.training import scores
from framework.training.held_out import trajectories
from framework.training.scores import score, step_errors, summarise
from framework.training.validation import Validation
from surrogates.base import Mode, Problem
from surrogates.mlp import Mlp

torch.set_num_threads(1)

PROBLEM = Problem(
    ("p",), (0.0,), (1.0,), (False,), (0.0, 1.0), (0.1, 0.2), 2, (4, 5), np.empty((0, 4, 5))
)
FIELDS = make_fields(2, STEPS, 2, 4, 5)
TIMES = np.linspace(0, 1, STEPS)


def block(index: int, first: int, stop: int, data: Fields = FIELDS) -> Block:
    checksums = np.zeros(stop - first, dtype=np.uint32)
    parameters = np.array([0.25 + index])
    fields = data[index, first:stop]
    return Block(-1 - index, first, fields, parameters, TIMES[first:stop], checksums)


def validation(directory: Path) -> Validation:
    return Validation(partial(Mlp, PROBLEM), 1, directory / "held_out", STEPS)


def filled(directory: Path) -> Validation:
    """Both trajectories, in pieces that come in turns."""
    made = validation(directory)
    for first, stop in ((0, 1), (1, 3), (3, STEPS)):
        for index in (0, 1):
            made.add(block(index, first, stop), stop == STEPS)
    return made


def test_blocks_become_files_that_numpy_reads_and_a_resume_finds(tmp_path: Path) -> None:
    filled(tmp_path)
    folder = tmp_path / "held_out"
    assert sorted(path.name for path in folder.iterdir()) == ["0.npz", "1.npz"]
    with np.load(folder / "1.npz") as kept:
        np.testing.assert_array_equal(kept["fields"], FIELDS[1])
        np.testing.assert_array_equal(kept["times"], TIMES)
        np.testing.assert_array_equal(kept["parameters"], [1.25])
    # Earlier versions wrote each file by `numpy.savez`, in this order.
    np.savez(folder / "0.npz", parameters=np.array([0.25]), times=TIMES, fields=FIELDS[0])
    (folder / "1.npz.writing").touch()  # by a process that was killed
    found = validation(tmp_path)
    found.load()
    assert found.kept() == {-1, -2}
    for index in (0, 1):
        kept = found.trajectory(-1 - index)
        np.testing.assert_array_equal(kept.steps(1, 3), FIELDS[index, 1:3])
    assert not (folder / "1.npz.writing").exists()


def test_of_a_damaged_file_the_user_is_told_and_its_simulation_runs_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(tmp_path)
    path = tmp_path / "held_out" / "1.npz"
    whole = path.read_bytes()
    at = whole.index(FIELDS[1].tobytes()) + 7
    for damaged in (
        whole[: len(whole) // 2],  # cut off
        b"",
        whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],  # one bit of a field
        b"no zip file" * 100,
    ):
        path.write_bytes(damaged)
        found = validation(tmp_path)
        found.load()
        assert found.kept() == {-1}
        said = capsys.readouterr().err
        assert said.startswith(f"millstream: {path} is damaged: ")
        assert said.endswith("; its simulation runs again\n")
        assert said.count("\n") == 1
    found.add(block(1, 0, STEPS), last=True)
    with np.load(path) as kept:
        np.testing.assert_array_equal(kept["fields"], FIELDS[1])


def test_a_file_that_becomes_shorter_while_it_is_scored_is_told(tmp_path: Path) -> None:
    made = filled(tmp_path)
    kept = made.trajectory(-2)
    kept.path.write_bytes(kept.path.read_bytes()[: kept.offset + 8])
    with pytest.raises(DamagedError, match=r"1\.npz is damaged: it ends too early"):
        kept.steps(0, 1)


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may become larger, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_without_room_it_is_told_where_and_no_part_of_a_file_stays(tmp_path: Path) -> None:
    large = make_fields(2, STEPS, 2, 4, 5 * 400)
    made = validation(tmp_path)
    made.add(block(0, 0, 1, large), last=False)
    with (
        room_for(2 * large[0, 0].nbytes),
        pytest.raises(WriteError, match=r"cannot write .*held_out/0\.npz: File too large"),
    ):
        made.add(block(0, 1, STEPS, large), last=True)
    assert list((tmp_path / "held_out").iterdir()) == []
    (tmp_path / "held_out").rmdir()
    (tmp_path / "held_out").touch()
    with pytest.raises(WriteError, match=r"cannot write .*held_out"):
        made.add(block(1, 0, 1), last=False)


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in numbers(value[key])]
    if isinstance(value, list | tuple):
        return [number for item in value for number in numbers(item)]
    return [] if value is None else [float(value)]


@pytest.mark.parametrize("mode", ["direct", "autoregressive"])
def test_scores_in_parts_of_files_are_those_of_the_whole(
    mode: Mode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, surrogate = filled(tmp_path), Mlp(PROBLEM, mode)
    parts = trajectories([made.trajectory(-1), made.trajectory(-2)])
    whole = held_out(FIELDS)
    whole = scores.Trajectories(whole.simulations, parts.parameters, parts.times, FIELDS)
    expected = summarise(score(surrogate, whole), whole, 3, step_errors(surrogate, whole))
    step = FIELDS[0, 0].nbytes
    for size in (1, step, 2 * step, 3 * step):
        monkeypatch.setattr(scores, "PART_BYTES", size)
        found = summarise(score(surrogate, parts), parts, 3, step_errors(surrogate, parts))
        # The trivial predictors are of single precision, as all fields are.
        assert found.trivial == pytest.approx(expected.trivial, rel=1e-6)
        assert numbers(asdict(found)) == pytest.approx(numbers(asdict(expected)), rel=1e-6)
        assert numbers(asdict(found)["per_time"]) == pytest.approx(
            numbers(asdict(expected)["per_time"]), rel=1e-12
        )


_SCORING = """
import json, resource, sys
import numpy as np
from functools import partial
from pathlib import Path
from test_held_out import LARGE, STORED
from networks import Still
from framework.simulation.block import Block
from framework.training.validation import Validation

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

made = Validation(partial(Still, LARGE, "autoregressive"), 1, Path(sys.argv[1]), STORED)
before = peak()
random, at_once = np.random.default_rng(0), 8
for id in (-1, -2):
    for first in range(0, STORED, at_once):
        fields = random.random((at_once, 1, *LARGE.grid), dtype=np.float32)
        times = np.arange(first, first + at_once) / STORED
        steps = Block(id, first, fields, np.zeros(1), times, np.zeros(at_once, dtype=np.uint32))
        made.add(steps, first + at_once == STORED)
kept = peak() - before
scores = made.final(Still(LARGE, "autoregressive"), 1)
print(json.dumps([kept, peak() - before, scores.relative_l2.mean, scores.one_step.mean]))
"""
# 80 MB in each of two trajectories.
STORED = 80
LARGE = Problem(
    ("p",), (0.0,), (1.0,), (False,), (0.0, 1.0), (0.1, 0.2), 1, (500, 500), np.empty((0, 500, 500))
)


def test_trajectories_larger_than_memory_are_kept_and_scored_in_parts(tmp_path: Path) -> None:
    paths = [str(Path(__file__).parent), *sys.path]
    ran = subprocess.run(
        [sys.executable, "-c", _SCORING, str(tmp_path / "held_out")],
        env={"PYTHONPATH": ":".join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, scored, error, one_step = json.loads(ran.stdout)
    assert sum(path.stat().st_size for path in (tmp_path / "held_out").iterdir()) > 160e6
    assert kept < 40e6
    assert scored < 150e6
    # Two fields of uniform random numbers: the root of E(a - b)^2 = 1/6 over E(a^2) = 1/3.
    assert [error, one_step] == pytest.approx([0.5**0.5] * 2, rel=0.01)
