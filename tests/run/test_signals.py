"""Signals end a run tidily at any moment; a terminal that only goes away does not."""

import os
import pty
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import MILLSTREAM, SMALL, in_process, once, the_object, with_support
from held import held_in, holders, let_go
from places import QUICKSTART
from waiting import LIMIT, until

HELD = ["solver.free_groups=0", "store.keep=none"]
Process = subprocess.Popen[str]


@pytest.fixture(autouse=True)
def hangups_count() -> Iterator[None]:
    """Processes started here ignore no SIGHUP, even where these tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def start(directory: Path, *before: str, **streams: Any) -> Process:
    """Begin a run whose solvers wait in their first simulation; it leads a group of processes."""
    settings = once(*SMALL, *held_in(directory), *HELD)
    with (directory / "errors").open("w") as errors:
        return subprocess.Popen(
            [*before, MILLSTREAM, "train", str(QUICKSTART), *settings, "--json"],
            cwd=directory,
            text=True,
            env=with_support(),
            **{"stdout": subprocess.PIPE, "stderr": errors, "start_new_session": True, **streams},
        )


def children(process: Process) -> set[str]:
    try:
        return {child.name() for child in psutil.Process(process.pid).children(recursive=True)}
    except psutil.Error:  # one has just ended
        return set()


# Moments of a run's start, in order: what holds from then on.
MOMENTS: dict[str, Callable[[Path, Process], bool]] = {
    "checking": lambda directory, _: "checking" in (directory / "errors").read_text(),
    "folder": lambda directory, _: (directory / "runs" / "small").exists(),
    "ray begins": lambda _, process: "gcs_server" in children(process),
    "simulating": lambda directory, _: bool(holders(directory)),
}


def ended_tidily(directory: Path, process: Process) -> dict[str, Any]:
    output, _ = process.communicate(timeout=LIMIT)
    errors = (directory / "errors").read_text()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "interrupted" in errors
    return the_object(output)


def can_go_on_or_is_not_there(directory: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    if not (directory / "runs").exists():
        return
    left = [path.name for path in (directory / "runs").iterdir()]
    assert left in ([], ["small"])
    if left:
        monkeypatch.setenv("RAY_ADDRESS", at)
        let_go(directory)
        resumed = in_process(directory, "resume", "runs/small", "--json")
        assert resumed.returncode == 0, resumed.stderr
        assert the_object(resumed.stdout)["samples"]["unique_trained"] == 400


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("checking", signal.SIGHUP),
        ("folder", signal.SIGTERM),
        ("ray begins", signal.SIGTERM),
        ("ray begins", signal.SIGHUP),
        ("simulating", signal.SIGTERM),
    ],
)
def test_a_signal_during_start_up_leaves_a_run_that_goes_on_or_none(
    tmp_path: Path,
    cluster: str,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    number: signal.Signals,
) -> None:
    with monkeypatch.context() as patch:
        if "ray" not in moment:  # saves the time that Ray takes to start
            patch.setenv("RAY_ADDRESS", cluster)
        process = start(tmp_path)
    until(lambda: MOMENTS[moment](tmp_path, process), process)
    process.send_signal(number)
    ended_tidily(tmp_path, process)
    can_go_on_or_is_not_there(tmp_path, monkeypatch, cluster)


def test_a_terminal_that_is_closed_ends_a_run_with_a_checkpoint(
    tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system sends SIGHUP to the whole group, Ray's processes too; the shell sends another."""
    ours, terminal = pty.openpty()
    process = start(tmp_path, "setsid", "--ctty", stdin=terminal, start_new_session=False)
    os.close(terminal)
    until(lambda: MOMENTS["simulating"](tmp_path, process), process)
    os.close(ours)
    os.killpg(process.pid, signal.SIGHUP)
    assert ended_tidily(tmp_path, process)["status"] == "interrupted"
    checkpoints = tmp_path / "runs" / "small" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir() if path.name.isdigit()]
    can_go_on_or_is_not_there(tmp_path, monkeypatch, cluster)


@pytest.mark.usefixtures("on_cluster")
def test_a_terminal_that_goes_away_without_a_signal_ends_no_run(tmp_path: Path) -> None:
    ours, terminal = pty.openpty()
    process = start(tmp_path, stderr=terminal)
    os.close(terminal)
    with os.fdopen(ours, "rb", buffering=0) as screen:
        assert screen.read(1)
        until(lambda: MOMENTS["simulating"](tmp_path, process), process)
    let_go(tmp_path)
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert the_object(output)["status"] == "done"


@pytest.mark.usefixtures("on_cluster")
def test_under_nohup_a_hangup_stays_ignored(tmp_path: Path) -> None:
    process = start(tmp_path, "nohup")
    until(lambda: MOMENTS["simulating"](tmp_path, process), process)
    process.send_signal(signal.SIGHUP)
    let_go(tmp_path)
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert the_object(output)["status"] == "done"
