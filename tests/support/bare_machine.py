"""Trains as a machine would that has little more than torch and numpy; run as a program.

Prints the mean loss of the first and of the last ten optimiser steps.
"""

import sys
import threading

from missing_packages import forbid

MISSING = ("ray", "zarr", "mlflow", "pydantic", "neuralop", "google_crc32c", "yaml")


def main() -> None:
    import numpy as np
    import torch

    from framework.simulation.block import Block
    from framework.stream.buffers.reservoir import Reservoir
    from framework.stream.ledger import Ledger
    from framework.stream.samples import SampleShape
    from framework.stream.source import StreamSource
    from framework.stream.statistics import FieldStatistics
    from framework.stream.windows import WindowCutter
    from framework.training.trainer import Trainer, TrainerSettings
    from solvers.heat import Heat
    from surrogates.base import Problem
    from surrogates.mlp import Mlp

    solver, random, simulations = Heat(grid_size=8, stored_steps=10), np.random.default_rng(0), 30
    space, stored, shape = solver.parameters, 10, (1, *solver.grid.shape)
    ledger, cutter, statistics = Ledger(stored, 1), WindowCutter(1), FieldStatistics(1)
    buffer = Reservoir(
        SampleShape(len(space), 1, shape), random, 100, 10, watermark=20, replay=(8, 8)
    )

    def receive() -> None:
        for id in range(simulations):
            parameters = space.from_unit(random.random(len(space)))
            fields, times = np.array([*solver.solve(parameters, 0)]), solver.times(parameters)
            sums = np.zeros(stored, dtype=np.uint32)
            block = Block(id, 0, fields, parameters, times, sums)
            with buffer.lock:
                new = ledger.receive(block)
                assert new is not None
                samples = cutter.cut(new, last=True)
                statistics.add(samples)
                buffer.put(samples)
        buffer.end_reception()

    torch.manual_seed(0)
    low, high, log = (tuple(values.tolist()) for values in (space.low, space.high, space.log))
    static = np.zeros((0, *solver.grid.shape), dtype=np.float32)
    times = solver.times(space.from_unit(np.full(len(space), 0.5)))
    steps = float(np.diff(times).min()), float(np.diff(times).max())
    first_last = float(times[0]), float(times[-1])
    problem = Problem(space.names, low, high, log, first_last, steps, 1, solver.grid.shape, static)
    source = StreamSource(buffer, ledger, simulations * stored)
    settings = TrainerSettings(learning_rate=0.01)
    trainer = Trainer(Mlp(problem, hidden=(32,)), settings, torch.device("cpu"), source, ledger)
    losses: list[float] = []
    receiving = threading.Thread(target=receive, daemon=True)
    receiving.start()
    trainer.train(statistics, lambda: losses.append(float(trainer.loss)))
    receiving.join()
    assert ledger.count() == (simulations * stored, 0)
    assert not {*MISSING} & {name.partition(".")[0] for name in sys.modules}
    print(np.mean(losses[:10]), np.mean(losses[-10:]))


if __name__ == "__main__":
    forbid(*MISSING)
    main()
