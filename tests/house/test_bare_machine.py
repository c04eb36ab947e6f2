"""The training core runs where there is only torch, numpy, scipy, numba and annotated-types."""

import subprocess
import sys

# What a bare GPU machine does not have, and the core does not need.
ABSENT = (
    "google_crc32c, matplotlib, mlflow, neuralop, nibabel, nilearn, psutil, pydantic, ray, rich, "
    "typer, xarray, yaml, zarr"
)

TRAINING = """
import sys, threading
sys.modules.update(dict.fromkeys("{absent}".split(", ")))

import numpy as np
import torch
from framework.stream.buffers.reservoir import Reservoir
from framework.stream.ledger import Ledger
from framework.stream.samples import Samples, SampleShape
from framework.stream.source import StreamSource
from framework.stream.statistics import FieldStatistics
from framework.training.scores import Trajectories, score, summarise
from framework.training.trainer import Trainer, TrainerSettings
from solvers.heat import Heat
from surrogates.base import Problem
from surrogates.mlp import Mlp
import solvers.tumor.fisher_kolmogorov, surrogates.message_passing, surrogates.unet

STEPS, SIMULATIONS = 6, 20
solver, random = Heat(8, STEPS), np.random.default_rng(0)
space = solver.parameters
parameters = space.from_unit(random.random((SIMULATIONS, len(space))))
seeds = np.zeros(SIMULATIONS, dtype=np.uint64)
fields = np.stack(list(solver.solve_batch(parameters, seeds)), 1)
times = solver.times(parameters[0])
problem = Problem(
    space.names, tuple(space.low), tuple(space.high), tuple(space.log), (times[0], times[-1]),
    (times[1], times[1]), 1, (8, 8), np.zeros((0, 8, 8), dtype=np.float32),
)
torch.manual_seed(0)
surrogate = Mlp(problem, hidden=(32,))
ledger, statistics = Ledger(STEPS, surrogate.window), FieldStatistics(1)
shape = SampleShape(len(space), 1, (1, 8, 8))
buffer = Reservoir(shape, random, capacity=200, batch_size=10, replay=(5.0, 20.0))

def receive():
    for id in range(SIMULATIONS):
        samples = Samples(
            np.full(STEPS, id), np.arange(STEPS), np.repeat(parameters[id : id + 1], STEPS, 0),
            times[:, None].astype(np.float32), fields[id][:, None],
        )
        statistics.add(samples)
        buffer.put(samples)
    buffer.end_reception()

threading.Thread(target=receive, daemon=True).start()
source = StreamSource(buffer, ledger, expected=SIMULATIONS * STEPS)
settings = TrainerSettings(learning_rate=0.01)
trainer = Trainer(surrogate, settings, torch.device("cpu"), source, ledger)
trainer.train(statistics, lambda: None)
held_out = Trajectories(
    np.arange(SIMULATIONS), parameters.astype(np.float32),
    np.tile(times, (SIMULATIONS, 1)).astype(np.float32), fields,
)
surrogate.eval()
steps = trainer.optimiser_steps
print(summarise(score(surrogate, held_out), held_out, steps).relative_l2.mean, steps)
"""


def test_the_core_trains_where_nothing_else_is_installed() -> None:
    code = TRAINING.replace("{absent}", ABSENT)
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    error, optimiser_steps = map(float, result.stdout.split())
    assert optimiser_steps > 40  # of 10 samples, where 120 are drawn 5 times or more
    assert error < 0.5
