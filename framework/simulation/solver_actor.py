"""The code of a solver's process: it runs a group of simulations and cuts them into blocks.

B: simulations in the group, C: fields, `*grid`: the grid's axes.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import google_crc32c
import numpy as np
from numpy.typing import ArrayLike, NDArray

from framework.errors import raised
from framework.simulation.block import Block, Message
from framework.study.declared import as_float32, not_finite
from framework.study.design import Simulation
from framework.study.ids import simulation_text
from solvers.base import BatchSolver, OutputPlace, Solver


class Writer(Protocol):
    """Stores simulations where they run; see `store.StoreWriter`."""

    def append(self, simulation: int, step: int, fields: NDArray[np.float32]) -> None:
        """Take the fields [C, *grid] of a simulation's next step."""

    def finish(self, simulation: int) -> None:
        """Return once every step is written."""

    def forget(self, simulation: int) -> None:
        """Drop what is held of a simulation that has failed."""


class SolverActor:
    """Runs one group after the other. `pool.py` makes it a Ray actor and calls it.

    A solver with `solve_batch` computes on the `device`: cuda, where Ray gave the process a GPU.
    """

    def __init__(
        self,
        make_solver: Callable[[], Solver],
        time_limit: float,
        writer: Writer | None = None,
        device: str = "cpu",
        programs: OutputPlace | None = None,
    ) -> None:
        """`programs`: where to keep what the solver's programs print, whatever the name there."""
        self._solver = make_solver()
        self._device = device
        self._time_limit = time_limit
        self._writer = writer
        self._programs = programs

    def ping(self) -> None:
        """Return once the process is up and the solver is loaded."""

    def run(
        self, group: Sequence[Simulation], steps_per_block: int, store: Collection[int] = ()
    ) -> Iterator[Message]:
        """Yield the blocks of the group's simulations, several in a message.

        A simulation ends with its last stored step or with a block that carries its error.
        Simulations in `store` are also written, and are stored by the time that their last step is
        sent.
        """
        waited = 0.0
        for blocks in self._blocks(group, steps_per_block, store):
            ready = time.perf_counter()
            yield Message(blocks, waited)
            waited = time.perf_counter() - ready

    def _blocks(
        self, group: Sequence[Simulation], steps_per_block: int, store: Collection[int]
    ) -> Iterator[list[Block]]:
        pending = _Unsent(group, self._solver, steps_per_block, self._writer, store)
        spent, source = 0.0, self._fields(pending)
        while pending.alive:
            started = time.perf_counter()
            try:
                fields = next(source, None)
            # The solver is the user's code: whatever it raises is reported as its failure.
            except (Exception, SystemExit) as error:
                yield pending.fail(raised(error))
                return
            spent += time.perf_counter() - started
            if spent > self._time_limit:
                yield pending.fail(f"took longer than its limit of {self._time_limit:g} s")
            elif (fields is None) != (pending.step == self._solver.stored_steps):
                count = pending.step + (fields is not None)
                yield pending.fail(
                    f"yielded {'at least ' if fields is not None else ''}{count} stored steps, "
                    f"but declares {self._solver.stored_steps}"
                )
            elif fields is None:
                pending.finish()
                yield pending.flush()
                return
            else:
                if pending.full():
                    yield pending.flush()
                if failed := pending.append(fields):
                    yield failed

    def _fields(self, pending: "_Unsent") -> Iterator[ArrayLike]:
        """Set the group's times, then yield its fields [B, C, *grid] at every stored time.

        They are as the solver yields them, of any type.
        """
        solver, group = self._solver, pending.group
        pending.times = np.stack([solver.times(simulation.parameters) for simulation in group])
        if pending.times.shape[1:] != (solver.stored_steps,):
            raise ValueError(
                f"its times have shape {pending.times.shape[1:]}, but it declares "
                f"{solver.stored_steps} stored steps"
            )
        if self._programs:
            name = simulation_text(group[0].id).replace(" ", "_")
            solver.keep_output(replace(self._programs, name=name))
        if isinstance(solver, BatchSolver):
            parameters = np.stack([simulation.parameters for simulation in group])
            seeds = np.array([simulation.seed for simulation in group], dtype=np.uint64)
            yield from solver.solve_batch(parameters, seeds, self._device)
        else:
            (simulation,) = group
            for fields in solver.solve(simulation.parameters, simulation.seed):
                yield np.asanyarray(fields)[None]


class _Unsent:
    """The steps of a group that are not sent yet, and which of its simulations still run."""

    def __init__(
        self,
        group: Sequence[Simulation],
        solver: Solver,
        steps_per_block: int,
        writer: Writer | None,
        store: Collection[int],
    ) -> None:
        self.group = group
        self._writer = writer
        self._store = store
        self.alive = list(range(len(group)))
        self.step = 0  # the next one
        self.times: NDArray[np.float64] = np.empty((len(group), 0))  # [B, T]
        self._first = 0
        self._capacity = steps_per_block
        self._shape = (len(group), len(solver.fields), *solver.grid.shape)
        self._stored_steps = solver.stored_steps
        self._fields: NDArray[np.float32] | None = None  # [B, capacity, C, *grid]

    def full(self) -> bool:
        """Return whether enough steps are pending to make a block."""
        return self.step - self._first == self._capacity

    def append(self, given: ArrayLike) -> list[Block]:
        """Add one step [B, C, *grid]; return the last blocks of simulations that fail at it."""
        try:
            fields = as_float32(given)
        except ValueError as error:  # they are no real numbers
            return self.fail(str(error))
        # What is no array, such as a tensor that has a gradient, may raise anything.
        except Exception as error:
            return self.fail(raised(error))
        if fields.shape != self._shape:
            return self.fail(
                f"yielded fields of shape {fields.shape[1:]}, but declares {self._shape[1:]}"
            )
        if self._fields is None:
            b, *shape = self._shape
            # A new array for each message: the reader may still hold the last one.
            self._fields = np.empty((b, self._capacity, *shape), dtype=np.float32)
        self._fields[:, self.step - self._first] = fields
        broken = [] if _finite(fields) else [i for i in self.alive if not _finite(fields[i])]
        raw = np.asarray(given) if broken else fields
        ends = [block for i in broken for block in self._end(i, not_finite(raw[i]))]
        self.alive = [i for i in self.alive if i not in broken]
        for i, writer in list(self._written()):
            try:
                writer.append(self.group[i].id, self.step, fields[i])
            except ValueError as error:  # a number that the store's type cannot hold
                ends += self._end(i, str(error))
                self.alive.remove(i)
        self.step += 1
        return ends

    def finish(self) -> None:
        """Return once the last steps are stored; call when every step was appended."""
        for i, writer in self._written():
            writer.finish(self.group[i].id)

    def flush(self) -> list[Block]:
        """Return the pending steps of the simulations that still run, as blocks."""
        blocks = [self._block(i) for i in self.alive]
        self._first, self._fields = self.step, None
        return blocks

    def fail(self, error: str) -> list[Block]:
        """End every simulation that still runs; send what was computed before the error.

        The last step is never sent: a simulation of which every step is sent counts as complete.
        """
        ends = [block for i in self.alive for block in self._end(i, error)]
        self.alive = []
        return ends

    def _written(self) -> Iterator[tuple[int, Writer]]:
        """Yield the indices of the simulations that still run and are to be stored.

        With each comes its writer.
        """
        if self._writer is not None:
            for i in self.alive:
                if self.group[i].id in self._store:
                    yield i, self._writer

    def _end(self, i: int, error: str) -> list[Block]:
        simulation = self.group[i]
        if self._writer is not None:
            self._writer.forget(simulation.id)
        none = np.empty((0,))
        failure = Block(
            simulation.id,
            self.step,
            np.empty((0, *self._shape[1:]), dtype=np.float32),
            simulation.parameters,
            none,
            none.astype(np.uint32),
            error,
        )
        good = self._first < self.step < self._stored_steps
        return [self._block(i), failure] if good else [failure]

    def _block(self, i: int) -> Block:
        assert self._fields is not None
        fields = self._fields[i, : self.step - self._first]
        return Block(
            self.group[i].id,
            self._first,
            fields,
            self.group[i].parameters,
            self.times[i, self._first : self.step],
            np.array([checksum(step) for step in fields], dtype=np.uint32),
        )


def checksum(fields: NDArray[np.float32]) -> int:
    """Return the checksum of one step's fields [C, *grid]."""
    return int(google_crc32c.value(np.ascontiguousarray(fields)))


def _finite(fields: NDArray[np.float32]) -> bool:
    """Return whether all numbers are finite."""
    flat = fields.ravel()
    # The sum of squares is several times faster, but it may overflow with finite numbers.
    return math.isfinite(flat.dot(flat)) or bool(np.isfinite(flat).all())
