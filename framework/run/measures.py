"""Counters of a run's progress and of where its time goes, read off its parts.

They continue after a resume. All may be read from any thread.
"""

import time
from contextlib import suppress
from typing import Any

import torch

from framework.report.summary import StepCost, Waits
from framework.run.parts import Parts
from framework.study.ids import is_held_out
from framework.study.sections import BufferConfig


class Measures:
    """Reads the parts of a run; changes none of them."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.steps_while_simulating = 0
        self.cost: StepCost | None = None  # of an optimiser step
        self._started = time.monotonic()
        self._ended: float | None = None
        self._trained: float | None = None
        # Up to the checkpoint that the run was resumed from.
        self._before = {"seconds": 0.0, "streaming": 0.0, "idle": 0.0, "solvers_waited": 0.0}
        # Totals of training when reception was last seen going on.
        self._training = {"seconds": 0.0, "waited": 0.0, "drawn": 0.0, "redrawn": 0.0}

    def after_step(self) -> None:
        """Count an optimiser step; called by the training loop after each one."""
        rank = self.parts.rank
        if rank.source.sink is not None and not rank.reception.over.is_set():
            trainer = rank.trainer
            self.steps_while_simulating += 1
            self._training = {
                "seconds": trainer.seconds,
                "waited": trainer.waited,
                "drawn": float(trainer.drawn),
                "redrawn": self.redrawn(),
            }

    def end_training(self) -> None:
        """Note the end of the training loop; scoring and writing follow."""
        self._trained = self.seconds

    def end(self) -> None:
        """Stop the clock: the run has ended."""
        self._ended = self.seconds

    def count_cost(self) -> None:
        """Measure the cost of an optimiser step; takes about as long as one."""
        trainer = self.parts.rank.trainer
        with suppress(torch.OutOfMemoryError):  # of a GPU that training itself has just fitted
            cost = trainer.surrogate.cost(self.parts.study.training.batch_size)
            self.cost = StepCost(cost.parameters, cost.flops, cost.memory_bytes)

    @property
    def seconds(self) -> float:
        """Seconds of the run, without those between an interruption and its resumption."""
        if self._ended is not None:
            return self._ended
        return self._before["seconds"] + time.monotonic() - self._started

    @property
    def resumed_at(self) -> float:
        """The seconds of the run at the checkpoint that it was resumed from; 0 for a new run."""
        return self._before["seconds"]

    @property
    def seconds_to_end(self) -> float:
        """Seconds of the run until training ended, or until now while it goes on."""
        return self.seconds if self._trained is None else self._trained

    @property
    def source(self) -> dict[str, Any] | None:
        """The identity of the store that is trained from; None when training from a stream."""
        return self.parts.rank.source.identity

    def state(self) -> dict[str, Any]:
        """Return the counters, for `load_state`."""
        simulating = {"steps": self.steps_while_simulating, **self._training}
        return {"before": self.totals(), "simulating": simulating}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on counting from what `state` returned."""
        self._before = state["before"]
        self.steps_while_simulating = state["simulating"]["steps"]
        # Earlier versions wrote fewer of them.
        self._training = {key: state["simulating"].get(key, 0.0) for key in self._training}

    def totals(self) -> dict[str, float]:
        """Return the seconds of the run, of streaming, and of waiting.

        `idle` is transport's waiting, `solvers_waited` that of all solvers together.
        """
        before, ensemble = self._before, self.parts.ensemble
        return {
            "seconds": self.seconds,
            "streaming": before["streaming"] + ensemble.seconds,
            "idle": before["idle"] + ensemble.idle,
            "solvers_waited": before["solvers_waited"] + ensemble.solvers_waited,
        }

    def waits(self) -> Waits:
        """Return the share of the simulating time that each part waited."""
        totals, training = self.totals(), self._training
        actors = self.parts.study.ensemble.actors
        waited = ratio(training["waited"], training["seconds"])
        return Waits(
            solvers=ratio(totals["solvers_waited"], actors * totals["streaming"]),
            training=waited,
            transport=ratio(totals["idle"], totals["streaming"]),
            redraws=ratio(training["redrawn"], training["drawn"]) * (1 - waited),
        )

    def redrawn(self) -> float:
        """Count the draws so far beyond those that the buffer's replay asks for."""
        rank = self.parts.rank
        return redrawn(self.parts.study.buffer, rank.source.received, rank.trainer.drawn)

    def samples(self) -> tuple[int, int]:
        """Count the different samples there are to train on, and those of them still untrained."""
        return self.parts.rank.source.counts()

    def completed(self) -> int:
        """Count the training simulations that have arrived whole."""
        return sum(not is_held_out(id) for id in self.parts.rank.ledger.completed())

    def stored(self) -> int:
        """Count the simulations of this study that are complete in the store."""
        store = self.parts.store
        return store.count(below=self.parts.study.design.simulations) if store else 0


def redrawn(buffer: BufferConfig, received: int, drawn: int) -> float:
    """Count the draws that the buffer's replay permits, but does not ask for."""
    return max(0.0, drawn - buffer.replay[0] * received)


def ratio(part: float, whole: float) -> float:
    """Return the share of a part in a whole; 0 if the whole is 0."""
    return part / whole if whole > 0 else 0.0
