"""One call of a study's solver and some optimiser steps, run here and timed.

Shapes: n samples in a batch, w stored steps in a sample, T stored steps, C fields, p parameters,
`*grid` the grid's axes.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from framework.errors import RunError
from framework.run.assembly import trainer_settings
from framework.simulation.block import Block
from framework.simulation.solver_actor import SolverActor
from framework.study.case import Case
from framework.study.design import parameters_text
from framework.training.trainer import make_optimiser, training_device
from surrogates.base import Surrogate

# A call shorter than this is repeated: the first one may have compiled something.
_SHORT = 5.0  # seconds
_TIMED_STEPS, _ENOUGH = 5, 2.0  # how many are timed, and after how many seconds no more


@dataclass(frozen=True)
class Tried:
    """What one call of the solver and one optimiser step took."""

    simulations: int  # in one call
    call_seconds: float
    step_seconds: float
    device: str  # of training


def try_study(case: Case, surrogate: Surrogate) -> Tried:
    """Simulate the first simulations of a study, and train on them.

    Changes the surrogate. Raises RunError if a simulation fails.
    """
    seconds, blocks = _simulate(case)
    if seconds < _SHORT:
        seconds = min(seconds, _simulate(case)[0])
    device = training_device()
    step = _train(case, surrogate, blocks, device)
    count = min(case.study.ensemble.group_size, case.study.design.simulations)
    return Tried(count, seconds, step, str(device))


def _simulate(case: Case) -> tuple[float, list[Block]]:
    """Run a group as a solver's process would; return the seconds, and its blocks."""
    config, threads = case.study.ensemble, torch.get_num_threads()
    count = min(config.group_size, case.study.design.simulations)
    group = [case.design.simulation(id) for id in range(count)]
    actor = SolverActor(case.make_solver, config.time_limit)
    torch.set_num_threads(max(1, int(config.cpus_per_actor)))
    begun = time.perf_counter()
    try:
        messages = actor.run(group, case.solver.stored_steps)
        blocks = [block for message in messages for block in message.blocks]
    finally:
        torch.set_num_threads(threads)
    for block in blocks:
        if block.error:
            raise RunError(
                f"simulation {block.simulation} fails at step {block.first_step}: {block.error}; "
                f"it has {parameters_text(case.space.names, block.parameters.tolist())}"
            )
    return time.perf_counter() - begun, blocks


def _train(case: Case, surrogate: Surrogate, blocks: list[Block], device: torch.device) -> float:
    """Return the seconds of an optimiser step: the least of some."""
    settings = trainer_settings(case.study.training)
    surrogate.to(device)
    if settings.precision == "float64":
        surrogate.double()
    optimiser = make_optimiser(surrogate, settings)
    parameters, times, fields = (
        torch.tensor(array, device=device) for array in _batch(case, surrogate.window, blocks)
    )
    least, begun = np.inf, time.perf_counter()
    surrogate.train()
    for _ in range(_TIMED_STEPS):
        before = time.perf_counter()
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            loss = surrogate.losses(parameters, times, fields).mean()
        torch.autograd.backward(loss)
        optimiser.step()
        float(loss.detach())  # waits for a GPU
        least = min(least, time.perf_counter() - before)
        if time.perf_counter() - begun > _ENOUGH:
            break
    return least


def _batch(
    case: Case, window: int, blocks: list[Block]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return parameters [n, p], times [n, w] and fields [n, w, C, *grid] of windows at random."""
    of_one = [block for block in blocks if block.simulation == blocks[0].simulation]
    times = np.concatenate([block.times for block in of_one])
    fields = np.concatenate([block.fields for block in of_one])
    count = case.study.training.batch_size
    starts = np.arange(count) % (len(times) - window + 1)
    return (
        np.repeat(of_one[0].parameters[None], count, 0).astype(np.float32),
        np.stack([times[start : start + window] for start in starts]).astype(np.float32),
        np.stack([fields[start : start + window] for start in starts]),
    )
