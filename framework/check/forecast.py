"""What a study will take: time, memory and disk, by what was tried, and what will set its pace."""

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from framework.check.trying import Tried
from framework.report.advice import Advice, faster_solvers, faster_training
from framework.report.text import advice_lines
from framework.report.words import duration, large
from framework.store.reader import StoreReader
from framework.stream.stored import check_source
from framework.study.case import Case
from framework.study.identity import identity
from framework.study.sections import kept_steps
from framework.training.surrogate import samples_per_simulation
from surrogates.base import Surrogate

# A run shorter than this, in seconds, says nothing about its pace.
_SHORT_RUN = 5.0


@dataclass(frozen=True)
class Forecast:
    """The forecast of a run. Seconds are without those of starting and ending."""

    name: str  # of the study's file
    tried: Tried
    processes: int  # that simulate at the same time
    solving_seconds: float
    steps: int  # of the optimiser
    training_seconds: float
    seconds: float
    buffer_bytes: int
    held_out_bytes: int  # on the disk
    store: str | None
    store_bytes: int  # before compression
    advice: Advice
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def text(self) -> str:
        """Return lines to print."""
        tried, count = self.tried, self.processes
        call = f"{tried.simulations} simulations" if tried.simulations > 1 else "a simulation"
        processes = "1 process" if count == 1 else f"{count} processes"
        store = f"at most {large(self.store_bytes)}B in {self.store}" if self.store else "none"
        lines = [
            f"{self.name}: one call of the solver and some optimiser steps worked",
            f"  solver       {_time(tried.call_seconds)} for {call}; in all about "
            f"{_time(self.solving_seconds)} on {processes}",
            f"  training     {_time(tried.step_seconds)} for an optimiser step on "
            f"{tried.device}; in all about {_time(self.training_seconds)} for {self.steps}",
            f"  the run      about {_time(self.seconds)}, and some seconds to start and to end",
            f"  memory       {large(self.buffer_bytes)}B in the buffer",
            f"  disk         {large(self.held_out_bytes)}B of held-out simulations in runs",
            f"  store        {store}",
            *advice_lines(self.advice),
        ]
        return "\n".join([*lines, *(f"Beware: {warning}" for warning in self.warnings)])


def forecast(
    case: Case, surrogate: Surrogate, simulations: int, tried: Tried, name: str
) -> Forecast:
    """Foretell a run from what was tried. `simulations`: how many there are to train on."""
    study, step_bytes = case.study, case.step_bytes
    online = study.training.source is None
    held_out = study.validation.simulations
    processes = _at_once(case)
    of_one = tried.call_seconds / tried.simulations
    each = samples_per_simulation(case, surrogate.window)
    count = simulations
    most, fixed = _most_steps(case, count * each), _fixed_steps(case, tried)
    if fixed is not None or not online:
        fixed = most if fixed is None else min(fixed, most)
    if online and fixed is not None:
        # The run ends with training, however many simulations there could be.
        samples = fixed * study.training.batch_size / study.buffer.replay[1]
        count = min(count, math.ceil((samples + study.buffer.watermark) / each))
    solving = (held_out + (count if online else 0)) * of_one / processes
    least, steps = _steps(case, count * each, tried, solving) if fixed is None else (fixed, fixed)
    training = steps * tried.step_seconds
    kept = 0
    if online and study.store.keep != "none":
        kept = study.design.simulations * len(
            kept_steps(study.store.keep, case.solver.stored_steps)
        )
    place = study.store.location(study.name) if kept else None
    store_bytes = kept * step_bytes * (2 if study.store.dtype == "float16" else 4) // 4
    buffer_bytes = _buffer_bytes(case, surrogate.window, simulations)
    held_out_bytes = held_out * case.solver.stored_steps * step_bytes
    return Forecast(
        name,
        tried,
        processes,
        solving,
        steps,
        training,
        max(solving, training),
        buffer_bytes,
        held_out_bytes,
        place,
        store_bytes,
        _advice(case, tried, solving, least * tried.step_seconds),
        tuple(_warnings(case, buffer_bytes, held_out_bytes, place, store_bytes)),
    )


def simulations_to_train(case: Case) -> int:
    """Count the simulations of a study, or those of the store that it trains from.

    Raises StudyError if that cannot be trained from.
    """
    training = case.study.training
    if training.source is None:
        return case.study.design.simulations
    reader = StoreReader(training.source)
    check_source(reader, identity(case))
    return min(len(reader.complete), training.simulations or len(reader.complete))


def _at_once(case: Case) -> int:
    """Return how many solvers run at the same time; on this machine training takes a CPU, too."""
    config = case.study.ensemble
    if config.address or os.environ.get("RAY_ADDRESS"):
        return config.actors
    cpus = len(os.sched_getaffinity(0)) - 1
    return max(1, min(config.actors, int(cpus / config.cpus_per_actor)))


def _steps(case: Case, samples: int, tried: Tried, solving: float) -> tuple[int, int]:
    """Return the least optimiser steps of a run, and those that it does while the solvers run.

    They differ where `buffer.replay` permits more draws than it asks for.
    """
    batch = case.study.training.batch_size
    least, most = (math.ceil(draws * samples / batch) for draws in case.study.buffer.replay)
    return least, min(max(int(solving / tried.step_seconds), least), most)


def _fixed_steps(case: Case, tried: Tried) -> int | None:
    """Return the optimiser steps after which the study stops; None if nothing stops it."""
    training, batch = case.study.training, case.study.training.batch_size
    if training.stop.steps:
        return training.stop.steps
    if training.stop.samples:
        return math.ceil(training.stop.samples / batch)
    if training.stop.seconds:
        return int(training.stop.seconds / tried.step_seconds)
    return None


def _most_steps(case: Case, samples: int) -> int:
    """Return the optimiser steps after which there are no more draws of the samples."""
    training, batch = case.study.training, case.study.training.batch_size
    if training.source is None:
        return math.ceil(case.study.buffer.replay[1] * samples / batch)
    return training.epochs * math.ceil(samples / batch)  # the last batch of an epoch may be short


def _buffer_bytes(case: Case, window: int, simulations: int) -> int:
    """Return the memory of the samples that a run holds."""
    capacity, step_bytes = case.study.buffer.capacity, case.step_bytes
    if case.study.training.source is None:
        return capacity * window * step_bytes
    # From a store come whole simulations, whose samples share their steps.
    rows = min(capacity // samples_per_simulation(case, window), simulations)
    return rows * case.solver.stored_steps * step_bytes


def _advice(case: Case, tried: Tried, solving: float, training: float) -> Advice:
    """Say which side will set the pace, and what to change."""
    if case.study.training.source is not None:
        return Advice(
            "Training, or reading the store, will set the pace.",
            faster_training(case, tried.device),
        )
    if max(training, solving) < _SHORT_RUN:
        return Advice("Starting and ending will take most of the time.", [])
    if training > solving:
        return Advice(
            f"Training will set the pace: the solvers could be done after {_time(solving)}.",
            faster_training(case, tried.device, 1 - solving / training),
        )
    return Advice(
        f"The solvers will set the pace: training alone would take {_time(training)}.",
        faster_solvers(case),
    )


def _warnings(
    case: Case, memory: int, held_out: int, place: str | None, store_bytes: int
) -> list[str]:
    """Say what there is too little room for."""
    found = []
    free = psutil.virtual_memory().available
    if memory > free:
        found.append(
            f"the buffer takes {large(memory)}B, and this machine has {large(free)}B of memory "
            f"free: lower buffer.capacity (now {case.study.buffer.capacity})."
        )
    room = psutil.disk_usage(".").free
    if held_out > room:
        found.append(
            f"the held-out simulations take {large(held_out)}B, and the disk of this directory has "
            f"{large(room)}B free: lower validation.simulations (now "
            f"{case.study.validation.simulations})."
        )
    if place and "://" not in place:
        there = next(path for path in Path(place).parents if path.is_dir())
        room = psutil.disk_usage(str(there)).free
        if store_bytes > room:
            found.append(
                f"the store may take {large(store_bytes)}B, and {there} has {large(room)}B free: "
                "set store.path to another place, store.dtype to float16, or store.keep to fewer "
                "steps."
            )
    return found


def _time(seconds: float) -> str:
    if seconds >= 1:
        return duration(seconds)
    return f"{seconds:.2g} s" if seconds >= 0.01 else f"{1000 * seconds:.2g} ms"
