"""How far a run is and where its time goes: counters that are read off its parts.

Counters go on over resumes. All may be read from any thread.
"""

import time
from contextlib import suppress
from typing import Any

import torch

from framework.report.summary import StepCost, Waits
from framework.run.parts import Parts
from framework.study.ids import is_held_out


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
        # What training had taken when reception was last seen going on.
        self._training = {"seconds": 0.0, "waited": 0.0}

    def after_step(self) -> None:
        """Take note of an optimiser step; called by the training loop after each one."""
        rank = self.parts.rank
        if rank.source.sink is not None and not rank.reception.over.is_set():
            trainer = rank.trainer
            self.steps_while_simulating += 1
            self._training = {"seconds": trainer.seconds, "waited": trainer.waited}

    def end_training(self) -> None:
        """Take note of the training loop's end; what follows is scoring and writing."""
        self._trained = self.seconds

    def end(self) -> None:
        """Stop the clock: the run has ended."""
        self._ended = self.seconds

    def count_cost(self) -> None:
        """Count what an optimiser step costs; takes about as long as one."""
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
        """The seconds of the run at the checkpoint that it was resumed from; 0 of a new run."""
        return self._before["seconds"]

    @property
    def seconds_to_end(self) -> float:
        """Seconds of the run until training was done; until now if it goes on."""
        return self.seconds if self._trained is None else self._trained

    @property
    def source(self) -> dict[str, Any] | None:
        """The identity of the store that is trained from; None if a stream is."""
        return self.parts.rank.source.identity

    def state(self) -> dict[str, Any]:
        """The counters, for `load_state`."""
        simulating = {"steps": self.steps_while_simulating, **self._training}
        return {"before": self.totals(), "simulating": simulating}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on counting from what `state` returned."""
        self._before = state["before"]
        self.steps_while_simulating = state["simulating"]["steps"]
        self._training = {key: state["simulating"][key] for key in self._training}

    def totals(self) -> dict[str, float]:
        """Seconds: of the run, of streaming, transport's idle ones, and those that the solvers,
        all together, waited."""
        before, ensemble = self._before, self.parts.ensemble
        return {
            "seconds": self.seconds,
            "streaming": before["streaming"] + ensemble.seconds,
            "idle": before["idle"] + ensemble.idle,
            "solvers_waited": before["solvers_waited"] + ensemble.solvers_waited,
        }

    def waits(self) -> Waits:
        """The shares of the time while simulating that each waited."""
        totals, training = self.totals(), self._training
        actors = self.parts.study.ensemble.actors
        return Waits(
            solvers=ratio(totals["solvers_waited"], actors * totals["streaming"]),
            training=ratio(training["waited"], training["seconds"]),
            transport=ratio(totals["idle"], totals["streaming"]),
        )

    def samples(self) -> tuple[int, int]:
        """How many different samples there are to train on, and how many are untrained."""
        return self.parts.rank.source.counts()

    def completed(self) -> int:
        """How many training simulations have arrived whole."""
        return sum(not is_held_out(id) for id in self.parts.rank.ledger.completed())

    def stored(self) -> int:
        """How many simulations of this study are complete in the store."""
        store = self.parts.store
        return store.count(below=self.parts.study.design.simulations) if store else 0


def ratio(part: float, whole: float) -> float:
    """The share of a part; 0 of nothing."""
    return part / whole if whole > 0 else 0.0
