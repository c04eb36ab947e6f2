"""One training rank: a receive thread fills the buffer, the training loop draws from it.

    ensemble.blocks() -> ledger -> samples -> buffer.put     (receive thread: `Reception`)
                                              buffer.get -> optimiser step   (`Trainer.train`)

The two share the buffer, the ledger and the field statistics. Reception changes them under the
buffer's lock, so that they agree for whoever holds it. The loop is
written for several ranks, each with a reception and a buffer of its own: what they agree on goes
through `collective`, so with one rank nothing is communicated.
"""

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from framework.stream.collective import GradientSum, alone, sum_counts
from framework.stream.ledger import Ledger
from framework.stream.samples import Batch
from framework.stream.source import Source
from framework.stream.statistics import FieldStatistics
from surrogates.base import Surrogate

# Seconds that a rank waits for a batch before it tells the others that it still waits. None of them
# then waits longer for an answer, which shows a rank that hangs.
_VOTE_SECONDS = 1.0

# Weighs the losses [n] of samples, given their simulations [n].
Weigh = Callable[[NDArray[np.int64], Tensor], Tensor]


@dataclass(frozen=True)
class TrainerSettings:
    """How to train, and when to stop: after optimiser steps, samples drawn, or seconds.

    Without a limit, training ends when there is nothing left to train on; it always ends there.
    """

    optimiser: str = "adam"  # or adamw, sgd
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup_steps: int = 0  # optimiser steps, linear from 0 to the learning rate
    schedule: str = "constant"  # or cosine, which falls to 0 with the progress towards the stop
    precision: str = "float32"  # or float64, bfloat16
    steps: int | None = None
    samples: int | None = None
    seconds: float | None = None

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return any((self.steps, self.samples, self.seconds))


class Trainer:
    """The optimiser and the training loop of one rank. Counters may be read from any thread."""

    def __init__(
        self,
        surrogate: Surrogate,
        settings: TrainerSettings,
        device: torch.device,
        source: Source,
        ledger: Ledger,
        weigh: Weigh | None = None,
        normalised: bool = False,
    ) -> None:
        """`weigh` is given the losses of every batch, and returns those to minimise; by default
        all count alike.

        `normalised`: the surrogate keeps the normalisation that it has.
        """
        self.surrogate = surrogate.to(device)
        if settings.precision == "float64":
            self.surrogate.double()
        self.optimiser_steps = 0
        self.drawn = 0
        self.waited = 0.0  # seconds in source.get, after the first batch
        self.seconds = 0.0  # since the first batch
        self.loss = torch.zeros((), device=device)  # of the last batch, in normalised units
        self.progress = 0.0  # of the way to the stop; the same on every rank
        self.asked = False  # whether all ranks have asked for something in this optimiser step
        self.device = device
        self._settings = settings
        self._source = source
        self._ledger = ledger
        self._weigh = weigh
        self._normalised = normalised
        self._parameters = list(self.surrogate.parameters())
        self._optimiser = make_optimiser(self.surrogate, settings)
        self.gradients = GradientSum(self._parameters)

    def train(
        self,
        statistics: FieldStatistics,
        after_step: Callable[[], None],
        ask: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train until the stop, then close the source; `after_step` follows each optimiser step.

        In it all ranks know by `asked` whether `ask` has returned true in all of them, and so can
        do something together.
        """
        batch, totals = self._next(statistics, ask)
        if totals.samples and not self._normalised:
            self.surrogate.normalise_fields(*statistics.freeze())
        started = time.monotonic() - self.seconds
        out_of_time = self._close_source_in_time()
        while totals.samples:
            for group in self._optimiser.param_groups:
                group["lr"] = self.learning_rate()
            self._enter_step(totals, time.monotonic() - started)
            self._optimiser.zero_grad()
            # A rank without a batch adds nothing to the others' loss, in their precision.
            loss = self.surrogate.field_mean.new_zeros(())
            if batch:
                loss = self._losses(batch).sum() / totals.samples
            self.gradients.begin(loss)
            if batch:
                torch.autograd.backward(loss)
            self.loss = self.gradients.finish(loss)
            self._optimiser.step()
            after_step()
            before = time.monotonic()
            batch, totals = self._next(statistics, ask, started)
            self.waited += time.monotonic() - before
        out_of_time.cancel()
        self._source.close()
        float(self.loss)  # waits for a GPU, which may be optimiser steps behind
        self.seconds = time.monotonic() - started

    def state(self) -> dict[str, Any]:
        """Return copies of all that decides the next optimiser step, and the counters.

        Call between two optimiser steps.
        """
        return {
            "surrogate": self.surrogate.tensors(),
            "optimiser": _copied(self._optimiser.state_dict()),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            "threads": torch.get_num_threads(),
            "loss": self.loss.cpu().clone(),
            **{name: getattr(self, name) for name in _COUNTERS},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned; call before `train`."""
        self.surrogate.load_state_dict(state["surrogate"])
        self._optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] and self.device.type == "cuda":
            torch.cuda.set_rng_state_all(state["random_cuda"])
        torch.set_num_threads(state["threads"])
        self.loss = state["loss"].to(self.device)
        for name in _COUNTERS:
            setattr(self, name, state[name])

    def _close_source_in_time(self) -> threading.Timer:
        """Start a timer that keeps a stop after some seconds, even while the loop waits."""
        left = min(max((self._settings.seconds or 0) - self.seconds, 0), threading.TIMEOUT_MAX)
        timer = threading.Timer(left, self._source.close)
        timer.daemon = True
        if self._settings.seconds:
            timer.start()
        return timer

    def _next(
        self,
        statistics: FieldStatistics,
        ask: Callable[[], bool],
        started: float | None = None,
    ) -> tuple[Batch | None, "_Totals"]:
        """Draw the next batch, if there is one; return what it and those of other ranks add up to.

        A rank without a batch still joins the others' optimiser step. While one waits for its
        batch, all wait. `started`: when training did, unless this is the first batch.
        """
        batch, waiting = None, not self._reached()
        while True:
            with suppress(TimeoutError):
                if waiting:
                    batch, waiting = self._draw(statistics), False
            seconds = self.seconds if started is None else time.monotonic() - started
            unique, samples = self._ledger.unique_trained, len(batch) if batch else 0
            totals = _Totals(*sum_counts(waiting, samples, unique, seconds, 1, ask()))
            if not totals.waiting:
                return batch, totals

    def _draw(self, statistics: FieldStatistics) -> Batch | None:
        """Draw a batch, and enter it in the ledger. Raises TimeoutError while others wait."""
        with self._source.lock:  # else samples arriving between the two would count, too
            batch = self._source.get(None if alone() else _VOTE_SECONDS)
            if batch:
                statistics.stop()
        if batch:
            self._ledger.train(batch.simulation, batch.first_step)
        return batch

    def _reached(self) -> bool:
        """Return whether the stop is reached; the same on every rank."""
        return self._settings.limited and self.progress >= 1

    def _enter_step(self, totals: "_Totals", seconds: float) -> None:
        """Count an optimiser step, `seconds` of training after the first batch."""
        self.optimiser_steps += 1
        self.seconds = seconds
        self.asked = totals.asked == totals.ranks
        self.drawn += int(totals.samples)
        if self._settings.steps:
            self.progress = self.optimiser_steps / self._settings.steps
        elif self._settings.samples:
            self.progress = self.drawn / self._settings.samples
        elif self._settings.seconds:
            self.progress = totals.seconds / totals.ranks / self._settings.seconds
        else:
            self.progress = self._source.progress(self.drawn, totals.unique_trained)

    def learning_rate(self) -> float:
        """Return the learning rate of the next optimiser step."""
        rate = self._settings.learning_rate
        if self.optimiser_steps < self._settings.warmup_steps:
            return rate * (self.optimiser_steps + 1) / self._settings.warmup_steps
        if self._settings.schedule == "cosine":
            return rate * (1 + math.cos(math.pi * min(self.progress, 1))) / 2
        return rate

    def _losses(self, batch: Batch) -> Tensor:
        bfloat16 = self._settings.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            losses = self.surrogate.losses(
                batch.parameters.to(self.device, non_blocking=True),
                batch.times.to(self.device, non_blocking=True),
                batch.fields.to(self.device, non_blocking=True),
            )
        return self._weigh(batch.simulation, losses) if self._weigh else losses


@dataclass(frozen=True)
class _Totals:
    """Sums over all ranks, which they agree on before an optimiser step."""

    waiting: float  # ranks that still wait for a batch
    samples: float  # in the batches of this step
    unique_trained: float  # with those of this step
    seconds: float  # of training
    ranks: float
    asked: float


_COUNTERS = ("optimiser_steps", "drawn", "waited", "seconds", "progress")
_OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


def _copied(value: Any) -> Any:
    """Return a copy of a state, with its tensors on the CPU."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value


def make_optimiser(surrogate: Surrogate, settings: TrainerSettings) -> torch.optim.Optimizer:
    """Return the optimiser of a surrogate's weights."""
    kind = _OPTIMISERS[settings.optimiser]
    weights = list(surrogate.parameters())
    return kind(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def training_device() -> torch.device:
    """Return what a rank trains on: the first GPU, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
