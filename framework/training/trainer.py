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
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from framework.stream.collective import sum_counts, sum_gradients, sum_over_ranks
from framework.stream.ledger import Ledger
from framework.stream.samples import Batch
from framework.stream.source import Source
from framework.stream.statistics import FieldStatistics
from surrogates.base import Surrogate

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
        self.device = device
        self._settings = settings
        self._source = source
        self._ledger = ledger
        self._weigh = weigh
        self._normalised = normalised
        self._parameters = list(self.surrogate.parameters())
        self._optimiser = make_optimiser(self.surrogate, settings)

    def train(self, statistics: FieldStatistics, after_step: Callable[[], None]) -> None:
        """Train until the stop, then close the source; `after_step` follows each optimiser step."""
        with self._source.lock:  # else samples arriving between the two would count, too
            batch = None if self._reached() else self._source.get()
            going_on = self._any_batch(batch)
            if going_on and not self._normalised:
                self.surrogate.normalise_fields(*statistics.freeze())
        started = time.monotonic() - self.seconds
        out_of_time = self._close_source_in_time()
        while going_on:
            for group in self._optimiser.param_groups:
                group["lr"] = self.learning_rate()
            self.optimiser_steps += 1
            self.seconds = time.monotonic() - started
            samples = self._enter_step(batch)
            self._optimiser.zero_grad()
            # A rank without a batch adds nothing to the others' loss, in their precision.
            loss = self.surrogate.field_mean.new_zeros(())
            if batch:
                loss = self._losses(batch).sum() / samples
                torch.autograd.backward(loss)
            sum_gradients(self._parameters)
            self._optimiser.step()
            self.loss = sum_over_ranks(loss.detach())
            after_step()
            before = time.monotonic()
            batch = None if self._reached() else self._source.get()
            self.waited += time.monotonic() - before
            going_on = self._any_batch(batch)
        out_of_time.cancel()
        self._source.close()
        float(self.loss)  # waits for a GPU, which may be optimiser steps behind
        self.seconds = time.monotonic() - started

    def state(self) -> dict[str, Any]:
        """Return the counters and all that decides the next optimiser step; call between two."""
        return {
            "surrogate": self.surrogate.tensors(),
            "optimiser": self._optimiser.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            "threads": torch.get_num_threads(),
            "loss": self.loss.cpu(),
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

    def _any_batch(self, batch: Batch | None) -> bool:
        """Return whether any rank has a batch; ranks without one join in the optimiser step."""
        return sum_counts(batch is not None)[0] > 0

    def _reached(self) -> bool:
        """Return whether the stop is reached; the same on every rank."""
        return self._settings.limited and self.progress >= 1

    def _enter_step(self, batch: Batch | None) -> float:
        """Count an optimiser step; return the number of samples that its loss is a mean of.

        That number is the sum over all ranks.
        """
        samples = len(batch) if batch else 0
        if batch:
            self._ledger.train(batch.simulation, batch.first_step)
        totals = sum_counts(samples, self._ledger.unique_trained, self.seconds, 1)
        self.drawn += int(totals[0])
        if self._settings.steps:
            self.progress = self.optimiser_steps / self._settings.steps
        elif self._settings.samples:
            self.progress = self.drawn / self._settings.samples
        elif self._settings.seconds:
            self.progress = totals[2] / totals[3] / self._settings.seconds
        else:
            self.progress = self._source.progress(self.drawn, totals[1])
        return totals[0]

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


_COUNTERS = ("optimiser_steps", "drawn", "waited", "seconds", "progress")
_OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


def make_optimiser(surrogate: Surrogate, settings: TrainerSettings) -> torch.optim.Optimizer:
    """Return the optimiser of a surrogate's weights."""
    kind = _OPTIMISERS[settings.optimiser]
    weights = list(surrogate.parameters())
    return kind(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def training_device() -> torch.device:
    """Return what a rank trains on: the first GPU, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
