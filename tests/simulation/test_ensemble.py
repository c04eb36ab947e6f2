"""Simulations arrive complete whatever happens to their processes: real ones, on a local Ray."""

import importlib
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import noted_solver
import numpy as np
import pytest
import ray
import waiting
from noted_solver import STEPS, Log, Mishap, NotedRamp, expected_fields, simulation
from numpy.typing import NDArray
from waiting import LIMIT, until

from framework.errors import RunError
from framework.simulation.block import Block
from framework.simulation.dispenser import Dispenser, Groups
from framework.simulation.ensemble import MESSAGE_BYTES, Ensemble, steps_per_block
from framework.simulation.failures import Quarantine
from framework.simulation.pool import CREDIT
from framework.stream.ledger import Ledger, ReplayMismatchError
from framework.study.sections import EnsembleConfig
from solvers.base import Solver


class Watched(Ensemble):
    """An ensemble whose quarantine can be looked into."""

    def __init__(
        self,
        make_solver: Callable[[], Solver],
        config: EnsembleConfig,
        groups: Groups,
        verdicts: Quarantine,
        stored_steps: int,
        steps_per_block: int,
    ) -> None:
        super().__init__(make_solver, config, groups, verdicts, stored_steps, steps_per_block)
        self.quarantined = verdicts.items


Make = Callable[..., Watched]
EVERY = list(range(STEPS))


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=4,
        num_gpus=1,  # pretended: who gets it is told so, and nothing computes on it
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    # The workers cannot import the tests' modules, so what is in them is sent by value.
    modules = noted_solver, waiting, sys.modules[__name__]
    for module in modules:
        ray.cloudpickle.register_pickle_by_value(module)
    yield
    for module in modules:
        ray.cloudpickle.unregister_pickle_by_value(module)
    ray.shutdown()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


@pytest.fixture
def make(log: Log) -> Iterator[Make]:
    """Makes ensembles, ends those that hang, and sees to it that they leave nothing behind."""
    made: list[tuple[Watched, threading.Timer]] = []

    def ensemble(
        starts: list[int],
        mishap: Mishap | None = None,
        make_solver: Callable[..., Solver] = NotedRamp,
        stored_steps: int = STEPS,
        **config: float,
    ) -> Watched:
        settings = EnsembleConfig.model_validate({"max_quarantined": 0.5, **config})
        names = NotedRamp.parameters.names
        ensemble = Watched(
            partial(make_solver, log, mishap, stored_steps),
            settings,
            Dispenser(map(simulation, starts), settings.group_size).groups(),
            Quarantine(len(starts), settings.max_quarantined, names),
            stored_steps,
            steps_per_block=1,
        )
        made.append((ensemble, threading.Timer(LIMIT, ensemble.stop)))
        made[-1][1].start()
        return ensemble

    yield ensemble
    for one, timer in made:
        timer.cancel()
        one.close()
    until(lambda: not any(map(is_there, log.processes())))
    until(lambda: ray.available_resources().get("CPU") == 4)


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def receive(
    ensemble: Ensemble, on_block: Callable[[Block], None] = lambda block: None
) -> dict[int, list[list[float]]]:
    """The fields that the ledger lets through of each simulation; handles it as Reception does."""
    ledger = Ledger(STEPS, window=1)
    received: dict[int, list[list[float]]] = {}
    for block in ensemble.blocks():
        try:
            new = ledger.receive(block)
        except ReplayMismatchError:
            ledger.forget(block.simulation)
            del received[block.simulation]
            ensemble.restart(block.simulation)
        else:
            received.setdefault(block.simulation, [])
            received[block.simulation] += new.fields[:, 0].tolist() if new else []
        on_block(block)
    return received


def expected(starts: list[int]) -> dict[int, list[list[float]]]:
    return {simulation(start).id: expected_fields(start) for start in starts}


@pytest.mark.parametrize("actors", [1, 2])
@pytest.mark.parametrize("group_size", [1, 3])
def test_every_simulation_arrives_once_and_in_order(
    make: Make, actors: int, group_size: int
) -> None:
    starts = list(range(1, 11))
    ensemble = make(starts, actors=actors, group_size=group_size)
    sent: dict[int, list[Block]] = {}
    for block in ensemble.blocks():
        sent.setdefault(block.simulation, []).append(block)
    assert {
        id: [fields[0].tolist() for block in blocks for fields in block.fields]
        for id, blocks in sent.items()
    } == expected(starts)
    for start in starts:
        blocks = sent[simulation(start).id]
        assert [block.first_step for block in blocks] == EVERY
        assert {block.parameters.item() for block in blocks} == {start}
    assert ensemble.quarantined == []


class Whereabouts(NotedRamp):
    """u = 10 on device cuda, and 1 more for each GPU that Ray gave to the process."""

    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        u = 10 * (device == "cuda") + len(ray.get_gpu_ids())
        for _ in range(STEPS):
            yield np.full((len(parameters), 1, 3), u, np.float32)


@pytest.mark.parametrize(("gpus", "u"), [(0, 0), (0.5, 11), (1, 11)])
def test_an_actor_that_has_a_gpu_computes_on_it(make: Make, gpus: float, u: float) -> None:
    ensemble = make([4, 5, 6], make_solver=Whereabouts, group_size=2, gpus_per_actor=gpus)
    received = receive(ensemble)
    assert received == {start: [[u] * 3] * STEPS for start in (4, 5, 6)}


def nan_four_times(log: Log, start: int, step: int) -> float:
    return math.nan if start == 1 and log.attempts(1) == step <= 4 else 0


@pytest.mark.parametrize("group_size", [1, 3])
def test_killed_processes_cost_no_step_and_quarantine_nothing(
    make: Make, log: Log, group_size: int
) -> None:
    """One simulation's is killed six times, each time at a later step; another one's once.

    The first has failed four times before: if a kill counted, it would be quarantined.
    """
    starts = list(range(1, 10))
    ensemble = make(starts, nan_four_times, actors=2, group_size=group_size)
    killed: dict[int, list[int]] = {1: [], 9: []}

    def kill(block: Block) -> None:
        for start, times in ((1, 6), (9, 1)):
            if start == 1 and log.attempts(1) <= 4:
                continue
            if block.simulation == simulation(start).id and block.first_step > len(killed[start]):
                process = log.process(start)
                if process not in killed[start] and len(killed[start]) < times:
                    killed[start].append(process)
                    os.kill(process, signal.SIGKILL)

    assert receive(ensemble, kill) == expected(starts)
    assert [len(killed[1]), len(killed[9])] == [6, 1]
    assert ensemble.quarantined == []


def test_a_solver_waits_when_nobody_draws(make: Make, log: Log) -> None:
    blocks = make([5], stored_steps=500).blocks()
    next(blocks)
    counts: list[int] = []
    while len(counts) < 50 or len(set(counts[-50:])) > 1:
        counts.append(len(log.steps(5)))
        time.sleep(0.01)
    assert 1 + CREDIT <= counts[-1] <= 1 + CREDIT + 2
    assert sum(1 for _ in blocks) == 499


def raise_at_step_4(log: Log, start: int, step: int) -> float:
    if start == 5 and step == 4:
        raise ValueError("unstable")
    return 0


def nan_ever_later(log: Log, start: int, step: int) -> float:
    return math.nan if start == 5 and step == log.attempts(start) else 0


@pytest.mark.parametrize("group_size", [1, 3])
@pytest.mark.parametrize(
    ("mishap", "attempts", "step", "error"),
    [(raise_at_step_4, 3, 4, "ValueError: unstable"), (nan_ever_later, 5, 5, "yielded NaN")],
)
def test_a_simulation_that_fails_too_often_is_quarantined(
    make: Make, log: Log, mishap: Mishap, attempts: int, step: int, error: str, group_size: int
) -> None:
    ensemble = make([4, 5, 6, 7], mishap, group_size=group_size)
    received = receive(ensemble)
    (item,) = ensemble.quarantined
    assert (item.simulation.id, item.simulation.parameters.tolist(), item.step) == (5, [5.0], step)
    assert error in item.error
    assert log.attempts(5) == attempts
    assert received == expected([4, 6, 7]) | {5: expected_fields(5)[:step]}


def fail_twice(log: Log, start: int, step: int) -> float:
    return math.nan if start == 5 and step == 4 and log.attempts(5) <= 2 else 0


@pytest.mark.parametrize("group_size", [1, 3])
def test_a_simulation_that_works_the_third_time_is_complete(make: Make, group_size: int) -> None:
    ensemble = make([4, 5, 6], fail_twice, group_size=group_size)
    assert receive(ensemble) == expected([4, 5, 6])
    assert ensemble.quarantined == []


def test_too_many_failures_end_the_run(make: Make) -> None:
    receive(make([4, 5, 6, 7], raise_at_step_4, max_quarantined=0.25))
    with pytest.raises(RunError, match=r"1 of 4 .* share of 0\.24 .* step 4: ValueError: unstable"):
        receive(make([4, 5, 6, 7], raise_at_step_4, max_quarantined=0.24))


def hang_die_or_stop(log: Log, start: int, step: int) -> float:
    while start == 5 and step == 4:
        pass
    if start == 6 and step == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    if start == 7 and step == 4 and log.attempts(7) == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    return 0


def test_what_always_hangs_or_dies_is_quarantined_and_what_stopped_once_is_not(
    make: Make, log: Log
) -> None:
    """With all CPUs in use: a new process needs those of the one that hangs or is stopped."""
    starts = [4, 5, 6, 7, 8]
    ensemble = make(starts, hang_die_or_stop, actors=3, cpus_per_actor=1.25, time_limit=1.0)
    received = receive(ensemble)
    hung, dead = sorted(ensemble.quarantined, key=lambda item: item.simulation.id)
    # A step is sent when the next one is there, so 3 is the first that was not received.
    assert (hung.simulation.id, hung.step, hung.error) == (5, 3, "did not answer for 3.2 s")
    assert (dead.simulation.id, dead.error) == (6, "its process died 5 times")
    assert 8 - CREDIT - 2 <= dead.step <= 8
    assert [log.attempts(5), log.attempts(7)] == [3, 2]
    assert {id for id in received if len(received[id]) == STEPS} == {4, 7, 8}
    assert {id: received[id] for id in (4, 7, 8)} == expected([4, 7, 8])


def gated(log: Log, start: int, step: int) -> float:
    """Start 4 waits for start 5 to begin, and that one for the gate."""
    if step == 0:
        until(log.gate.exists if start == 5 else lambda: log.attempts(5) == 1)
    return 0


def test_a_slow_consumer_is_not_a_silent_solver(make: Make, log: Log) -> None:
    ensemble = make([4, 5], gated, actors=2, time_limit=1.0)

    def dawdle(block: Block) -> None:
        if (block.simulation, block.first_step) == (4, 0):
            log.gate.touch()
            time.sleep(3.3)  # a solver may be silent for 3.2 s

    assert receive(ensemble, dawdle) == expected([4, 5])
    assert log.attempts(5) == 1


def add_process(log: Log, start: int, step: int) -> float:
    return float(os.getpid())


@pytest.mark.parametrize("group_size", [1, 2])
def test_no_simulation_is_mixed_from_two_processes(make: Make, log: Log, group_size: int) -> None:
    ensemble = make([4, 5, 6], add_process, actors=2, group_size=group_size)
    killed: list[int] = []

    def kill(block: Block) -> None:
        if (block.simulation, block.first_step) == (4, 5) and not killed:
            killed.append(log.process(4))
            os.kill(killed[0], signal.SIGKILL)

    received = receive(ensemble, kill)
    assert log.attempts(4) == 3
    for start in (4, 5, 6):
        added = np.array(received[start]) - np.array(expected_fields(start))
        assert added.shape == (STEPS, 3)
        (process,) = np.unique(added)
        assert start != 4 or process != killed[0]


def nan_once(log: Log, start: int, step: int) -> float:
    return math.nan if start == 5 and step == 2 and log.attempts(5) == 1 else 0


def test_a_call_that_runs_again_leaves_out_what_failed_in_it(make: Make, log: Log) -> None:
    """It would run twice otherwise: alone, and once more in its group."""
    steps: dict[int, list[int]] = {4: [], 5: []}
    killed = 0
    ensemble = make([4, 5], nan_once, group_size=2)
    for block in ensemble.blocks():
        steps[block.simulation].append(block.first_step)
        if steps[4] == EVERY[:5]:
            killed = log.process(4)
            os.kill(killed, signal.SIGKILL)
    assert killed not in (0, log.process(4))
    assert steps[5] == [0, 1, *EVERY]
    assert steps[4][-STEPS:] == EVERY


def fail_once_and_keep_its_group(log: Log, start: int, step: int) -> float:
    if start in (4, 6):
        return math.nan if log.attempts(start) == 1 else 0
    if step == 2:
        until(log.gate.exists)
    return 0


def test_a_restart_runs_one_simulation_and_leaves_its_group(make: Make, log: Log) -> None:
    """4 and 6 fail and run again on the third actor, while their groups still run on the others."""
    ensemble = make([4, 5, 6, 7], fail_once_and_keep_its_group, actors=3, group_size=2)
    steps: dict[int, list[int]] = {id: [] for id in (4, 5, 6, 7)}
    restarts = {(4, 0), (6, 0), (7, STEPS - 1)}
    for block in ensemble.blocks():
        steps[block.simulation].append(block.first_step)
        if (block.simulation, block.first_step) in restarts:
            restarts.remove((block.simulation, block.first_step))
            ensemble.restart(block.simulation)
        if steps[4][1:] == steps[6][1:] == EVERY:
            log.gate.touch()
    assert steps == {4: [0, *EVERY], 5: EVERY, 6: [0, *EVERY], 7: EVERY * 2}
    with pytest.raises(LookupError, match="simulation 7 is not running"):
        ensemble.restart(7)


def unstartable(*settings: object) -> Solver:
    raise ValueError("no licence")


def fatal(*settings: object) -> Solver:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


class Unloadable:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return importlib.import_module, ("only_the_driver_has_this",)

    def __call__(self, *settings: object) -> Solver:
        raise AssertionError


@pytest.mark.parametrize(
    ("make_solver", "why"),
    [
        (unstartable, "ValueError: no licence"),
        (fatal, "it died 5 times in a row"),
        (Unloadable(), "ModuleNotFoundError: No module named 'only_the_driver_has_this'"),
    ],
)
def test_a_solver_that_cannot_start_ends_the_run(
    make: Make, make_solver: Callable[..., Solver], why: str
) -> None:
    ensemble = make([4, 5], make_solver=make_solver, actors=2)
    with pytest.raises(RunError, match=f"a solver process cannot start: {why}"):
        receive(ensemble)


def reluctant(log: Log, *settings: Any) -> Solver:
    start = len(log.steps(0))
    log.note(0, start)
    if start in (0, 1, 2, 3, 5):
        os.kill(os.getpid(), signal.SIGKILL)
    return NotedRamp(log, *settings)


def test_a_process_that_dies_as_it_starts_is_started_again(make: Make, log: Log) -> None:
    """Four times in a row, and after a kill once more: never five times in a row."""
    killed: list[int] = []

    def kill(block: Block) -> None:
        if block.first_step == 4 and not killed:
            killed.append(log.process(4))
            os.kill(killed[0], signal.SIGKILL)

    assert receive(make([4], make_solver=reluctant), kill) == expected([4])
    assert log.steps(0) == [0, 1, 2, 3, 4, 5, 6]


def wait_for_ever(log: Log, start: int, step: int) -> float:
    until(log.gate.exists)
    return 0


def test_stop_ends_the_blocks(make: Make, log: Log) -> None:
    ensemble = make([4, 5], wait_for_ever)
    received: list[dict[int, list[list[float]]]] = []
    thread = threading.Thread(target=lambda: received.append(receive(ensemble)))
    thread.start()
    until(lambda: log.attempts(4) == 1)
    ensemble.stop()
    thread.join(LIMIT)
    assert received == [{}]


@pytest.mark.parametrize(
    ("group_size", "stored_steps", "step_bytes", "steps"),
    [
        (1, 100, MESSAGE_BYTES // 10, 10),
        (5, 100, MESSAGE_BYTES // 10, 2),
        (20, 100, MESSAGE_BYTES // 10, 1),
        (1, 100, 10 * MESSAGE_BYTES, 1),
        (1, 7, 4, 7),
    ],
)
def test_a_message_is_about_as_large_as_ray_moves_best(
    group_size: int, stored_steps: int, step_bytes: int, steps: int
) -> None:
    assert steps_per_block(group_size, stored_steps, step_bytes) == steps
