"""A solver for tests: it notes in a file what it computes and where, and has mishaps on demand."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from framework.study.design import Simulation
from solvers.base import BatchSolver, Field, Grid, Order, Parameter, ParameterSpace

STEPS = 10


class Log:
    """Which steps were computed: (start, step, process), in order. And a gate to wait for."""

    def __init__(self, directory: Path) -> None:
        self.gate = directory / "gate"
        self._path = directory / "log"
        self._path.touch()

    def note(self, start: int, step: int) -> None:
        with self._path.open("a") as file:
            file.write(f"{start} {step} {os.getpid()}\n")

    def steps(self, start: int) -> list[int]:
        """The steps of one simulation, those of all its attempts."""
        return [step for simulation, step, _ in self._entries() if simulation == start]

    def attempts(self, start: int) -> int:
        return self.steps(start).count(0)

    def process(self, start: int) -> int:
        """The process that last computed a step of the simulation."""
        return [process for simulation, _, process in self._entries() if simulation == start][-1]

    def processes(self) -> set[int]:
        return {process for _, _, process in self._entries()}

    def _entries(self) -> list[tuple[int, int, int]]:
        lines = self._path.read_text().splitlines()
        return [(int(start), int(step), int(pid)) for start, step, pid in map(str.split, lines)]


# Called after (start, step) was noted; returns what to add to the field, or does worse.
Mishap = Callable[[Log, int, int], float]


def simulation(start: int) -> Simulation:
    """Every simulation is known by its start; those before 4 are held out."""
    return Simulation(start - 4 if start < 4 else start, np.array([float(start)]), 100 * start)


class NotedRamp(BatchSolver):
    """u = start + step + seed on three points."""

    parameters = ParameterSpace(Parameter("start", 0, 100))
    fields = (Field("u"),)
    grid = Grid((3,), (1.0,))
    order = Order(1, 1)

    def __init__(self, log: Log, mishap: Mishap | None, stored_steps: int) -> None:
        self.stored_steps = stored_steps
        self.log = log
        self.mishap = mishap

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.arange(float(self.stored_steps))

    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        starts = parameters[:, 0].astype(int).tolist()
        for step in range(self.stored_steps):
            u = np.array(starts) + seeds + float(step)
            for i, start in enumerate(starts):
                self.log.note(start, step)
                u[i] += self.mishap(self.log, start, step) if self.mishap else 0
            yield np.repeat(u[:, None, None], 3, axis=2).astype(np.float32)


def expected_fields(start: int) -> list[list[float]]:
    """What a simulation without a mishap yields [STEPS, 3], in one process."""
    item = simulation(start)
    return [[float(start + step + item.seed)] * 3 for step in range(STEPS)]
