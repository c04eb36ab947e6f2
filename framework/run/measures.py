"""Figures of a run's progress and of where its time goes, read off its parts and its ranks."""

from contextlib import suppress
from typing import Any

import torch

from framework.report.summary import StepCost, Waits
from framework.run.parts import Parts
from framework.run.ranks.figures import Figures
from framework.run.ranks.ranks import Ranks
from framework.study.sections import BufferConfig


class Measures:
    """Reads the parts and the ranks of a run; changes none of them."""

    def __init__(self, parts: Parts, ranks: Ranks) -> None:
        self.parts = parts
        self.ranks = ranks
        self.cost: StepCost | None = None  # of an optimiser step
        self.clock = parts.clock

    def count_cost(self) -> None:
        """Measure the cost of an optimiser step; takes about as long as one."""
        with suppress(torch.OutOfMemoryError):  # of a GPU that training itself has just fitted
            cost = self.ranks.surrogate.cost(self.parts.study.training.batch_size)
            self.cost = StepCost(cost.parameters, cost.flops, cost.memory_bytes)

    @property
    def source(self) -> dict[str, Any] | None:
        """The identity of the store that is trained from; None when training from a stream."""
        return self.ranks.source

    def waits(self, figures: Figures) -> Waits:
        """Return the share of the simulating time that each part waited."""
        streamed, moment, buffer = (
            figures.streamed,
            figures.while_receiving,
            self.parts.study.buffer,
        )
        actors = self.parts.study.ensemble.actors
        waited = ratio(moment.waited, moment.seconds)
        again = redrawn(buffer, moment.received, moment.drawn)
        return Waits(
            solvers=ratio(streamed.solvers_waited, actors * streamed.seconds),
            training=waited,
            transport=ratio(streamed.idle, streamed.seconds),
            redraws=ratio(again, moment.drawn) * (1 - waited),
        )

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
