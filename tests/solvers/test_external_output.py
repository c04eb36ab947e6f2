"""What programs print: bounded, kept in a folder that many processes share, and told of."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from places import SUPPORT
from programs import STEPS, WELL, program
from waiting import until

from framework.simulation.solver_actor import SolverActor
from framework.study.design import Simulation
from solvers import external_kept, external_output
from solvers.base import OutputPlace
from solvers.external import External, ProgramError
from solvers.external_kept import Kept, prune
from solvers.external_output import Lines, Stream

A = np.array([2.5])
HERE = socket.gethostname()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "programs"


def told(solver: External, folder: Path, machine: str = HERE) -> External:
    solver.keep_output(OutputPlace(folder, "simulation_7", machine))
    return solver


def failure(solver: External) -> str:
    with pytest.raises(ProgramError) as caught:
        list(solver.solve(A, seed=0))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files(folder: Path) -> dict[str, str]:
    """What lies in a folder, by path."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def shortened(text: bytes, line: int) -> bytes:
    """What `Lines` keeps of a text."""
    kept = []
    for part in text.split(b"\n"):
        cut = len(part) - 2 * line
        middle = b" [%d bytes of this line left out] " % cut
        kept.append(part[:line] + middle + part[-line:] if cut > 0 else part)
    return b"\n".join(kept)


@given(st.lists(st.text("ab\n", max_size=30).map(str.encode), max_size=8))
def test_long_lines_lose_their_middle_in_whatever_pieces_they_come(pieces: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external_output, "LINE", 4)
        lines = Lines()
        kept = b"".join([*map(lines.take, pieces), lines.rest()])
    assert kept == shortened(b"".join(pieces), 4)


@given(st.lists(st.integers(1, 30), max_size=20))
def test_of_a_stream_the_beginning_and_the_end_are_kept(sizes: list[int]) -> None:
    text = bytes(i % 251 for i in range(sum(sizes))).replace(b"\n", b" ")
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(external_output, "HEAD", 40)
        patch.setattr(external_output, "TAIL", 30)
        kept = Kept(OutputPlace(Path(name), "x", HERE))
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        stream = Stream(reader, "stdout.txt", kept)
        at = 0
        for size in sizes:
            os.write(writer, text[at : at + size])
            at += size
            assert stream.read() == size
        os.close(writer)
        stream.finish()
        os.close(reader)
        path = Path(name) / "running" / "x.1" / "stdout.txt"
        written = path.read_bytes() if path.exists() else b""
    cut = len(text) - 70
    middle = b"\n[%d bytes left out]\n" % cut
    assert written == (text[:40] + middle + text[-30:] if cut > 0 else text)


SAYS = """
print("mesh of", sys.argv[1], flush=True)
print("a warning", file=sys.stderr, flush=True)
"""


def test_successful_and_failed_attempts_are_kept_apart(tmp_path: Path, folder: Path) -> None:
    """Each under its own name; a program that prints nothing leaves nothing."""
    list(told(program(tmp_path, SAYS + WELL), folder).solve(A, seed=0))
    well = {"done/simulation_7.1/stdout.txt": "mesh of 2.5\n"}
    well["done/simulation_7.1/stderr.txt"] = "a warning\n"
    assert files(folder) == well
    list(told(program(tmp_path, WELL), folder).solve(A, seed=0))
    assert files(folder) == well

    writes = "open('log.txt', 'w').write('residual 1')\nos.mkdir('sub')\nos.mkfifo('sub/pipe')\n"
    writes += "open('sub/huge', 'w').truncate(1 << 40)\nos.symlink('log.txt', 'link')\n"
    solver = told(program(tmp_path, SAYS + writes + WELL + "sys.exit('no mesh')"), folder)
    for attempt in (2, 3):
        said = failure(solver)
        where = folder / "failed" / f"simulation_7.{attempt}"
        assert said.endswith(
            "ends: a warning no mesh; its output and its directory are kept in " + str(where)
        )
        assert files(where) == {
            "stdout.txt": "mesh of 2.5\n",
            "stderr.txt": "a warning\nno mesh\n",
            "directory/log.txt": "residual 1",
            "left_out.txt": "sub/huge: 1099511627776 bytes\nsub/pipe: neither a file nor a link\n",
        }
        assert (where / "directory" / "link").readlink() == Path("log.txt")
    assert list((folder / "running").iterdir()) == []


FLOOD = """
print("first words", flush=True)
print("the mesh is tangled", file=sys.stderr, flush=True)
print("x" * 3_000_000, file=sys.stderr, flush=True)
for _ in range(300):
    os.write(1, b"no convergence\\n" * 1000)
os.write(1, b"y" * 3_000_000 + b"\\nlast words\\n")
"""


def test_a_flood_is_read_and_bounded_and_one_enormous_line_hides_no_other(
    tmp_path: Path, folder: Path
) -> None:
    """Nobody draws steps meanwhile, and the program does not wait for it."""
    body = WELL.replace("millstream.finalize()", FLOOD + "sys.exit('cannot go on')")
    solver = told(program(tmp_path, body), folder)
    said = failure(solver)
    assert "status 1 after 4 of 4 steps; its standard error ends: the mesh is tangled xxx" in said
    assert "xxx cannot go on; its output" in said
    assert len(said) < 1500
    where = folder / "failed" / "simulation_7.1"
    errors = (where / "stderr.txt").read_text().splitlines()
    assert errors[::2] == ["the mesh is tangled", "cannot go on"]
    assert "xxx [2983616 bytes of this line left out] xxx" in errors[1]
    printed = (where / "stdout.txt").read_text()
    assert len(printed) < 600_000
    assert printed.startswith("first words\nno convergence\n")
    assert "\n[" in printed
    assert " bytes left out]\n" in printed
    assert printed.endswith("yyy\nlast words\n")


def test_output_is_read_while_nobody_draws(tmp_path: Path, folder: Path) -> None:
    """The program gets to its last send, however much it prints before."""
    noisy = WELL.replace(" millstream.send", " os.write(1, b'z' * 200_000)\n    millstream.send")
    body = noisy.replace("millstream.finalize()", "open(sys.argv[2] + '/all', 'w')\n")
    simulation = told(program(tmp_path, body + "millstream.finalize()"), folder).solve(A, seed=0)
    assert next(simulation) is not None
    until((tmp_path / "all").exists)
    assert len(list(simulation)) == STEPS - 1


def test_fields_that_are_refused_leave_the_output_of_a_failure(
    tmp_path: Path, folder: Path
) -> None:
    """The solver's process names the attempts by simulation, held-out ones apart."""
    cells = "memoryview(array.array('d', [float('nan')] * 6)).cast('B').cast('d', (2, 3))"
    body = WELL.replace("frame(step)", cells)
    place = OutputPlace(folder, "", HERE)
    solver = program(tmp_path, SAYS + body)
    actor = SolverActor(lambda: solver, time_limit=60, programs=place)
    for id in (3, -2):
        (message,) = actor.run([Simulation(id, A, 1)], steps_per_block=2)
        assert "NaN" in str(message.blocks[-1].error)
    kept = sorted(path.name for path in (folder / "failed").iterdir())
    assert kept == ["held-out_simulation_1.1", "simulation_3.1"]


def test_where_nothing_can_be_written_only_the_error_of_a_failure_says_so(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "programs"
    assert len(list(told(program(tmp_path, SAYS + WELL), folder).solve(A, seed=0))) == STEPS
    said = failure(told(program(tmp_path, SAYS + "sys.exit(3)"), folder))
    assert said.endswith(f"output could not all be kept in {folder}: Not a directory")


def test_a_folder_on_another_machine_is_named_with_the_machine(
    tmp_path: Path, folder: Path
) -> None:
    said = failure(told(program(tmp_path, "sys.exit(3)"), folder, machine="head-node"))
    assert said.endswith(f"are kept in {folder}/failed/simulation_7.1 on {HERE}")


STATES = st.sampled_from(["done", "failed", "running"])
ATTEMPTS = st.lists(st.tuples(STATES, st.integers(0, 20_000)), max_size=12)


@given(attempts=ATTEMPTS, most_bytes=st.integers(0, 200_000), most=st.integers(0, 12))
def test_the_oldest_successful_attempts_are_removed_first_and_no_more_than_needed(
    attempts: list[tuple[str, int]], most_bytes: int, most: int
) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(external_kept, "TOTAL_BYTES", most_bytes)
        patch.setattr(external_kept, "TOTAL_ATTEMPTS", most)
        for number, (state, size) in enumerate(attempts):
            path = Path(name) / state / f"{number}.1"
            path.mkdir(parents=True)
            (path / "stdout.txt").write_bytes(bytes(size))
            os.utime(path, ns=(0, number))
        prune(Path(name))
        left = sorted(int(path.stem) for path in Path(name).glob("*/*"))
    order = sorted(range(len(attempts)), key=lambda number: (attempts[number][0] != "done", number))
    sizes = [attempts[number][1] + 2 * 4096 for number in order]
    first = next(
        first
        for first in range(len(order) + 1)
        if sum(sizes[first:]) <= most_bytes and len(order) - first <= most
    )
    assert left == sorted(order[first:])


SHARES = """
import sys
from pathlib import Path
from solvers import external_kept
from solvers.base import OutputPlace
from solvers.external_kept import Kept

external_kept.TOTAL_ATTEMPTS, external_kept._OFTEN = 20, 1
for number in range(40):
    kept = Kept(OutputPlace(Path(sys.argv[1]), f"simulation_{number % 3}", "here"))
    file = kept.open("stdout.txt")
    file.write(b"x" * 1000)
    file.close()
    if number % 8:
        kept.succeed()
    else:
        kept.fail(Path(sys.argv[2]))
"""


def test_several_processes_share_a_folder(tmp_path: Path, folder: Path) -> None:
    """Each attempt has a folder of its own; the bound holds; failures are kept before others."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "log").write_text("x")
    command = [sys.executable, "-c", SHARES, str(folder), str(tmp_path / "work")]
    environment: dict[str, Any] = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    running = [subprocess.Popen(command, env=environment, cwd=SUPPORT) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    prune(folder)
    kept = {state: list((folder / state).iterdir()) for state in ("done", "failed", "running")}
    assert kept["running"] == []
    assert len(kept["failed"]) == 15
    assert all((path / "directory" / "log").exists() for path in kept["failed"])
    assert all((path / "stdout.txt").stat().st_size == 1000 for path in kept["done"])
    assert len(kept["done"]) >= 1
    shutil.rmtree(folder)
