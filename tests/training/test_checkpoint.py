"""Checkpoints are whole or not there; what damages them is noticed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import STUDY

from framework.errors import DamagedError, StudyError, WriteError
from framework.study import versions
from framework.study.study import Study
from framework.training.checkpoint import (
    RUN,
    Checkpoints,
    load_states,
    rank_file,
    states_of,
    write_states,
)


def make(
    directory: Path, keep: int = 2, code: dict[str, Any] | None = None, **changes: Any
) -> Checkpoints:
    values = {**STUDY, "surrogate": {"name": "mlp"}, "checkpoint": {"keep": keep}, **changes}
    return Checkpoints(directory, Study.of(values), code)


class Part:
    """A part whose state is of a number, and what it was given to go on from."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.loaded: Any = None

    def state(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "array": np.arange(5, dtype=np.uint32) + self.number,
            "nested": [{"tensor": torch.full((2,), float(self.number)), "none": None}],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.number = state["number"]
        self.loaded = state


class Large(Part):
    def state(self) -> dict[str, Any]:
        return {"large": torch.zeros(10**6)}


def save(checkpoints: Checkpoints, part: Part, finished: bool = False) -> None:
    """Write a checkpoint of two files, one of them of a rank."""
    folder = checkpoints.begin()
    files = {RUN: checkpoints, rank_file(0): part}
    sums = {
        name: write_states(folder / name, states_of({"part": of})) for name, of in files.items()
    }
    checkpoints.publish(folder, sums, finished)


def loaded(checkpoints: Checkpoints) -> Part | None:
    """The part as it is in the last whole checkpoint; None if there is none."""
    found, part = checkpoints.find(), Part()
    if found is None:
        return None
    load_states({"part": checkpoints}, found.read(RUN))
    load_states({"part": part}, found.read(rank_file(0)))
    return part


def number_in(checkpoints: Checkpoints) -> int | None:
    """The number of the part in the last whole checkpoint; None if there is none."""
    part = loaded(checkpoints)
    return part and part.number


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_the_last_ones_are_kept_and_the_last_is_loaded(tmp_path: Path) -> None:
    assert number_in(make(tmp_path)) is None
    checkpoints = make(tmp_path)
    checkpoints.seconds = 1.5
    for number in range(1, 5):
        save(checkpoints, Part(number))
    assert names(tmp_path) == ["000003", "000004"]
    again = make(tmp_path)
    part = loaded(again)
    assert part is not None
    assert part.loaded["number"] == 4
    np.testing.assert_array_equal(part.loaded["array"], np.arange(5) + 4)
    assert part.loaded["array"].dtype == torch.uint32
    assert part.loaded["nested"][0]["tensor"].tolist() == [4, 4]
    save(again, Part(5))  # counters go on
    assert again.count == 5
    assert again.seconds == 1.5
    assert names(tmp_path) == ["000004", "000005"]


@pytest.mark.parametrize("file", [RUN, rank_file(0), "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_one_is_noticed_and_the_one_before_is_used(
    tmp_path: Path, file: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = make(tmp_path)
    save(checkpoints, Part(1))
    save(checkpoints, Part(2))
    path = tmp_path / "000002" / file
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    path.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    if damage == "remove":
        path.unlink()
    again = make(tmp_path)
    assert number_in(again) == 1
    assert "000002 is damaged; going on from the one before" in capsys.readouterr().err
    save(again, Part(3))
    assert names(tmp_path) == ["000001", "000002"]
    assert number_in(make(tmp_path)) == 3


def test_without_a_whole_one_nothing_is_made_up(tmp_path: Path) -> None:
    save(make(tmp_path), Part(1))
    (tmp_path / "000001" / rank_file(0)).write_bytes(b"")
    with pytest.raises(
        DamagedError, match=r"every checkpoint in .* is damaged: start the study anew"
    ):
        number_in(make(tmp_path))


def test_one_of_another_study_format_or_streams_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = make(tmp_path)
    save(checkpoints, Part(1))
    with pytest.raises(StudyError, match=r"is of another study than the study.yaml beside it"):
        number_in(make(tmp_path, seed=1))
    for name, refusal in (
        ("CHECKPOINT", "has format 99, but this version of Millstream reads 3"),
        ("STREAMS", "was written by version 99 of the random streams and priors"),
    ):
        with monkeypatch.context() as other:
            other.setattr(versions, name, 99)
            save(checkpoints, Part(2))
        with pytest.raises(StudyError, match=refusal):
            number_in(make(tmp_path))


def test_a_full_disk_is_said_and_leaves_the_one_before(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the write fails in the same place."""
    import resource

    checkpoints = make(tmp_path)
    save(checkpoints, Part(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(WriteError, match=r"cannot write the checkpoint .*000002: .*make room"):
            save(checkpoints, Large())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == ["000001"]
    assert number_in(make(tmp_path)) == 1


def test_one_of_before_there_were_several_ranks_is_refused(tmp_path: Path) -> None:
    older = tmp_path / "000001"
    older.mkdir()
    (older / "state.pt").write_bytes(b"0")
    (older / "manifest.json").write_text('{"format": 2, "checksum": 1}')
    with pytest.raises(StudyError, match="has format 2, but this version of Millstream reads 3"):
        make(tmp_path).find()


def test_a_checkpoint_of_a_shorter_study_is_loaded(tmp_path: Path) -> None:
    """What makes a run longer may change, and nothing else with it."""
    longer = {"design": {"simulations": 9}, "training": {"stop": {"steps": 99}}}
    checkpoints = make(tmp_path)
    save(checkpoints, Part(3))
    assert not make(tmp_path, **longer).finished()
    save(checkpoints, Part(4), finished=True)
    found = make(tmp_path, **longer).find()
    assert found is not None
    assert (found.finished, found.simulations, found.ranks) == (True, 4, 1)
    assert make(tmp_path, **longer).finished()
    with pytest.raises(StudyError, match="is of another study"):
        number_in(make(tmp_path, **{**longer, "seed": 1}))


def test_a_checkpoint_of_other_code_is_refused_unless_that_is_accepted(tmp_path: Path) -> None:
    one, other = ({"version": 1, "files": {"own.py": text}} for text in ("1", "2"))
    save(make(tmp_path, code=one), Part())
    assert make(tmp_path, code=one).find()
    assert make(tmp_path, code=None).find()
    with pytest.raises(StudyError, match=r"other code: own\.py has changed since; restore it"):
        make(tmp_path, code=other).find()
