"""Programs that stay for many simulations: the same bits, few starts, and what is refused."""

import gc
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT, SUPPORT
from programs import PREAMBLE, STAYS, STEPS, WELL, expected, noted, program, runs
from waiting import until

from solvers import external_program
from solvers.base import OutputPlace
from solvers.external import External, ProgramError
from solvers.external_settings import Bounds

A = np.array([2.5])


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the programs' directories lie."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        monkeypatch.setattr(external_program, "GRACE", 1.0)
        yield Path(directory)


def staying(directory: Path, body: str, **settings: Any) -> External:
    """A solver whose program is this body in Python, and stays."""
    script = directory / "program.py"
    command = [sys.executable, "-S", str(script), "0", str(directory)]
    return program(directory, body, **({"command": command, "stays": True} | settings))


def failure(solver: External, a: float = 2.5) -> str:
    with pytest.raises(ProgramError) as caught:
        list(solver.solve(np.array([a]), seed=0))
    said = str(caught.value)
    assert "\n" not in said
    return said.removeprefix(sys.executable + " ")


def test_one_program_runs_many_simulations_and_ends_with_the_solver(
    tmp_path: Path, temporary: Path
) -> None:
    solver = staying(tmp_path, STAYS + "print(0, file=open(sys.argv[2] + '/pids', 'a'))")
    for a in (2.5, 1 / 3, 1e-300):
        each = list(program(tmp_path, WELL).solve(np.array([a]), seed=0))
        staying(tmp_path, STAYS)  # writes the program anew
        np.testing.assert_array_equal(list(solver.solve(np.array([a]), seed=0)), each)
    (pid,) = noted(tmp_path / "pids")
    assert runs(pid)
    two = [solver.solve(A, seed=0), solver.solve(A + 1, seed=0)]
    for step in range(STEPS):  # both at once
        np.testing.assert_array_equal(next(two[0]), expected(2.5)[step])
        np.testing.assert_array_equal(next(two[1]), expected(3.5)[step])
    assert [next(simulation, None) for simulation in two] == [None, None]
    pids = noted(tmp_path / "pids")
    assert len(set(pids)) == 2
    del solver, two
    gc.collect()
    assert not any(map(runs, pids))
    assert list(temporary.iterdir()) == []


AFTER = """
millstream.next()
millstream.finalize()
print(-1, file=open(sys.argv[2] + "/pids", "a"))
"""


def test_a_program_goes_on_where_there_are_no_more_simulations(tmp_path: Path) -> None:
    """It ends by itself: no signal keeps it from that."""
    solver = staying(tmp_path, STAYS + AFTER)
    list(solver.solve(A, seed=0))
    del solver
    assert noted(tmp_path / "pids")[1:] == [-1]


def test_a_program_is_started_again_when_it_has_ended_or_failed(tmp_path: Path) -> None:
    fails = STAYS.replace("for step", "if parameters[0] > 5: sys.exit('too hot')\n    for step")
    solver = staying(tmp_path, fails)
    list(solver.solve(A, seed=0))
    (pid,) = noted(tmp_path / "pids")
    os.kill(pid, signal.SIGKILL)
    until(lambda: not runs(pid))
    np.testing.assert_array_equal(list(solver.solve(A, seed=0)), expected(2.5))
    assert failure(solver, 6.0).endswith("after 0 of 4 steps; its standard error ends: too hot")
    np.testing.assert_array_equal(list(solver.solve(A, seed=0)), expected(2.5))
    simulation = solver.solve(A, seed=0)
    next(simulation)
    simulation.close()  # nobody wants the rest, which the program may be sending
    assert not any(map(runs, noted(tmp_path / "pids")))
    np.testing.assert_array_equal(list(solver.solve(A, seed=0)), expected(2.5))
    assert len(set(noted(tmp_path / "pids"))) == 4


SEEDED = """
millstream.init()
while simulation := millstream.next():
    (a, b), seed = simulation
    low, high = seed % 1000, seed // 1000 % 1000
    for step in range(STEPS):
        numbers = array.array("d", [a, b, low, high, step, 0])
        millstream.send(step, "u", memoryview(numbers).cast("B").cast("d", (2, 3)))
"""


def test_parameters_come_in_the_order_of_the_study_and_the_seed_with_them(tmp_path: Path) -> None:
    two = {"z": Bounds(0, 1), "a": Bounds(0, 1)}
    solver = staying(tmp_path, SEEDED, parameters=two, uses_seed=True)
    assert solver.uses_seed
    assert not staying(tmp_path, SEEDED, parameters=two).uses_seed
    frames = list(solver.solve(np.array([0.25, 0.75]), seed=2**64 - 1))
    seed = 2**63 - 1
    assert frames[3].ravel().tolist() == [0.25, 0.75, seed % 1000, seed // 1000 % 1000, 3, 0]


# Three processes, each with a row of all fields; the last one has none, and comes late.
RANKS = """
import select

rank = next((r for r in range(1, 3) if os.fork() == 0), 0)
if rank == 2:
    select.select([], [], [], 0.1)
millstream.init()
while simulation := millstream.next():
    (a,), seed = simulation
    sys.argv[1] = a
    for step in range(STEPS):
        row = array.array("d", frame(step).tolist()[rank] if rank < 2 else [])
        part = memoryview(row).cast("B").cast("d", (1, 3)) if rank < 2 else None
        if rank < 2:
            millstream.send(step, "u", part, (rank, 0))
        else:
            empty = {"shape": [0, 3], "offset": [0, 0]}
            line({"step": step, "field": "u", "dtype": "float64"} | empty)
    print(a, file=open(f"{sys.argv[2]}/rank{rank}", "a"), flush=True)
millstream.finalize()
if rank:
    os._exit(0)
sys.exit(any([os.wait()[1] for _ in range(2)]))
"""


def test_all_ranks_are_told_the_same_simulations(tmp_path: Path) -> None:
    solver = staying(tmp_path, RANKS)
    values: list[str] = []

    def all_have_come_far() -> bool:
        a = 2.5 + len(values)
        np.testing.assert_array_equal(list(solver.solve(np.array([a]), seed=0)), expected(a))
        values.append(str(a))
        return all(len(path.read_text().splitlines()) >= 3 for path in tmp_path.glob("rank?"))

    # The late rank is offered what it has missed while others run the next simulations.
    until(lambda: all_have_come_far() and (tmp_path / "rank2").exists())
    for rank in range(3):
        came = (tmp_path / f"rank{rank}").read_text().splitlines()
        assert came == values[: len(came)]


FIRST = "millstream.init()\nsimulation = millstream.next()\n"
SENDS = "for step in range(STEPS): millstream.send(step, 'u', frame(step))\n"
FAILURES = {
    "it ends when it should ask": (
        FIRST + SENDS,
        "ended after 4 of 4 steps, but as solver.stays is true it has to ask for the next",
    ),
    "it finalizes when it should ask": (
        FIRST + SENDS + "millstream.finalize()\ntime.sleep(600)",
        "finalized, but as solver.stays is true it has to ask for the next simulation until",
    ),
    "it fails when it should ask": (FIRST + SENDS + "sys.exit(3)", "status 3 after 4 of 4 steps"),
    "it hangs when it should ask": (
        FIRST + SENDS + "time.sleep(600)",
        "sent its 4 steps, but did not ask for the next simulation within its limit of 1 s",
    ),
    "it asks too early": (
        FIRST + "millstream.send(0, 'u', frame(0))\nmillstream.next()",
        "asked for the next simulation after 1 of the 4 steps of this one",
    ),
    "it asks at once": (
        FIRST + "millstream.next()",
        "asked for the next simulation after 0 of the 4 steps of this one",
    ),
    "it asks twice": (
        "millstream.init()\nraw(b'{\"next\": true}\\n' * 2)\ntime.sleep(600)",
        "asked for the next simulation after 0 of the 4|sent something while it waited",
    ),
    "it sends before it has asked": (
        "millstream.init()\nmillstream.send(0, 'u', frame(0))\ntime.sleep(600)",
        "sent step 0 before it had asked for a simulation",
    ),
    "it sends the next simulation without asking": (
        FIRST + SENDS + SENDS + "time.sleep(600)",
        "sent step 0 after the last one without asking for the next simulation",
    ),
    "it is an old client": (
        "millstream._send_line = lambda header, send=millstream._send_line: "
        "send(header | {'millstream': 1} if 'millstream' in header else header)\n" + FIRST,
        "speaks version 1 of the format: it has to be 2 where solver.stays is true",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_program_that_stays_and_does_anything_else_fails_with_one_line(
    name: str, tmp_path: Path, temporary: Path
) -> None:
    body, message = FAILURES[name]
    limit = 1.0 if "limit of 1 s" in message else 60.0
    solver = staying(tmp_path, body, time_limit=limit)
    assert re.search(message, failure(solver))
    assert list(temporary.iterdir()) == []


def test_only_a_program_that_stays_may_ask(tmp_path: Path) -> None:
    solver = program(tmp_path, FIRST)
    assert "asked for the next simulation, but solver.stays is not true" in failure(solver)


def test_a_client_of_version_1_works_as_it_did(tmp_path: Path) -> None:
    old = PREAMBLE.replace("import millstream_client as millstream", "") + (
        "import json, socket\n"
        "it = socket.socket(socket.AF_UNIX)\n"
        "it.connect(os.environ['MILLSTREAM_ADDRESS'])\n"
        "def put(**header): it.sendall(json.dumps(header).encode() + b'\\n')\n"
        "put(millstream=1, token=os.environ['MILLSTREAM_TOKEN'])\n"
        "for step in range(STEPS):\n"
        "    put(step=step, field='u', dtype='float64', shape=[2, 3], offset=[0, 0])\n"
        "    it.sendall(frame(step))\n"
        "put(end=True)\n"
    )
    solver = program(tmp_path, WELL)
    (tmp_path / "program.py").write_text(old)
    np.testing.assert_array_equal(list(solver.solve(A, seed=0)), expected(2.5))


def test_each_simulation_has_its_own_output(tmp_path: Path) -> None:
    says = STAYS.replace("for step", "print('a =', parameters[0], flush=True)\n    for step")
    solver = staying(tmp_path, says)
    for id, a in enumerate([2.5, 3.5]):
        solver.keep_output(OutputPlace(tmp_path / "programs", f"simulation_{id}", "here"))
        list(solver.solve(np.array([a]), seed=0))
    done = tmp_path / "programs" / "done"
    texts = {path.parent.name: path.read_text() for path in done.glob("*/stdout.txt")}
    assert texts == {"simulation_0.1": "a = 2.5\n", "simulation_1.1": "a = 3.5\n"}


DRIVER = """
import sys, tempfile, time
from pathlib import Path
import numpy as np
from programs import STAYS, program

tempfile.tempdir = sys.argv[2]
command = [sys.executable, "-S", sys.argv[1] + "/program.py", "0", sys.argv[1]]
stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\\n" + STAYS + "time.sleep(600)"
solver = program(Path(sys.argv[1]), stubborn, command=command, stays=True)
list(solver.solve(np.array([1.0]), seed=0))
print("done", flush=True)
time.sleep(600)
"""


def test_a_program_that_stays_ends_when_the_solvers_process_is_killed(
    tmp_path: Path, temporary: Path
) -> None:
    """Even one that goes on when there are no more simulations, and ignores the request to end."""
    arguments = [sys.executable, "-c", DRIVER, str(tmp_path), str(temporary)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with subprocess.Popen(
        arguments, cwd=SUPPORT, env=environment, stdout=subprocess.PIPE
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"done\n"
        (pid,) = noted(tmp_path / "pids")
        assert runs(pid)
        driver.kill()
    until(lambda: not runs(pid))
    until(lambda: list(temporary.iterdir()) == [])
