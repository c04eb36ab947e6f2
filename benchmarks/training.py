"""How fast training goes while the stream is received beside it, next to training from memory.

    python benchmarks/training.py [--rounds N] [--steps N]

The same surrogate, batch size and optimiser, on samples of the quickstart's heat equation:

- online: `Trainer` draws from a reservoir that a receive thread of this process fills, from a
  solver actor that runs all the time.
- memory: a plain torch loop that picks random batches from tensors; nothing else runs.

This process, with all its threads, is pinned to one core and torch to one thread; Ray and the
solver have the other core. The two take turns, with a fresh network each time. Training does not
wait for samples: it may draw them as often as it likes (the share of time that it waited is
printed).

How to read it: steps a second are medians over the rounds; the ratio is the median of the rounds'
own ratios, with the quarters below and above. The goal is 0.95.
"""

import argparse
import os
import time
from itertools import count
from pathlib import Path

import numpy as np
import torch
from stream import Stream
from table import print_table, spread

from framework.run.assembly import make_buffer, trainer_settings
from framework.simulation.cluster import ray_for
from framework.stream.samples import SampleShape
from framework.study.case import Case
from framework.study.study import Study
from framework.training.surrogate import make_surrogate
from framework.training.trainer import Trainer

QUICKSTART = Path(__file__).parent.parent / "configs" / "quickstart.yaml"
TRAINING_CORE, OTHER_CORE = 0, 1
SURROGATES = {
    "fno": (),
    "mlp": ("surrogate={name: mlp}", "training.learning_rate=0.001"),
}
SETTINGS = (
    "buffer.replay=[1, 1000000]",
    "training.schedule=constant",
    "design.simulations=100000",
    "design.sampler=monte_carlo",
)
UNCOUNTED = 20  # steps at the start of a turn


def main() -> None:
    parser = argparse.ArgumentParser(description="Training from a stream, against from memory.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150, help="of the fno; of the mlp 20 times")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, overrides in SURROGATES.items():
        study = Study.load(QUICKSTART, [*SETTINGS, *overrides])
        steps = arguments.steps * (20 if name == "mlp" else 1)
        memory = samples(study)
        online, offline, waited = [], [], []
        pin(OTHER_CORE)  # what Ray starts inherits it
        with ray_for(study.ensemble, 1):
            pin(TRAINING_CORE)
            for _ in range(arguments.rounds):
                rate, wait = train_online(study, steps)
                online.append(rate)
                waited.append(wait)
                offline.append(train_from_memory(study, steps, memory))
        rows.append(
            [
                name,
                f"{np.median(online):.1f}",
                f"{np.median(offline):.1f}",
                spread(np.array(online) / np.array(offline)),
                f"{100 * np.median(waited):.1f} %",
            ]
        )
    print_table(["surrogate", "online steps/s", "memory steps/s", "ratio", "waited"], rows)


def pin(core: int) -> None:
    """Pin every thread of this process."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {core})


def samples(study: Study) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Parameters [n, p], times [n, 1] and fields [n, 1, C, *grid], as many as the buffer holds."""
    solver, design = (case := Case(study)).solver, case.design
    parameters, times, fields = [], [], []
    for id in range(-(-study.buffer.capacity // solver.stored_steps)):
        simulation = design.training(id)
        fields += [field[None] for field in solver.solve(simulation.parameters, simulation.seed)]
        times += [[t] for t in solver.times(simulation.parameters)]
        parameters += [simulation.parameters] * solver.stored_steps
    arrays = (np.array(parameters), np.array(times), np.array(fields))
    first, second, third = (torch.tensor(array, dtype=torch.float32) for array in arrays)
    return first, second, third


def train_online(study: Study, steps: int) -> tuple[float, float]:
    """Steps a second, and the share of the time that training waited."""
    case = Case(study)
    buffer = make_buffer(case, SampleShape(len(case.space), 1, case.field_shape))
    simulations = map(case.design.training, count())
    stream = Stream(
        case.make_solver, study.ensemble, simulations, study.design.simulations, buffer, 1
    )
    surrogate, settings = make_surrogate(case), trainer_settings(study.training)
    trainer = Trainer(surrogate, settings, torch.device("cpu"), stream.source, stream.ledger)
    marks: list[tuple[float, float]] = []

    def after_step() -> None:
        if trainer.optimiser_steps in (UNCOUNTED, UNCOUNTED + steps):
            marks.append((time.perf_counter(), trainer.waited))
        if trainer.optimiser_steps == UNCOUNTED + steps:
            buffer.close()

    trainer.train(stream.statistics, after_step)
    stream.close()
    (began, waited_before), (ended, waited) = marks
    return steps / (ended - began), (waited - waited_before) / (ended - began)


def train_from_memory(study: Study, steps: int, memory: tuple[torch.Tensor, ...]) -> float:
    """Steps a second."""
    surrogate, config = make_surrogate(Case(study)), study.training
    fields = memory[2]
    surrogate.normalise_fields(fields.mean()[None], fields.std()[None], torch.ones(1))
    optimiser = torch.optim.Adam(surrogate.parameters(), lr=config.learning_rate)
    random, batch_size = np.random.default_rng(0), config.batch_size
    began = 0.0
    for step in range(UNCOUNTED + steps):
        if step == UNCOUNTED:
            began = time.perf_counter()
        index = torch.from_numpy(random.choice(len(fields), batch_size, replace=False))
        batch = [tensor.index_select(0, index) for tensor in memory]
        optimiser.zero_grad()
        loss = surrogate.losses(*batch).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return steps / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
