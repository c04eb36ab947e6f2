"""The ensemble: runs simulations on a pool of solver processes and yields their blocks.

The receive thread of a training rank is the only one that uses an `Ensemble`: it draws blocks from
`blocks()`, and while it does not draw, the solvers wait (the backpressure of Ray's streaming
generators).

What a failure does:
- A process dies: a new one takes its place, and the whole call is submitted again from step 0.
- A simulation fails (see `solver_actor`): the others of its group go on; it runs again, alone, and
  when it has failed too often it is quarantined with its parameters and its error. Past a share of
  quarantined simulations the run stops.
- A call falls silent for longer than it may take: its process is killed, and its simulations count
  as failed.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from framework.errors import RunError
from framework.simulation.block import Block, Message
from framework.simulation.dispenser import Groups
from framework.simulation.failures import Failures, Verdicts
from framework.simulation.pool import DEATHS, Call, Pool, ProcessDiedError, Worker
from framework.simulation.solver_actor import Writer
from framework.study.sections import EnsembleConfig
from solvers.base import Solver

# The size of a message to aim at: each costs Ray 2-3 ms on two cores, whatever its size
# (benchmarks/transport.py).
MESSAGE_BYTES = 16 * 2**20
# Seconds to wait at most for a message, or for work; and for a message while work is to come soon.
_WAIT, _SOON = 0.5, 0.01


def steps_per_block(group_size: int, stored_steps: int, step_bytes: int) -> int:
    """Return how many steps make a block, for messages of about MESSAGE_BYTES."""
    return min(max(MESSAGE_BYTES // (group_size * step_bytes), 1), stored_steps)


class Ensemble:
    """Runs simulations on `config.actors` processes, which are started by `blocks()`.

    The seconds may be read from any thread; `stop` may be called from any. The ledger alone decides
    which simulations are complete.
    """

    def __init__(
        self,
        make_solver: Callable[[], Solver],
        config: EnsembleConfig,
        groups: Groups,
        verdicts: Verdicts,
        stored_steps: int,
        steps_per_block: int,
    ) -> None:
        """`groups`: the work. `verdicts` is told which simulations run again or are given up."""
        self.solvers_waited = 0.0  # seconds that the solvers waited for messages to be drawn
        self._stored_steps = stored_steps
        self._groups = groups
        self._queue: deque[Call] = deque()
        self._verdicts = verdicts
        self._failures = Failures(verdicts)
        self._pool = Pool(make_solver, config, steps_per_block)
        self._stop = threading.Event()
        self._writer: Writer | None = None
        self._programs: Path | None = None
        self._end: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds from the first call given to a process until all work had ended."""
        if self._pool.began is None:
            return 0.0
        return (self._end or time.monotonic()) - self._pool.began

    @property
    def idle(self) -> float:
        """The part of `seconds` without a message to draw."""
        return self._pool.idle

    def store(self, writer: Writer) -> None:
        """Write the training simulations where they run; call before `blocks()`."""
        self._writer = writer

    def keep_output(self, programs: Path) -> None:
        """Keep what the solvers' programs print in this folder; call before `blocks()`."""
        self._programs = programs

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks of every simulation, each simulation's in order, until all have ended.

        A simulation that had to run again is yielded again from its first step. Raises SolverError
        when too many are quarantined or a solver cannot be started, and RunError when a simulation
        cannot be stored.
        """
        while not self._work_left():
            if self._groups.over or self._stop.is_set():
                return
            self._groups.wait(_WAIT)
        self._pool.start(self._writer, self._programs)
        try:
            yield from self._all_blocks()
        finally:
            self._end = time.monotonic()

    def restart(self, simulation: int) -> None:
        """Run a simulation once more, from step 0, while the call that runs it goes on.

        Raises LookupError if no call runs it.
        """
        calls = [worker.call for worker in self._pool.workers if worker.call]
        again = [found for call in calls if (found := call.simulation(simulation))]
        if not again:
            raise LookupError(f"simulation {simulation} is not running")
        for call in calls:
            call.wanted.pop(simulation, None)
        self._queue.append(Call((again[0],)))

    def stop(self) -> None:
        """Make `blocks()` end soon."""
        self._stop.set()

    def close(self) -> None:
        """End the processes."""
        self._pool.close()

    def _all_blocks(self) -> Iterator[Block]:
        while not self._stop.is_set():
            for worker in self._pool.idle_workers():
                if self._work_left():
                    self._pool.run(worker, self._queue.popleft())
            idle = bool(self._pool.idle_workers())
            # A process that has not started yet is waited for only while there is work for it.
            if not self._pool.busy and not self._work_left() and self._groups.over:
                return
            coming = idle and not self._groups.over
            if coming and not self._pool.busy:
                self._groups.wait(_WAIT)
            ready = self._pool.ready(_SOON if coming else _WAIT)
            for worker in ready:
                yield from self._draw(worker)
            for worker in self._pool.silent(but=ready):
                self._give_up(worker)

    def _work_left(self) -> bool:
        """Return whether a call is queued; queue the next group if none has to run again."""
        if not self._queue and (work := self._groups.take()):
            self._queue.append(Call(work.group, work.ended))
        return bool(self._queue)

    def _draw(self, worker: Worker) -> Iterator[Block]:
        """Yield the blocks that a worker has ready."""
        try:
            message = self._pool.draw(worker)
        except ProcessDiedError:
            call = worker.call
            self._pool.replace(worker)
            if call is not None:  # it may have died as it started
                self._run_again(call)
            return
        if message is not None:
            assert worker.call is not None
            yield from self._wanted_blocks(worker.call, message)

    def _wanted_blocks(self, call: Call, message: Message) -> Iterator[Block]:
        """Yield those blocks of a message that are expected; count failures."""
        call.count_message()
        self.solvers_waited += message.waited
        for block in message.blocks:
            if block.simulation not in call.wanted:
                continue
            if block.error:
                self._fail(call, block.simulation, block.first_step, block.error)
            else:
                self._advance(call, block)
                yield block

    def _advance(self, call: Call, block: Block) -> None:
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

    def _run_again(self, call: Call) -> None:
        """Queue the call of a process that died, if it still wants a simulation."""
        call.deaths += 1
        if call.deaths >= DEATHS:
            self._fail_all(call, f"its process died {DEATHS} times")
        elif call.wanted:
            self._verdicts.run_again([*call.wanted], "the solver process that ran it has died")
            self._queue.appendleft(call)

    def _give_up(self, worker: Worker) -> None:
        """Kill a silent process; its simulations count as failed."""
        assert worker.call is not None
        self._fail_all(worker.call, f"did not answer for {self._pool.silence:g} s")
        self._pool.replace(worker)

    def _fail_all(self, call: Call, error: str) -> None:
        """Count a failure of every simulation that a call still wants."""
        for simulation, step in list(call.wanted.items()):
            self._fail(call, simulation, step, error)

    def _fail(self, call: Call, id: int, step: int, error: str) -> None:
        """Count a failure; run the simulation again, alone, or quarantine it."""
        del call.wanted[id]
        simulation = call.simulation(id)
        assert simulation is not None
        if self._failures.count(simulation, step, error):
            self._queue.append(Call((simulation,)))
