"""The project's own path from solvers to a buffer, put together as a run does.

Shapes: C fields, `*grid` the grid's axes; a frame is [size] float32.
"""

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from peers import Frames, make_frame

from framework.simulation.dispenser import Dispenser
from framework.simulation.ensemble import MESSAGE_BYTES, Ensemble, steps_per_block
from framework.simulation.failures import Quarantine
from framework.stream.buffers.buffer import Buffer
from framework.stream.ledger import Ledger
from framework.stream.reception import Reception
from framework.stream.source import StreamSource
from framework.stream.statistics import FieldStatistics
from framework.stream.windows import WindowCutter
from framework.study.design import Simulation
from framework.study.sections import EnsembleConfig
from solvers.base import Field, Grid, Order, Parameter, ParameterSpace, Solver


class Stream:
    """Solver processes, and the thread that receives from them into a buffer."""

    def __init__(
        self,
        make_solver: Callable[[], Solver],
        config: EnsembleConfig,
        simulations: Iterable[Simulation],
        total: int,
        buffer: Buffer,
        window: int,
    ) -> None:
        solver = make_solver()
        step_bytes = 4 * len(solver.fields) * math.prod(solver.grid.shape)
        self.ledger = Ledger(solver.stored_steps, window)
        self.statistics = FieldStatistics(len(solver.fields))
        self.ensemble = Ensemble(
            make_solver,
            config,
            Dispenser(simulations, config.group_size).groups(),
            Quarantine(total, config.max_quarantined, solver.parameters.names),
            solver.stored_steps,
            steps_per_block(config.group_size, solver.stored_steps, step_bytes),
        )
        self.source = StreamSource(buffer, self.ledger, 10**9)
        self._reception = Reception(
            self.ensemble,
            self.ledger,
            self.source,
            self.statistics,
            WindowCutter(window),
            lambda block, last: None,
        )
        self._reception.start()

    def close(self) -> None:
        """End them; raises what has ended the thread early."""
        self.ensemble.stop()
        self.source.close()
        self._reception.wait()
        self.ensemble.close()
        if self._reception.error:
            raise self._reception.error


class SameField(Solver):
    """The least a solver can do: one field [1, side, side], the same at every stored time."""

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
    """An actor that yields the same message [n, size] for ever: what Ray alone costs."""

    def run(self, size: int) -> Iterator[Frames]:
        message = np.tile(make_frame(size), (max(MESSAGE_BYTES // (4 * size), 1), 1))
        while True:
            yield message
