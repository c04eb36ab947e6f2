"""Standard output holds the result alone, whoever writes to it, and wherever it leads."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from commands import MILLSTREAM, SMALL, millstream, once, the_object, with_support
from noisy import WAYS
from places import QUICKSTART, ROOT
from waiting import LIMIT

NOISY = once(*SMALL, "solver.name=noisy:Noisy", "design.simulations=4")


def shell(directory: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which $M is the command."""
    return subprocess.run(
        ["bash", "-c", script],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**with_support(), "M": MILLSTREAM},
    )


@pytest.mark.usefixtures("on_cluster")
def test_noise_of_a_solver_never_gets_into_the_result(tmp_path: Path) -> None:
    study = str(QUICKSTART)
    ran = millstream(tmp_path, "train", study, *NOISY, "store.keep=none", "--json")
    assert ran.returncode == 0, ran.stderr
    assert the_object(ran.stdout)["status"] == "done"
    assert {way for way in WAYS if f"noise: {way}\n" in ran.stderr} == set(WAYS)
    ran = millstream(tmp_path, "simulate", study, *NOISY)
    assert ran.returncode == 0, ran.stderr
    assert "noise:" not in ran.stdout
    assert ran.stdout.count("\n") == 1


def test_noise_of_what_is_checked_never_gets_into_the_result(tmp_path: Path) -> None:
    ran = millstream(tmp_path, "check", "noisy:Noisy", "grid_size=4", "--limit", "5", "--json")
    assert the_object(ran.stdout)
    assert {way for way in WAYS if f"noise: {way}\n" in ran.stderr} == set(WAYS)


@pytest.mark.parametrize("options", ["", " --json"])
def test_a_closed_standard_output_is_no_failure(tmp_path: Path, options: str) -> None:
    ran = shell(tmp_path, f"$M list{options} >&-")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_with_standard_error_closed_nothing_is_told_on_standard_output(tmp_path: Path) -> None:
    ran = shell(tmp_path, "$M list planets --json 2>&-")
    assert ran.returncode == 2
    assert "planets cannot be listed" in the_object(ran.stdout)["error"]
    ran = shell(tmp_path, "$M list planets <&- >&- 2>&-")
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", "")


@pytest.mark.parametrize("options", ["", " --json", " --help"])
def test_a_reader_that_goes_away_is_no_failure(options: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(
        [MILLSTREAM, "list", *options.split()],
        cwd=ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(writing)
        _, errors = process.communicate(timeout=LIMIT)
    assert errors == ""
    assert process.returncode == (1 if options == " --help" else 0)  # help is typer's to print


def test_a_result_that_cannot_be_written_is_a_failure() -> None:
    ran = shell(ROOT, "$M list > /dev/full")
    assert ran.returncode == 1
    assert ran.stderr == (
        "millstream: cannot write the result to standard output: No space left on device\n"
    )


def test_a_file_for_both_has_the_messages_and_then_the_result(tmp_path: Path) -> None:
    ran = shell(tmp_path, "$M check noisy:Noisy nothing=1 --json > both 2>&1")
    assert ran.returncode != 0
    *told, result = (tmp_path / "both").read_text().splitlines()
    assert told[0] == "millstream: checking noisy:Noisy"
    assert told[-1].removeprefix("millstream: ") == json.loads(result)["error"]
