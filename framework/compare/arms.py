"""The arms of a comparison, each as a study of its own.

N is the study's number of simulations, W the samples of a simulation, B the batch size, S the
optimiser steps of an arm, r = S B / (N W) how often it draws a sample.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from framework.errors import StudyError
from framework.run.assembly import memory, stored_sample_bytes
from framework.study.case import Case
from framework.study.component import explain
from framework.study.study import Study
from framework.training.surrogate import (
    make_surrogate,
    samples_per_simulation,
    tell_unlearnable,
)

# The quantity that is equal for all arms: optimiser steps, seconds of simulating and training, or
# samples to train on.
Equal = Literal["steps", "seconds", "samples"]
# How many seeds an interval paired by seed needs.
SEEDS = 3
# Optimiser steps until the first validation, so that an arm shares its processors with scoring only
# at its end. Also epochs, where something else ends the training.
_NEVER = 10**9
# With equal seconds it is not known how many simulations a stream will bring: this many times N.
_AMPLE = 100
_FIFO = {"kind": "fifo", "watermark": 0, "replay": [1.0, 1.0]}


@dataclass(frozen=True)
class Arm:
    """One way of training: `offline` from a store, or from the stream through a buffer."""

    name: str
    offline: bool
    simulations: int  # how many it may train on
    steps: int | None  # optimiser steps until it ends; None: until it has used up its samples
    buffer: dict[str, Any]  # settings that replace the study's
    sampler: str


class Plan:
    """The arms of a study, checked before any of them starts."""

    def __init__(self, case: Case, equal: Equal) -> None:
        """Make the arms. Raises StudyError if the study cannot be compared."""
        self._case = case
        self._study = study = case.study
        self._equal = equal
        self._batch = study.training.batch_size
        surrogate = make_surrogate(case)
        tell_unlearnable(case, surrogate)
        self._window = surrogate.window
        self._samples = samples_per_simulation(case, self._window)  # W
        self._check()
        self.steps = self._number_of_steps()
        self.arms = self._online() + self._offline()
        for arm in self.arms:  # mistakes in any arm are found before the first one starts
            self.case_of(arm, 0, Path("store.zarr"))

    def simulating(self, seed: int, store: Path) -> Case:
        """Return the case that simulates the data of the offline arms of a seed, into a store."""
        return self._case_of(
            seed,
            design={"sampler": self._sampler()},
            store={"path": str(store), "keep": "all"},
        )

    def case_of(self, arm: Arm, seed: int, store: Path, simulated: float = 0.0) -> Case:
        """Return an arm's case with one of the seeds, counted from 0.

        `store` is the one that `simulating` has filled, which took `simulated` seconds for the data
        of this arm. Raises StudyError.
        """
        training: dict[str, Any] = {"stop": {"steps": arm.steps} if arm.steps else "drained"}
        if self._equal == "seconds":
            assert self._study.training.stop.seconds is not None
            training["stop"] = {"seconds": self._study.training.stop.seconds - simulated}
        if arm.offline:
            every = arm.simulations == self._study.design.simulations
            training |= {
                "source": str(store),
                # None takes all that the store has: some may be quarantined.
                "simulations": None if every else arm.simulations,
                "epochs": self._passes() if self._equal == "samples" else _NEVER,
            }
        return self._case_of(
            seed,
            name=arm.name,
            design={
                "sampler": arm.sampler,
                "simulations": max(arm.simulations, self._study.design.simulations),
            },
            buffer=arm.buffer,
            training=training,
            validation={"every_steps": _NEVER},
            store={"keep": "none"},
        )

    def _case_of(self, seed: int, **changes: Any) -> Case:
        values = self._study.model_dump(mode="json")
        values |= {"seed": self._study.seed + seed, "tracking": {"uri": "none"}}
        for section, settings in changes.items():
            mapping = isinstance(settings, dict)
            values[section] = {**values[section], **settings} if mapping else settings
        if values["design"]["sampler"] != "breed":
            values["design"]["breed"] = None
        try:
            study = Study.model_validate(values)
        except ValidationError as error:
            raise StudyError(f"the arm {values['name']}: {explain(error, Study)}") from None
        return Case(study, solver_of=self._case)

    def _online(self) -> list[Arm]:
        config, total = self._study.buffer, self._study.design.simulations
        streamed = _AMPLE * total if self._equal == "seconds" else total
        replay = list(config.replay)
        steps = self.steps if self._equal == "steps" else None
        if steps:
            # With as many simulations to spare as may fail.
            left = 1 - min(self._study.ensemble.max_quarantined, 0.5)
            streamed = max(total, math.ceil(steps * self._batch / self._samples / left))
            # So that the stream ends just when the last optimiser step is done.
            passing = max(config.watermark + 1, self._batch)
            replay = [max(steps * self._batch / (total * self._samples - passing), 1.0)] * 2
        firo = {"kind": "firo", "replay": [1.0, 1.0]}
        reservoir = {"kind": "reservoir", "replay": replay}
        sampler = self._sampler()
        arms = [
            Arm("fifo", False, streamed, steps, _FIFO, sampler),
            Arm("firo", False, streamed, steps, firo, sampler),
            Arm("reservoir", False, total if steps else streamed, steps, reservoir, sampler),
        ]
        if self._study.design.sampler != sampler:
            bred = arms[-1].simulations
            arms.append(Arm("breed", False, bred, steps, reservoir, self._study.design.sampler))
        return arms

    def _offline(self) -> list[Arm]:
        shares = {"offline": 1, "offline_quarter": 4, "offline_sixteenth": 16}
        if self._equal == "samples":
            shares = {"offline": 1}
        total = self._study.design.simulations
        steps = self.steps if self._equal == "steps" else None
        arms = []
        for name, share in shares.items():
            count = total // share
            buffer = {**_FIFO, "capacity": self._capacity(count)}
            arms.append(Arm(name, True, count, steps, buffer, self._sampler()))
        return arms

    def _capacity(self, simulations: int) -> int:
        """Return the buffer capacity of an offline arm.

        It holds all the data of the arm, so that an epoch is shuffled as a whole; or, if that takes
        more than half of the memory, what that half holds, and at least the study's capacity.
        """
        buffer, sample = self._study.buffer, stored_sample_bytes(self._case, self._window)
        return min(simulations * self._samples, max(memory(buffer) // 2 // sample, buffer.capacity))

    def _sampler(self) -> str:
        """Return the sampler of all arms but `breed`, the reservoir with the study's sampler."""
        return "sobol" if self._study.design.sampler == "breed" else self._study.design.sampler

    def _passes(self) -> int:
        """Return the least number of times that a reservoir draws each sample, rounded up."""
        return math.ceil(self._study.buffer.replay[0])

    def _number_of_steps(self) -> int:
        """Return S: the study's optimiser steps, or those of its reservoir at its least replay."""
        stop, total = self._study.training.stop, self._study.design.simulations * self._samples
        if stop.steps:
            steps = stop.steps
        elif stop.samples:
            steps = -(-stop.samples // self._batch)
        else:
            steps = math.ceil(self._study.buffer.replay[0] * total / self._batch)
        if self._equal == "steps" and steps * self._batch < total:
            raise StudyError(
                f"training.stop: {steps} steps of {self._batch} samples are fewer than the "
                f"{total} samples that a reservoir would be sent: give {-(-total // self._batch)} "
                "steps or more, or lower design.simulations"
            )
        return steps

    def _check(self) -> None:
        study, samples = self._study, self._samples
        design, buffer = study.design, study.buffer
        if study.training.source:
            raise StudyError(
                f"training.source is {study.training.source}, but a comparison simulates for "
                "itself: leave it out"
            )
        if (self._equal == "seconds") != (study.training.stop.seconds is not None):
            raise StudyError(
                "training.stop has to be {seconds: N} for --equal seconds, and for it alone"
            )
        if design.simulations < 16:
            raise StudyError(
                f"design.simulations is {design.simulations}: a comparison also trains on a "
                "sixteenth of them, so give 16 or more"
            )
        if design.sampler == "latin_hypercube":
            raise StudyError(
                "design.sampler is latin_hypercube, which cannot be longer for one arm than for "
                "another: choose sobol, halton or monte_carlo"
            )
        total = design.simulations * samples
        if max(buffer.watermark + 1, study.training.batch_size) >= total:
            raise StudyError(
                f"buffer.watermark is {buffer.watermark} and training.batch_size "
                f"{study.training.batch_size}, but the stream brings {total} samples only: lower "
                "them, or raise design.simulations"
            )
        if design.sampler == "breed" and self._equal == "seconds":
            raise StudyError(
                "design.sampler is breed, which is steered by the share of its simulations that "
                "have started, and with --equal seconds that share is unknown: compare it at equal "
                "steps or samples"
            )
