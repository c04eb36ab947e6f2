"""The record of a comparison: what it keeps, and which one a comparison goes on with."""

import json
from pathlib import Path

import pytest
from commands import SMALL, in_process, once
from places import QUICKSTART

from framework.compare.record import ComparisonRecord
from framework.errors import StudyError
from framework.run.folder import RunFolder
from framework.study import versions
from framework.study.study import Study


def record(status: str = "interrupted", study: str = "hash") -> ComparisonRecord:
    made = ComparisonRecord(status, study, "steps", 3, 64)
    made.simulating["0"] = [1.5, 40]
    made.arms.append(
        {"name": "fifo", "seed": 0, "offline": False, "status": "diverged", "error": "no"}
    )
    return made


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    record().write(path)
    again = ComparisonRecord.read(path)
    assert again == record()
    assert again.streams == versions.STREAMS
    assert again.has("fifo", 0)
    assert not again.has("fifo", 1)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"arms": []}', '{"status": "done"}'])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "comparison.json"
    path.write_text(text)
    with pytest.raises(StudyError, match=r"comparison.json is damaged: start the comparison anew"):
        ComparisonRecord.read(path)


@pytest.mark.parametrize("version", [None, 99])
def test_a_comparison_of_another_version_of_the_streams_does_not_go_on(
    tmp_path: Path, version: int | None
) -> None:
    """A record without a version is of the first one. One that is done is told again."""
    study = Study.load(QUICKSTART, once(*SMALL, "solver.stored_steps=5"))
    folder = RunFolder(tmp_path / "runs" / "small-comparison")
    folder.path.mkdir(parents=True)
    study.save(folder.study)
    for status, code in (("interrupted", 2), ("done", 0)):
        record(status, study.hash()).write(folder.comparison)
        values = json.loads(folder.comparison.read_text())
        del values["streams"]
        text = json.dumps(values if version is None else {**values, "streams": version})
        folder.comparison.write_text(text)
        result = in_process(tmp_path, "resume", "runs/small-comparison")
        assert result.returncode == code, result.stderr
        assert folder.comparison.read_text() == text
        refused = f"was begun with version {version or 1} of the random streams and priors, but"
        assert (refused in result.stderr) == (code == 2)
        assert ("fifo, seed 0: diverged" in result.stdout) == (code == 0)
