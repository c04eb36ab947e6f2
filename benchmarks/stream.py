"""The project's own path from a solver to a buffer, in the parts that a run puts together.

Shapes: C fields, `*grid` the grid's axes.
"""

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import ray
from numpy.typing import NDArray
from peers import Frames, make_frame

from framework.block import Simulation
from framework.buffer import Buffer
from framework.ensemble import MESSAGE_BYTES, Ensemble, EnsembleConfig, steps_per_block
from framework.ledger import Ledger
from framework.reception import FieldStatistics, Reception
from solvers.base import Field, Grid, Order, Parameter, ParameterSpace, Solver


class SameField(Solver):
    """The least a solver can do: yields one field [1, side, side] at every stored time."""

    parameters = ParameterSpace(Parameter("nothing", 0.0, 1.0))
    fields = (Field("noise"),)
    order = Order(space=1, time=1)

    def __init__(self, side: int, stored_steps: int) -> None:
        self.grid = Grid((side, side), (1.0, 1.0))
        self.stored_steps = stored_steps
        self._field = make_frame(side * side).reshape(1, side, side)

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.arange(self.stored_steps, dtype=np.float64)

    def solve(self, parameters: NDArray[np.float64], seed: int) -> Iterator[NDArray[np.float32]]:
        for _ in range(self.stored_steps):
            yield self._field


class Repeater:
    """An actor that yields the same messages as a solver's process would, without a solver."""

    def run(self, size: int, count: int) -> Iterator[Frames]:
        several = max(MESSAGE_BYTES // (4 * size), 1)
        message = np.tile(make_frame(size), (several, 1))
        for _ in range(count // several):
            yield message


class Stream:
    """Solver processes, and the thread that receives from them into a buffer."""

    def __init__(
        self,
        make_solver: Callable[[], Solver],
        config: EnsembleConfig,
        simulations: list[Simulation],
        buffer: Buffer,
        window: int,
    ) -> None:
        solver = make_solver()
        step_bytes = 4 * len(solver.fields) * math.prod(solver.grid.shape)
        self.statistics = FieldStatistics(len(solver.fields))
        self.ledger = Ledger(solver.stored_steps, window)
        self.ensemble = Ensemble(
            make_solver,
            config,
            simulations,
            len(simulations),
            solver.stored_steps,
            steps_per_block(config.group_size, solver.stored_steps, step_bytes),
        )
        self.reception = Reception(
            self.ensemble, self.ledger, buffer, self.statistics, lambda block: None
        )
        self._buffer = buffer

    def __enter__(self) -> "Stream":
        self.reception.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ensemble.stop()
        self._buffer.close()
        self.reception.join()
        self.ensemble.close()
        if self.reception.error:
            raise self.reception.error


@contextmanager
def local_ray(cpus: int) -> Iterator[None]:
    """Ray on this machine, as `millstream train` starts it."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        "local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()
