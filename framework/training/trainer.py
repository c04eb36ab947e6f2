"""One training rank: a receive thread fills the buffer, the training loop draws from it.

    ensemble.blocks() -> ledger -> samples -> buffer.put     (receive thread: `Reception`)
                                              buffer.get -> optimiser step   (`Trainer.train`)

The two share the buffer, the ledger and the field statistics. What reception changes in them it
changes under the buffer's lock, so that whoever holds that sees all three agree. The loop is
written for several ranks, each with a reception and a buffer of its own: what they agree on goes
through `collective`, so with one rank nothing is communicated.
"""

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from framework.simulation.breeding import BredDesign
from framework.stream.buffer import Batch, Batches
from framework.stream.collective import sum_counts, sum_gradients, sum_over_ranks
from framework.stream.ledger import Ledger
from framework.stream.reception import FieldStatistics
from framework.study.sections import Stop, TrainingConfig
from surrogates.base import Surrogate


class Trainer:
    """The optimiser and the training loop of one rank. Counters may be read from any thread."""

    def __init__(
        self,
        surrogate: Surrogate,
        config: TrainingConfig,
        device: torch.device,
        buffer: Batches,
        ledger: Ledger,
        expected_samples: int,
        breeding: BredDesign | None = None,
    ) -> None:
        """`expected_samples`: for the schedule, how many different ones the stream will bring, or
        how many a store will be drawn from it in all its epochs. `breeding` is told the losses."""
        self.surrogate = surrogate.to(device)
        if config.precision == "float64":
            self.surrogate.double()
        self.step = 0
        self.drawn = 0
        self.waited = 0.0  # seconds in buffer.get, after the first batch
        self.seconds = 0.0  # since the first batch
        self.loss = torch.zeros((), device=device)  # of the last step, in normalised units
        self._config = config
        self._stop = config.stop
        self.progress = 0.0  # of the way to the stop; the same on every rank
        self.device = device
        self._buffer = buffer
        self._ledger = ledger
        self._expected_samples = expected_samples
        self._breeding = breeding
        self._parameters = list(self.surrogate.parameters())
        self._optimiser = _OPTIMISERS[config.optimiser](
            self._parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def train(self, statistics: FieldStatistics, after_step: Callable[[], None]) -> None:
        """Train until the stop, and close the buffer. `after_step` is called after every step."""
        with self._buffer.lock:  # or what arrives between the two would count, too
            batch = None if self._reached() else self._buffer.get()
            going_on = self._any_batch(batch)
            if going_on:
                self.surrogate.normalise_fields(*statistics.freeze())
        started = time.monotonic() - self.seconds
        out_of_time = self._close_buffer_in_time()
        while going_on:
            for group in self._optimiser.param_groups:
                group["lr"] = self.learning_rate()
            self.step += 1
            self.seconds = time.monotonic() - started
            samples = self._enter_step(batch)
            self._optimiser.zero_grad()
            # A rank without a batch adds nothing to the others' loss, in their precision.
            loss = self.surrogate.field_mean.new_zeros(())
            if batch:
                loss = self._losses(batch).sum() / samples
                loss.backward()  # type: ignore[no-untyped-call]
            sum_gradients(self._parameters)
            self._optimiser.step()
            self.loss = sum_over_ranks(loss.detach())
            after_step()
            before = time.monotonic()
            batch = None if self._reached() else self._buffer.get()
            self.waited += time.monotonic() - before
            going_on = self._any_batch(batch)
        out_of_time.cancel()
        self._buffer.close()
        float(self.loss)  # waits for a GPU, which may be steps behind
        self.seconds = time.monotonic() - started

    def state(self) -> dict[str, Any]:
        """Everything that decides the next step, and the counters; between two steps."""
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
        """Go on from what `state` returned; before `train`."""
        self.surrogate.load_state_dict(state["surrogate"])
        self._optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] and self.device.type == "cuda":
            torch.cuda.set_rng_state_all(state["random_cuda"])
        torch.set_num_threads(state["threads"])
        self.loss = state["loss"].to(self.device)
        for name in _COUNTERS:
            setattr(self, name, state[name])

    def _close_buffer_in_time(self) -> threading.Timer:
        """So that a stop after some seconds is kept even while the loop waits for samples."""
        left = min(max((self._stop.seconds or 0) - self.seconds, 0), threading.TIMEOUT_MAX)
        timer = threading.Timer(left, self._buffer.close)
        timer.daemon = True
        if self._stop.seconds:
            timer.start()
        return timer

    def _any_batch(self, batch: Batch | None) -> bool:
        """Whether any rank has a batch; a rank that has none takes part in the others' step."""
        return sum_counts(batch is not None)[0] > 0

    def _reached(self) -> bool:
        """Whether the stop is reached; the same on every rank."""
        return self._stop != Stop() and self.progress >= 1

    def _enter_step(self, batch: Batch | None) -> float:
        """Enter the step; return how many samples of all ranks its loss is a mean of."""
        samples = len(batch) if batch else 0
        if batch:
            self._ledger.train(batch.simulation, batch.first_step)
        totals = sum_counts(samples, self._ledger.unique_trained, self.seconds, 1)
        self.drawn += int(totals[0])
        if self._stop.steps:
            self.progress = self.step / self._stop.steps
        elif self._stop.samples:
            self.progress = self.drawn / self._stop.samples
        elif self._stop.seconds:
            self.progress = totals[2] / totals[3] / self._stop.seconds
        else:
            done = self.drawn if self._config.source else totals[1]
            self.progress = done / self._expected_samples
        return totals[0]

    def learning_rate(self) -> float:
        rate = self._config.learning_rate
        if self.step < self._config.warmup_steps:
            return rate * (self.step + 1) / self._config.warmup_steps
        if self._config.schedule == "cosine":
            return rate * (1 + math.cos(math.pi * min(self.progress, 1))) / 2
        return rate

    def _losses(self, batch: Batch) -> Tensor:
        bfloat16 = self._config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            losses = self.surrogate.losses(
                batch.parameters.to(self.device, non_blocking=True),
                batch.times.to(self.device, non_blocking=True),
                batch.fields.to(self.device, non_blocking=True),
            )
        return self._breeding.weigh(batch.simulation, losses) if self._breeding else losses


_COUNTERS = ("step", "drawn", "waited", "seconds", "progress")
_OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
