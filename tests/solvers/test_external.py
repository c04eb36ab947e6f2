"""Programs that do what they are to do, and what becomes of all others."""

import errno
import gc
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from places import ROOT, SUPPORT
from programs import STEPS, STUBBORN, WELL, descriptors, expected, noted, pipes, program, runs
from waiting import until

from solvers import external_program
from solvers.base import Grid
from solvers.external import External, ProgramError
from solvers.external_settings import Bounds

A = np.array([2.5])


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the programs' directories lie (and not where pytest keeps `tmp_path`)."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        monkeypatch.setattr(external_program, "GRACE", 1.0)
        yield Path(directory)


def failure(solver: External) -> str:
    """What is said of a simulation that fails."""
    with pytest.raises(ProgramError) as caught:
        list(solver.solve(A, seed=0))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(sys.executable + " ")
    return message.removeprefix(sys.executable + " ")


def test_a_program_sends_its_steps(tmp_path: Path, temporary: Path) -> None:
    solver = program(tmp_path, WELL)
    frames = list(solver.solve(A, seed=0))
    assert {frame.dtype for frame in frames} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(np.stack(frames), expected(2.5))
    np.testing.assert_allclose(solver.times(A), [0, 0.1, 0.2, 0.3])
    assert list(temporary.iterdir()) == []


def test_nothing_is_left_open_after_many_simulations(tmp_path: Path) -> None:
    solver = program(tmp_path, WELL)
    list(solver.solve(A, seed=0))
    before = descriptors()
    for _ in range(5):
        list(solver.solve(A, seed=0))
    assert descriptors() == before
    two = [solver.solve(A, seed=0), solver.solve(A + 1, seed=0)]
    for step in range(STEPS):  # both at once
        np.testing.assert_array_equal(next(two[0]), expected(2.5)[step])
        np.testing.assert_array_equal(next(two[1]), expected(3.5)[step])
    assert [next(simulation, None) for simulation in two] == [None, None]
    del solver, two
    gc.collect()
    assert descriptors() == before - 1  # its guard's pipe, too


TOLD = """
millstream.init()
numbers = [*map(float, sys.argv[1:3]), float(os.environ["B"])]
numbers += map(float, open("in.txt").read().split()[1:3])
numbers.append(float(int(sys.argv[3]) == 2**63 - 1 and sys.argv[4] == "{a}$(touch x);"))
millstream.send(0, "u", memoryview(array.array("d", numbers)).cast("B").cast("d", (2, 3)))
if os.listdir() != ["in.txt"]:
    sys.exit("more than the template is in " + os.getcwd())
millstream.finalize()
"""


def test_parameters_replace_placeholders_in_command_environment_and_template(
    tmp_path: Path,
) -> None:
    (tmp_path / "in.txt").write_text('{"x": {a} {b} {{b}} {}}')
    parameters = np.array([0.1 + 0.2, 1e-300])
    solver = program(
        tmp_path,
        TOLD,
        command=[
            *(sys.executable, "-S", str(tmp_path / "program.py")),
            *("{a}", "{b}", "{seed}", "{{a}}$(touch x);"),
        ],
        env={"PYTHONPATH": str(ROOT / "clients" / "python"), "B": "{b}"},
        template=tmp_path / "in.txt",
        parameters={"a": Bounds(0, 1, "m"), "b": Bounds(1e-301, 1, "1/s", "log_uniform")},
        stored_steps=None,
        final_time=None,
        times=[0.5],
        time_units="s",
    )
    (tmp_path / "in.txt").unlink()  # it was read when the solver was made
    (frame,) = solver.solve(parameters, seed=2**64 - 1)
    a, b = np.float32(parameters)
    np.testing.assert_array_equal(frame, [[[a, b, b], [a, b, 1]]])
    assert [(p.name, p.units, p.prior) for p in solver.parameters.items] == [
        ("a", "m", "uniform"),
        ("b", "1/s", "log_uniform"),
    ]


# Four processes, each with one row, and the first two columns or the last one.
RANKS = """
rank = next((r for r in range(1, 5) if os.fork() == 0), 0)
if rank == 0:
    os._exit(any([os.wait()[1] for _ in range(4)]))
row, column = divmod(rank - 1, 2)
columns = slice(0, 2) if column == 0 else slice(2, 3)
time.sleep(0.01 * (4 - rank))
millstream.init()
for step in range(STEPS):
    u = array.array("d", frame(step).tolist()[row][columns])
    v = array.array("f", [step] * len(u))
    for field, part in [("u", u), ("v", v)][:: 1 if step % 2 else -1]:
        part = memoryview(part).cast("B").cast(part.typecode, (1, len(part)))
        millstream.send(step, field, part, (row, 2 * column))
millstream.finalize()
os._exit(0)
"""


def test_several_processes_send_their_parts_of_several_fields(tmp_path: Path) -> None:
    solver = program(tmp_path, RANKS, fields={"v": "1", "u": "K"})
    for _ in range(3):
        frames = np.stack(list(solver.solve(A, seed=0)))
        np.testing.assert_array_equal(frames[:, 1:], expected(2.5))
        np.testing.assert_array_equal(frames[:, 0], np.indices((STEPS, 2, 3))[0])


EMPTY = """
child = os.fork()
millstream.init()
for step in range(STEPS):
    if child == 0:
        time.sleep(0.02)
        line({"step": step, "field": "u", "dtype": "float32", "shape": [0, 3], "offset": [2, 0]})
    else:
        millstream.send(step, "u", frame(step))
millstream.finalize()
if child == 0:
    os._exit(0)
sys.exit(os.wait()[1])
"""


def test_a_process_may_have_an_empty_part_and_come_late(tmp_path: Path) -> None:
    frames = np.stack(list(program(tmp_path, EMPTY).solve(A, seed=0)))
    np.testing.assert_array_equal(frames, expected(2.5))


TOGETHER = """
millstream.init()
for step in range(STEPS):
    both = array.array("f", [*frame(step).cast("B").cast("d"), *[step] * 6])
    millstream.send(step, None, memoryview(both).cast("B").cast("f", (2, 2, 3)))
millstream.finalize()
"""


def test_all_fields_can_come_in_one_piece(tmp_path: Path) -> None:
    frames = np.stack(list(program(tmp_path, TOGETHER, fields={"u": "K", "v": "1"}).solve(A, 0)))
    np.testing.assert_array_equal(frames[:, :1], expected(2.5))
    np.testing.assert_array_equal(frames[:, 1], np.indices((STEPS, 2, 3))[0])


AHEAD = """
millstream.init()
for step in range(STEPS):
    print(step, file=open(sys.argv[2] + "/begun", "a"))
    millstream.send(step, "u", memoryview(array.array("d", [step]) * 200_000))
millstream.finalize()
"""


def test_a_program_waits_in_its_send_while_nobody_draws(tmp_path: Path) -> None:
    simulation = program(tmp_path, AHEAD, grid=Grid((200_000,), (1.0,))).solve(A, seed=0)
    for step in range(STEPS):
        assert next(simulation)[0, 7] == step
        begun = list(range(min(step + 2, STEPS)))
        until(lambda begun=begun: noted(tmp_path / "begun") == begun)
        time.sleep(0.1)  # it could go on, if anybody read what it sends
        assert noted(tmp_path / "begun") == begun
    assert next(simulation, None) is None


BEGIN = "millstream.init()\nmillstream.send(0, 'u', frame(0))\n"
PIECE = "{'step': 0, 'field': 'u', 'dtype': 'float64', 'shape': [2, 3], 'offset': [0, 0]}"
FAILURES = {
    "exit status": (BEGIN + "sys.exit(3)", "ended with status 3 after 1 of 4 steps"),
    "last words": (
        "sys.exit('x' * 9999 + '\\nno\\tsuch \\33[1mmesh')",
        r"status 1 after 0 of 4 steps; its standard error ends: x+ \.\.\. x+ no such \[1mmesh$",
    ),
    "a traceback": (BEGIN + "1 / 0", r"status 1 after 1 of 4 steps; .* ZeroDivisionError: "),
    "signal": (
        BEGIN + "os.kill(os.getpid(), signal.SIGSEGV)",
        r"was ended by signal 11 \(Segmentation fault\) after 1 of 4 steps",
    ),
    "exit status after the last step": (WELL + "sys.exit(5)", "ended with status 5 after 4 of 4"),
    "no connection": ("", "ended without connecting|ended after 0 of 4 steps without connecting"),
    "too few steps": (
        "STEPS = 3" + WELL,
        "ended after 3 of 4 steps",
    ),
    "too few numbers": (
        "millstream.init()\n" + f"line({PIECE} | {{'shape': [1, 3]}})\nraw(bytes(24))\n"
        "millstream.finalize()",
        r"ended after 0 of 4 steps \(3 of its 6 numbers are missing\)",
    ),
    "no finalize": (WELL.replace("millstream.finalize()", ""), "after 4 of 4 steps without final"),
    "too many steps": ("STEPS = 5" + WELL, "sent step 4, but the study has 4 steps"),
    "a flood": (
        WELL.replace("millstream.finalize()", "while True: millstream.send(3, 'u', frame(3))"),
        "sent a part of step 3 when it was complete",
    ),
    "a flood on standard error": (
        BEGIN + "while True: os.write(2, b'no convergence ' * 1000)",
        "did not send step 1 within its limit of 1 s.*: .*no convergence$",
    ),
    "a hang": (BEGIN + "time.sleep(600)", r"did not send step [01] within its limit of 0\.5 s$"),
    "a hang in a part": (
        f"millstream.init()\nline({PIECE})\nraw(bytes(8))\ntime.sleep(600)",
        r"did not send step 0 within its limit of 0\.5 s",
    ),
    "a hang at the end": (
        WELL + "time.sleep(600)",
        "sent its 4 steps, but did not end within its limit of 1 s",
    ),
    "a hang that hides": (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + BEGIN + "time.sleep(600)",
        r"did not send step [01] within its limit of 0\.5 s",
    ),
    "a step skipped": (
        BEGIN + "millstream.send(2, 'u', frame(2))\ntime.sleep(600)",
        "sent step 2 when step 1 was to come",
    ),
    "a step back": (
        BEGIN + "millstream.send(1, 'u', frame(1))\nmillstream.send(0, 'u', frame(0))\n",
        "sent a part of step 0 when it was complete",
    ),
    "a part twice": (
        f"millstream.init()\nfor _ in range(2):\n line({PIECE} | {{'shape': [1, 3]}})\n"
        " raw(bytes(24))\ntime.sleep(600)",
        "sent a part of step 0 twice",
    ),
    "a wrong shape": (
        "millstream.init()\nmillstream.send(0, 'u', array.array('d', [0] * 6))",
        r"sent the shape \[6\], with 1 axes: the array \(2, 3\) has 2",
    ),
    "a wrong dtype": (
        f"millstream.init()\nline({PIECE} | {{'dtype': 'int16'}})",
        "sent the dtype 'int16'",
    ),
    "a dtype that the client knows to be wrong": (
        "millstream.init()\nmillstream.send(0, 'u', array.array('i', [0] * 6))",
        "status 1 after 0 of 4 steps; .* TypeError: the numbers are 'i', and have to be float",
    ),
    "a wrong field": (
        "millstream.init()\nmillstream.send(0, 'w', frame(0))",
        "sent the field 'w': the study has u",
    ),
    "a terabyte": (
        f"millstream.init()\nline({PIECE} | {{'shape': [1 << 20, 1 << 20]}})\n"
        "while True: raw(b'x' * 9999)",
        "which lies outside",
    ),
    "garbage": (
        "millstream.init()\nraw(b'\\0\\xff{\\n' * 9)",
        "a header that is not a JSON object",
    ),
    "a header without end": (
        "millstream.init()\nwhile True: raw(b'x' * 9999)",
        "sent a header of more than 4096 bytes",
    ),
    "something after the end": (
        WELL.replace("millstream.finalize()", "raw(b'{\"end\": true}\\n{')"),
        'sent something after {"end": true}',
    ),
    "a huge step": (
        f"millstream.init()\nline({PIECE} | {{'step': 10**99}})\ntime.sleep(600)",
        r"sent step 10+\.\.\.0+, but the study has 4 steps",
    ),
    "a huge version": (
        "import os, socket\nit = socket.socket(socket.AF_UNIX)\n"
        "it.connect(os.environ['MILLSTREAM_ADDRESS'])\n"
        'it.sendall(b\'{"millstream": "%s", "token": "%s"}\\n\' % '
        "(b'x' * 999, os.environ['MILLSTREAM_TOKEN'].encode()))\ntime.sleep(600)",
        r"speaks version 'x+\.\.\.x+' of the format",
    ),
    "a wrong token": (
        "os.environ['MILLSTREAM_TOKEN'] = '0' * 32" + WELL,
        r"showing the token in MILLSTREAM_TOKEN on its 1 connections|BrokenPipeError",
    ),
    "no token": (
        "import socket\nit = socket.socket(socket.AF_UNIX)\n"
        "it.connect(os.environ['MILLSTREAM_ADDRESS'])\nit.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n')",
        "without showing the token in MILLSTREAM_TOKEN on its 1 connections",
    ),
    "a token that is no text": (
        "import socket\nit = socket.socket(socket.AF_UNIX)\n"
        "it.connect(os.environ['MILLSTREAM_ADDRESS'])\n"
        'it.sendall(b\'{"millstream": 1, "token": "\\\\ud800"}\\n\')',
        "without showing the token in MILLSTREAM_TOKEN on its 1 connections",
    ),
    "another version": (
        "import os, socket\nit = socket.socket(socket.AF_UNIX)\n"
        "it.connect(os.environ['MILLSTREAM_ADDRESS'])\n"
        'it.sendall(b\'{"millstream": 3, "token": "%s"}\\n\' % '
        "os.environ['MILLSTREAM_TOKEN'].encode())\ntime.sleep(600)",
        "speaks version 3 of the format: it has to be 1 or 2$",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_program_that_does_anything_else_fails_with_one_line(
    name: str, tmp_path: Path, temporary: Path
) -> None:
    body, message = FAILURES[name]
    note = "print(os.getpid(), file=open(sys.argv[2] + '/pids', 'a'))\n"
    limit = re.search(r"limit of ([\d\\.]+) s", message)
    seconds = float(limit[1].replace("\\", "")) if limit else 60.0
    solver = program(tmp_path, note + body, time_limit=seconds)
    assert re.search(message, failure(solver))
    (pid,) = noted(tmp_path / "pids")
    assert not runs(pid)
    assert list(temporary.iterdir()) == []


def test_a_file_that_is_no_program_fails_when_it_is_started(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "data").chmod(0o755)
    solver = program(tmp_path, WELL, command=[str(tmp_path / "data"), "{a}"])
    with pytest.raises(ProgramError, match="data cannot be started: Exec format"):
        list(solver.solve(A, seed=0))


@pytest.mark.parametrize("how", ["close", "forget"])
def test_all_processes_end_when_nobody_wants_more(
    how: str, tmp_path: Path, temporary: Path
) -> None:
    simulation = program(tmp_path, STUBBORN).solve(A, seed=0)
    next(simulation)
    until(lambda: len(noted(tmp_path / "pids")) == 2)
    if how == "close":
        simulation.close()
    else:
        del simulation
    until(lambda: not any(map(runs, noted(tmp_path / "pids"))))
    assert list(temporary.iterdir()) == []


# Has joined the group of Millstream's process, so that its own group is gone.
LEAVER = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.setpgid(0, os.getpgid(os.getppid()))
print(os.getpid(), file=open(sys.argv[2] + "/pids", "a"), flush=True)
millstream.init()
millstream.send(0, "u", frame(0))
time.sleep(600)
"""


def test_a_program_that_has_left_its_group_is_ended(tmp_path: Path) -> None:
    simulation = program(tmp_path, LEAVER).solve(A, seed=0)
    next(simulation)
    simulation.close()
    (pid,) = noted(tmp_path / "pids")
    assert not runs(pid)


# The command ends at once; what it has started needs a while to end, and then says so.
BEHIND = """
def end(*_):
    time.sleep(0.3)
    print(1, file=open(sys.argv[2] + "/ended", "a"), flush=True)
    os._exit(0)

signal.signal(signal.SIGTERM, end)
reader, writer = os.pipe()
if os.fork():
    os.read(reader, 1)  # a signal in the middle of a fork would be lost
    os._exit(3)
os.write(writer, b"x")
os.close(2)
while True:
    time.sleep(600)
"""


def test_what_a_command_leaves_behind_is_given_time_to_end(tmp_path: Path) -> None:
    assert "ended with status 3" in failure(program(tmp_path, BEHIND))
    assert noted(tmp_path / "ended") == [1]


def test_a_guard_is_used_again_after_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "data").chmod(0o755)
    solver = program(tmp_path, WELL, command=[str(tmp_path / "data"), "{a}"])
    with pytest.raises(ProgramError):
        list(solver.solve(A, seed=0))
    gc.collect()  # the solvers of other tests, which the errors that they raised still hold
    before, of_guard = descriptors(), pipes()
    with pytest.raises(ProgramError):
        list(solver.solve(A, seed=0))
    assert descriptors() == before
    assert pipes() == of_guard


def test_no_more_open_files_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def accept(_: socket.socket) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket.socket, "accept", accept)
    said = failure(program(tmp_path, WELL))
    assert said.startswith("cannot connect to Millstream: Too many open files")


DRIVER = """
import sys, tempfile, time
from pathlib import Path
import numpy as np
from programs import STUBBORN, program

tempfile.tempdir = sys.argv[2]
simulation = program(Path(sys.argv[1]), STUBBORN).solve(np.array([1.0]), seed=0)
next(simulation)
print("drawn", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("children_first", [False, True])
def test_all_processes_end_when_the_solvers_process_is_killed(
    children_first: bool, tmp_path: Path, temporary: Path
) -> None:
    """Ray kills the children of a process that it kills, but not their children."""
    arguments = [sys.executable, "-c", DRIVER, str(tmp_path), str(temporary)]
    with subprocess.Popen(arguments, cwd=SUPPORT, stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"drawn\n"
        until(lambda: len(noted(tmp_path / "pids")) == 2)
        pids = noted(tmp_path / "pids")
        if children_first:
            os.kill(pids[0] if parent(pids[0]) == driver.pid else pids[1], signal.SIGKILL)
        driver.kill()
    until(lambda: not any(map(runs, pids)))
    until(lambda: list(temporary.iterdir()) == [])


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
