"""One process at a time goes on with a run or a comparison, whatever it stores or trains from."""

import signal
import subprocess
from pathlib import Path

import pytest
from commands import MILLSTREAM, SMALL, in_process, once, the_object, with_support
from held import held_in, holders, let_go
from places import QUICKSTART
from waiting import until

from framework.errors import BusyError
from framework.run.folder import RunFolder
from framework.study.study import Study
from millstream import resume


def contents(folder: Path) -> dict[str, bytes]:
    """The files in a folder and below, by their paths."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def refused(directory: Path, run: str) -> None:
    """Going on with the run fails with one sentence, and writes nothing."""
    before = contents(directory)
    ran = in_process(directory, "resume", run, "--json")
    assert ran.returncode == 1
    sentence = ran.stderr.splitlines()[-1]
    place = (directory / run).absolute()
    assert sentence == (
        f"millstream: another run is going on with {place} and holds {run}/run.lock: "
        "wait for its end"
    )
    assert "Traceback" not in ran.stderr
    assert the_object(ran.stdout) == {"error": sentence.removeprefix("millstream: ")}
    assert contents(directory) == before


@pytest.mark.usefixtures("on_cluster")
def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    free = ["ensemble.actors=1", "solver.free_groups=2"]
    settings = once(*SMALL, *held_in(tmp_path), *free, "store.keep=none")
    with subprocess.Popen(
        [MILLSTREAM, "train", str(QUICKSTART), *settings],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=with_support(),
    ) as process:
        until(lambda: bool(holders(tmp_path)), process)
        process.send_signal(signal.SIGSTOP)  # so that nothing is written but by the second
        refused(tmp_path, "runs/small")
        process.kill()
    let_go(tmp_path)
    resumed = in_process(tmp_path, "resume", "runs/small", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert the_object(resumed.stdout)["status"] == "done"
    again = in_process(tmp_path, "resume", "runs/small")
    assert "is done already" in again.stderr


@pytest.mark.parametrize("settings", [["store.keep=none"], ["training.source=no.zarr"], []])
def test_the_lock_comes_before_anything_is_made_or_read(
    tmp_path: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "runs" / "small")
    folder.path.mkdir(parents=True)
    Study.load(QUICKSTART, once(*SMALL, *settings)).save(folder.study)
    monkeypatch.chdir(tmp_path)
    with folder.owned():
        refused(tmp_path, "runs/small")
        with pytest.raises(BusyError, match="another run is going on with"):
            resume("runs/small")


def test_a_folder_that_cannot_be_locked_is_reported_in_a_sentence(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "small")
    folder.path.mkdir(parents=True)
    Study.load(QUICKSTART, SMALL).save(folder.study)
    (folder.path / "run.lock").mkdir()
    ran = in_process(tmp_path, "resume", "runs/small")
    assert ran.returncode == 1
    assert "cannot lock runs/small/run.lock: Is a directory" in ran.stderr.splitlines()[-1]
