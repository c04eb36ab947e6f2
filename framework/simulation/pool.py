"""The solvers' processes: Ray actors that are started, given calls, listened to and replaced.

A call runs a fixed group of simulations: one, or several at once if the solver can. Ray's own
restarts of actors are not used: they take longer, and never end where a process dies as it starts.
Nor is Ray's retry of generators: it skips what was delivered by counting items.
"""

import socket
import time
from collections.abc import Callable, Collection, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import (
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)

from framework.errors import ClusterError, RunError, SolverError
from framework.simulation.block import Message
from framework.simulation.solver_actor import SolverActor, Writer
from framework.study.design import Simulation
from framework.study.ids import is_held_out
from framework.study.sections import EnsembleConfig
from solvers.base import OutputPlace, Solver

# How many messages of a call may wait to be drawn before its solver has to wait.
CREDIT = 2
# A process killed from outside is not its simulation's fault. But a solver in C can crash its
# process: a call whose process dies this often without a new block counts as failed. If this many
# processes die in a row as they start, the run stops.
DEATHS = 5


class ProcessDiedError(Exception):
    """A solver's process died while it ran a call, or before."""


class Call:
    """A group of simulations to run, and the next step expected of those still wanted."""

    def __init__(self, group: tuple[Simulation, ...], done: Container[int] = ()) -> None:
        self.group = group
        self.wanted = {simulation.id: 0 for simulation in group if simulation.id not in done}
        self.deaths = 0  # of processes, since an attempt came further than all before
        self._furthest = 0  # blocks drawn by the attempt that came furthest
        self._drawn = 0  # blocks drawn by this attempt

    def begin(self) -> None:
        """Expect every wanted simulation from its first step."""
        self.wanted = dict.fromkeys(self.wanted, 0)
        self._drawn = 0

    def count_message(self) -> None:
        """Count a message of this attempt; if it came further than all before, forget deaths."""
        self._drawn += 1
        if self._drawn > self._furthest:
            self._furthest, self.deaths = self._drawn, 0

    def to_store(self) -> frozenset[int]:
        """Return the simulations to store: those still wanted, without the held-out ones."""
        return frozenset(id for id in self.wanted if not is_held_out(id))

    def simulation(self, id: int) -> Simulation | None:
        """Return the simulation of the group with this id, if there is one."""
        return next((item for item in self.group if item.id == id), None)


@dataclass(eq=False)
class Worker:
    """An actor and what it does: starting (ping), running a call (stream), or idle (neither)."""

    actor: Any = None
    ping: Any = None
    failed_starts: int = 0  # in a row
    call: Call | None = None
    stream: Any = None
    heard: float = 0.0  # when a message was last drawn

    @property
    def expected(self) -> Any:
        """What Ray has to deliver next, None if the worker is idle."""
        return self.ping or self.stream


class Pool:
    """`config.actors` workers. `idle` and `began` may be read from any thread."""

    def __init__(
        self, make_solver: Callable[[], Solver], config: EnsembleConfig, steps_per_block: int
    ) -> None:
        self.idle = 0.0  # seconds since `began` without a message to draw
        self.began: float | None = None  # when the first worker was given a call
        self.workers = [Worker() for _ in range(config.actors)]
        self._time_limit = config.time_limit
        self._steps_per_block = steps_per_block
        self._make_solver = make_solver
        self._device = "cuda" if config.gpus_per_actor else "cpu"
        self._writer: Writer | None = None
        self._programs: OutputPlace | None = None
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

    @property
    def busy(self) -> bool:
        """Whether a worker has a call."""
        return any(worker.call for worker in self.workers)

    def start(self, writer: Writer | None, programs: Path | None) -> None:
        """Start all workers.

        They store simulations by `writer`, and keep what programs print in the folder `programs`,
        if there is one.
        """
        self._writer = writer
        if programs is not None:
            self._programs = OutputPlace(programs.absolute(), "", socket.gethostname())
        for worker in self.workers:
            self.replace(worker)

    def close(self) -> None:
        """End the workers' processes."""
        for worker in self.workers:
            if worker.actor is not None:
                ray.kill(worker.actor)

    def replace(self, worker: Worker) -> None:
        """Give a worker a new process in place of its old one, and no call."""
        if worker.actor is not None:
            ray.kill(worker.actor)
        worker.actor = self._make_actor(
            self._make_solver, self._time_limit, self._writer, self._device, self._programs
        )
        worker.ping = worker.actor.ping.remote()
        worker.call = worker.stream = None

    def run(self, worker: Worker, call: Call) -> None:
        """Run a call on an idle worker, from its first step."""
        call.begin()
        worker.call = call
        worker.heard = time.monotonic()
        self.began = self.began or worker.heard
        worker.stream = worker.actor.run.options(
            num_returns="streaming", _generator_backpressure_num_objects=CREDIT
        ).remote(call.group, self._steps_per_block, call.to_store())

    def idle_workers(self) -> list[Worker]:
        """Return the workers that have started and have no call."""
        return [worker for worker in self.workers if worker.expected is None]

    def ready(self, seconds: float) -> list[Worker]:
        """Return the workers that `draw` need not wait for; wait up to so many seconds for one."""
        busy = {worker.expected: worker for worker in self.workers if worker.expected is not None}
        if not busy:
            return []
        found, _ = ray.wait(list(busy), num_returns=len(busy), timeout=0)
        if not found:
            before = time.monotonic()
            found, _ = ray.wait(list(busy), num_returns=1, timeout=seconds)
            if self.began is not None:
                self.idle += time.monotonic() - max(before, self.began)
        return [busy[reference] for reference in found]

    def draw(self, worker: Worker) -> Message | None:
        """Return the next message of a worker; None if it has just started or its call has ended.

        Raises ProcessDiedError, after which the worker has to be replaced, SolverError if no
        process can be started, and RunError for any other failure.
        """
        try:
            if worker.ping is not None:
                ray.get(worker.ping)
                worker.ping, worker.failed_starts = None, 0
                return None
            message: Message = ray.get(next(worker.stream))
        except StopIteration:
            worker.call = worker.stream = None
            return None
        except RayTaskError as error:
            # An error of a solver comes as a block: this one is of our own code.
            raise RunError(str(error.cause)) from error
        except (RayActorError, OutOfMemoryError, ObjectLostError) as error:
            if worker.ping is not None:
                _count_failed_start(worker, error)
            raise ProcessDiedError from error
        except RayError as error:
            raise ClusterError(f"Ray failed: {_last_line(error)}") from error
        worker.heard = time.monotonic()
        return message

    def silent(self, but: Collection[Worker]) -> list[Worker]:
        """Return the workers, except `but`, that have been silent for longer than they may."""
        return [worker for worker in self.workers if worker not in but and self._is_silent(worker)]

    @property
    def silence(self) -> float:
        """How many seconds a worker may be silent."""
        return 1.2 * self._time_limit + 2

    def _is_silent(self, worker: Worker) -> bool:
        if worker.call is None or time.monotonic() - worker.heard < self.silence:
            return False
        # The consumer may have been away for long: a message may have come meanwhile.
        return not ray.wait([worker.stream], timeout=1)[0]


def _count_failed_start(worker: Worker, error: RayError) -> None:
    worker.failed_starts += 1
    if isinstance(error, RayActorError) and error.actor_init_failed:
        raise SolverError(f"a solver process cannot start: {_last_line(error)}") from error
    if worker.failed_starts == DEATHS:
        raise SolverError(
            f"a solver process cannot start: it died {DEATHS} times in a row"
        ) from error


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()
