"""Solver actors: they run simulations, yield blocks, and are replaced when they die.

The training rank's receive thread is the only one that uses an `Ensemble`: it draws blocks from
`blocks()`, and while it does not draw, the solvers wait (the backpressure of Ray's streaming
generators). A call to an actor runs one fixed group of simulations: one, or several at once if the
solver can.

What a failure does:
- The process dies: a new actor takes its place, and the whole call is submitted again from step 0.
  Ray's own restarts are not used: they take longer, and never end where a process dies as it
  starts. Nor is Ray's retry of generators: it skips what was delivered by counting items.
- A simulation fails (see `solver_actor`): the others of its group go on; it runs again, alone, and
  when it has failed too often it is quarantined with its parameters and its error. Past a share of
  quarantined simulations the run stops.
- A call falls silent for longer than it may take: its process is killed, and its simulations count
  as failed.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import ray
from ray.exceptions import (
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)

from framework.errors import RunError
from framework.simulation.block import Block, Message
from framework.simulation.solver_actor import SolverActor, Writer
from framework.study.design import Simulation
from framework.study.ids import is_held_out
from framework.study.sections import EnsembleConfig
from solvers.base import Solver

# A message costs Ray 2-3 ms on two cores, whatever its size (benchmarks/transport.py): one is to be
# about this large.
MESSAGE_BYTES = 16 * 2**20
# Messages of a call that may wait to be drawn before its solver has to.
CREDIT = 2
# A simulation is quarantined after this many failures at the same step, or in all.
FAILURES_AT_STEP, FAILURES = 3, 5
# Kills from outside are not a simulation's fault. But a solver in C can take its process with it:
# a call whose process dies this often without a new step counts as failed. Where this many die in a
# row as they start, the run stops.
DEATHS = 5


@dataclass(frozen=True)
class Quarantined:
    """A simulation that was given up, and why."""

    simulation: Simulation
    step: int
    error: str

    def describe(self, names: Sequence[str]) -> dict[str, Any]:
        """As plain values, with the parameters by their names."""
        parameters = dict(zip(names, self.simulation.parameters.tolist(), strict=True))
        return {
            "simulation": self.simulation.id,
            "parameters": parameters,
            "step": self.step,
            "error": self.error,
        }


def steps_per_block(group_size: int, stored_steps: int, step_bytes: int) -> int:
    """How many steps make a block, so that a group's message is about MESSAGE_BYTES large."""
    return min(max(MESSAGE_BYTES // (group_size * step_bytes), 1), stored_steps)


class _Call:
    """A group of simulations to run, and the next step expected of those still wanted."""

    def __init__(self, group: tuple[Simulation, ...], done: Container[int] = ()) -> None:
        self.group = group
        self.wanted = {simulation.id: 0 for simulation in group if simulation.id not in done}
        self.deaths = 0
        self.furthest = 0  # blocks drawn by the attempt that came furthest
        self.drawn = 0  # blocks drawn by this attempt

    def to_store(self) -> frozenset[int]:
        """Which simulations its process may have to store: no held-out ones, and none again."""
        return frozenset(id for id in self.wanted if not is_held_out(id))

    def alone(self, simulation: int) -> "_Call":
        """Stop wanting a simulation of this call; a call for it alone."""
        self.wanted.pop(simulation, None)
        return _Call(tuple(item for item in self.group if item.id == simulation))


@dataclass
class _Worker:
    """An actor and what it does: starting (ping), running a call (stream), or idle (neither)."""

    actor: Any = None
    ping: Any = None
    failed_starts: int = 0  # in a row
    call: _Call | None = None
    stream: Any = None
    heard: float = 0.0  # when a message was last drawn


class Ensemble:
    """Runs simulations on `config.actors` actors, which are started by `blocks()`.

    `completed`, `quarantined` and the seconds may be read from any thread; `stop` may be called
    from any.
    """

    def __init__(
        self,
        make_solver: Callable[[], Solver],
        config: EnsembleConfig,
        simulations: Iterable[Simulation],
        total: int,
        stored_steps: int,
        steps_per_block: int,
    ) -> None:
        """`total`: how many simulations there are; the share that may be quarantined is of it."""
        self.completed: set[int] = set()
        self.quarantined: list[Quarantined] = []
        self.idle = 0.0  # of `seconds`, those without a message to draw
        self.solvers_waited = 0.0  # seconds that the solvers waited for messages to be drawn
        self._config = config
        self._stored_steps = stored_steps
        self._steps_per_block = steps_per_block
        self._total = total
        self._fresh = iter(simulations)
        self._queue: deque[_Call] = deque()
        self._failures: Counter[tuple[int, int]] = Counter()  # (simulation, step)
        self._stop = threading.Event()
        self._make_actor = (
            ray.remote(SolverActor)
            .options(
                num_cpus=config.cpus_per_actor,
                num_gpus=config.gpus_per_actor,
                max_restarts=0,
                max_task_retries=0,
            )
            .remote
        )
        self._make_solver = make_solver
        self._writer: Writer | None = None
        self._workers = [_Worker() for _ in range(config.actors)]
        self._yielding: _Call | None = None  # whose block was yielded last
        self._began: float | None = None
        self._ended: float | None = None

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks of every simulation, each simulation's in order, until all have ended.

        A simulation that had to run again is yielded again from its first step. Raises RunError
        when too many are quarantined, a solver cannot be started or a simulation not be stored.
        """
        if not self._work_left():
            return
        for worker in self._workers:
            self._start(worker)
        try:
            yield from self._all_blocks()
        finally:
            self._ended = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the first actor was given work, until all have ended."""
        if self._began is None:
            return 0.0
        return (self._ended or time.monotonic()) - self._began

    def _all_blocks(self) -> Iterator[Block]:
        while not self._stop.is_set():
            for worker in self._workers:
                self._occupy(worker)
            # An actor that has not started yet is waited for only while there is work for it.
            if not any(worker.call for worker in self._workers) and not self._work_left():
                return
            busy = {worker.ping or worker.stream: worker for worker in self._workers}
            waiting = [reference for reference in busy if reference is not None]
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
            if not ready:
                before = time.monotonic()
                ready, _ = ray.wait(waiting, num_returns=1, timeout=0.5)
                if self._began is not None:
                    self.idle += time.monotonic() - max(before, self._began)
            for reference in ready:
                yield from self._draw(busy[reference])
            for reference in waiting:
                if reference not in ready:
                    self._check_silence(busy[reference])

    def store(self, writer: Writer) -> None:
        """Have the training simulations written where they run; before `blocks()`."""
        self._writer = writer

    def skip(self, completed: Iterable[int]) -> None:
        """Do not run these simulations, nor those that are quarantined; before `blocks()`.

        A group of which one did not end runs as a whole: what a solver computes may depend on how
        many simulations it computes at once.
        """
        self.completed = set(completed)

    def state(self) -> list[dict[str, Any]]:
        """The simulations that were given up, for `load_state`."""
        return [
            {
                "id": item.simulation.id,
                "parameters": item.simulation.parameters,
                "seed": str(item.simulation.seed),  # more than a signed number of 64 bits holds
                "step": item.step,
                "error": item.error,
            }
            for item in self.quarantined
        ]

    def load_state(self, state: list[dict[str, Any]]) -> None:
        """Give up the simulations that `state` returned."""
        self.quarantined = [
            Quarantined(
                Simulation(item["id"], np.array(item["parameters"]), int(item["seed"])),
                item["step"],
                item["error"],
            )
            for item in state
        ]

    def restart(self, simulation: int) -> None:
        """Run a simulation of which a block was just yielded once more, from step 0."""
        call = self._yielding
        assert call is not None
        assert simulation in {item.id for item in call.group}
        self.completed.discard(simulation)
        self._queue.append(call.alone(simulation))

    def stop(self) -> None:
        """Make `blocks()` end soon."""
        self._stop.set()

    def close(self) -> None:
        """End the actors."""
        for worker in self._workers:
            if worker.actor is not None:
                ray.kill(worker.actor)

    def _start(self, worker: _Worker) -> None:
        """Give a worker a new process, in place of the one that it has."""
        if worker.actor is not None:
            ray.kill(worker.actor)
        device = "cuda" if self._config.gpus_per_actor else "cpu"
        worker.actor = self._make_actor(
            self._make_solver, self._config.time_limit, self._writer, device
        )
        worker.ping = worker.actor.ping.remote()
        worker.call = worker.stream = None

    def _occupy(self, worker: _Worker) -> None:
        """Give a worker that is idle a call, if there is one left."""
        if worker.ping is None and worker.call is None and self._work_left():
            worker.call = self._queue.popleft()
            worker.call.drawn = 0
            worker.heard = time.monotonic()
            self._began = self._began or worker.heard
            worker.stream = worker.actor.run.options(
                num_returns="streaming", _generator_backpressure_num_objects=CREDIT
            ).remote(worker.call.group, self._steps_per_block, worker.call.to_store())

    def _work_left(self) -> bool:
        """Whether a call is queued; takes the next fresh group when no call has to run again."""
        while not self._queue:
            group = tuple(islice(self._fresh, self._config.group_size))
            if not group:
                return False
            ended = self.completed | {item.simulation.id for item in self.quarantined}
            if not ended.issuperset(simulation.id for simulation in group):
                self._queue.append(_Call(group, ended))
        return True

    def _draw(self, worker: _Worker) -> Iterator[Block]:
        """Take what a worker has ready."""
        try:
            if worker.ping is not None:
                ray.get(worker.ping)
                worker.ping, worker.failed_starts = None, 0
                return
            message: Message = ray.get(next(worker.stream))
        except StopIteration:
            worker.call = worker.stream = None
            return
        except RayTaskError as error:
            # What a solver raises comes as a block with an error: this is of our own code.
            raise RunError(str(error.cause)) from error
        except (RayActorError, OutOfMemoryError, ObjectLostError) as error:
            self._replace(worker, error)
            return
        except RayError as error:
            raise RunError(f"Ray failed: {_last_line(error)}") from error
        worker.heard = time.monotonic()
        call = worker.call
        assert call is not None
        call.drawn += 1
        if call.drawn > call.furthest:
            call.furthest, call.deaths = call.drawn, 0
        self.solvers_waited += message.waited
        for block in message.blocks:
            if block.simulation not in call.wanted:
                continue
            if block.error:
                self._fail(call, block.simulation, block.first_step, block.error)
            else:
                self._advance(call, block)
                self._yielding = call
                yield block

    def _advance(self, call: _Call, block: Block) -> None:
        """Check that the block is the one expected of its simulation."""
        expected = call.wanted[block.simulation]
        if block.first_step != expected:
            raise RunError(
                f"a block of simulation {block.simulation} begins at step {block.first_step}, "
                f"but step {expected} was to come: the stream has lost data"
            )
        call.wanted[block.simulation] += len(block)
        if call.wanted[block.simulation] == self._stored_steps:
            del call.wanted[block.simulation]
            self.completed.add(block.simulation)

    def _fail(self, call: _Call, simulation: int, step: int, error: str) -> None:
        """Count a failure; run the simulation again, or quarantine it."""
        again = call.alone(simulation)
        self._failures[simulation, step] += 1
        in_all = sum(n for (id, _), n in self._failures.items() if id == simulation)
        if self._failures[simulation, step] < FAILURES_AT_STEP and in_all < FAILURES:
            self._queue.append(again)
            return
        self.quarantined.append(Quarantined(again.group[0], step, error))
        if len(self.quarantined) > self._config.max_quarantined * self._total:
            raise RunError(
                f"{len(self.quarantined)} of {self._total} simulations are quarantined, more than "
                f"the share of {self._config.max_quarantined:g} that ensemble.max_quarantined "
                f"allows; the last one at step {step}: {error}"
            )

    def _replace(self, worker: _Worker, error: RayError) -> None:
        """The process of a worker died: queue its call again, and start another process."""
        if worker.ping is not None:
            worker.failed_starts += 1
            if isinstance(error, RayActorError) and error.actor_init_failed:
                raise RunError(f"a solver process cannot start: {_last_line(error)}") from error
            if worker.failed_starts == DEATHS:
                raise RunError(
                    f"a solver process cannot start: it died {DEATHS} times in a row"
                ) from error
        call = worker.call
        self._start(worker)
        if call is None:
            return
        call.deaths += 1
        if call.deaths >= DEATHS:
            for simulation, step in list(call.wanted.items()):
                self._fail(call, simulation, step, f"its process died {DEATHS} times")
        elif call.wanted:
            call.wanted = dict.fromkeys(call.wanted, 0)
            self._queue.appendleft(call)

    def _check_silence(self, worker: _Worker) -> None:
        """Kill a process that has computed for longer than it may without a word."""
        limit = 1.2 * self._config.time_limit + 2
        if worker.call is None or time.monotonic() - worker.heard < limit:
            return
        # The consumer may have been away for long: what came meanwhile is heard first.
        if ray.wait([worker.stream], timeout=1)[0]:
            return
        for simulation, step in list(worker.call.wanted.items()):
            self._fail(worker.call, simulation, step, f"did not answer for {limit:g} s")
        self._start(worker)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()
