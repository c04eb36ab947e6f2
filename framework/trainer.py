"""One training rank: a receive thread fills the buffer, the training loop draws from it.

    ensemble.blocks() -> ledger -> samples -> buffer.put     (receive thread: `Reception`)
                                              buffer.get -> optimiser step   (`Trainer.train`)

The two share the buffer, the ledger and the field statistics, which lock themselves. The loop is
written for several ranks, each with a reception and a buffer of its own: what they agree on goes
through `collective`, so with one rank nothing is communicated.
"""

import math
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from framework.block import Block, Samples, WindowCutter
from framework.buffer import Batch, Buffer, Closed
from framework.collective import sum_gradients, sum_over_ranks
from framework.ensemble import Ensemble
from framework.ledger import Ledger, ReplayMismatchError
from framework.section import Section
from surrogates.base import Surrogate


class Stop(Section):
    """When training ends: after optimiser steps, samples drawn, or seconds of training.

    With none of them it ends when it is drained: every simulation has ended and the buffer is
    empty; in a study this is written `stop: drained`. It always ends there.
    """

    steps: PositiveInt | None = None
    samples: PositiveInt | None = None
    seconds: PositiveFloat | None = None

    @model_validator(mode="before")
    @classmethod
    def _drained(cls, value: Any) -> Any:
        if value == "drained":
            return {}
        if isinstance(value, dict | Stop):
            return value
        raise ValueError("must be drained, or one limit such as {steps: 1000}")

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        if len([limit for limit in (self.steps, self.samples, self.seconds) if limit]) > 1:
            raise ValueError("give only one of steps, samples and seconds")
        return self


class TrainingConfig(Section):
    """The `training` section of a study."""

    batch_size: PositiveInt = 10  # of one rank
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    # Linear from 0 to the learning rate over this many steps, before the schedule.
    warmup_steps: NonNegativeInt = 0
    # `cosine` falls to 0 as the run proceeds towards its stop.
    schedule: Literal["constant", "cosine"] = "constant"
    precision: Literal["float32", "float64", "bfloat16"] = "float32"
    stop: Stop = Stop()


class FieldStatistics:
    """What each field [C] is normalised by: over all samples received until it is frozen."""

    def __init__(self, channels: int) -> None:
        self._lock = threading.Lock()
        self._frozen = False
        self._count = torch.zeros(1, dtype=torch.float64)
        self._mean = torch.zeros(channels, dtype=torch.float64)
        self._squares = torch.zeros(channels, dtype=torch.float64)  # of deviations from the mean
        self._changes = torch.zeros(channels, dtype=torch.float64)  # mean square over a window

    def add(self, samples: Samples) -> None:
        """Merge in samples, by the update of Chan, Golub and LeVeque (1983)."""
        with self._lock:
            if self._frozen or not len(samples):
                return
            windows = torch.tensor(samples.fields, dtype=torch.float64)  # [n, w, C, *grid]
            fields = windows.flatten(0, 1).transpose(0, 1).flatten(1)
            changes = (windows[:, -1] - windows[:, 0]).transpose(0, 1).flatten(1)
            count = torch.tensor([fields.shape[1]], dtype=torch.float64)
            mean = fields.mean(1)
            squares = (fields - mean[:, None]).square().sum(1)
            total = self._count + count
            delta = mean - self._mean
            self._squares += squares + delta.square() * self._count * count / total
            self._changes += (changes.square().mean(1) - self._changes) * count / total
            self._mean += delta * count / total
            self._count = total

    def freeze(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, standard deviation, and root mean square change over a window, each [C].

        Over all ranks; what is added later is ignored.
        """
        with self._lock:
            self._frozen = True
            count = sum_over_ranks(self._count.clone()).clamp(min=1)
            mean = sum_over_ranks(self._count * self._mean) / count
            shifted = self._squares + self._count * (self._mean - mean).square()
            variance = sum_over_ranks(shifted) / count
            changes = sum_over_ranks(self._count * self._changes) / count
            return mean.float(), variance.sqrt().float(), changes.sqrt().float()


class Reception(threading.Thread):
    """Takes the ensemble's blocks, lets each step count once, and puts the samples in the buffer.

    Held-out simulations (negative ids) go to `hold_out`, block by block, instead. What ends the
    thread early is kept in `error`; the buffer is then closed, so that the training loop ends too.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        ledger: Ledger,
        buffer: Buffer,
        statistics: FieldStatistics,
        hold_out: Callable[[Block], None],
    ) -> None:
        super().__init__(name="reception", daemon=True)
        self.error: BaseException | None = None
        self.over = threading.Event()
        self._ensemble = ensemble
        self._ledger = ledger
        self._buffer = buffer
        self._statistics = statistics
        self._hold_out = hold_out
        self._cutter = WindowCutter(ledger.window)

    def run(self) -> None:
        try:
            for block in self._ensemble.blocks():
                self._receive(block)
            self._buffer.end_reception()
        except Closed:  # by the training loop, which has reached its stop
            pass
        # Handed over to the main thread, which raises it.
        except BaseException as error:
            self.error = error
            self._buffer.close()
        finally:
            self.over.set()

    def _receive(self, block: Block) -> None:
        try:
            new = self._ledger.receive(block)
        except ReplayMismatchError:
            # On another processor the same simulation came out different: a trajectory must not
            # be mixed from two, so it starts anew.
            self._ledger.forget(block.simulation)
            self._cutter.forget(block.simulation)
            self._buffer.discard(block.simulation)
            self._ensemble.restart(block.simulation)
            return
        if new is None:
            return
        if new.simulation < 0:
            self._hold_out(new)
            return
        samples = self._cutter.cut(new, last=self._ledger.complete(new.simulation))
        self._statistics.add(samples)
        self._buffer.put(samples)


class Trainer:
    """The optimiser and the training loop of one rank. Counters may be read from any thread."""

    def __init__(
        self,
        surrogate: Surrogate,
        config: TrainingConfig,
        device: torch.device,
        buffer: Buffer,
        ledger: Ledger,
        expected_samples: int,
    ) -> None:
        """`expected_samples`: how many different ones will come, for the schedule."""
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
        self._progress = 0.0  # of the way to the stop; the same on every rank
        self._device = device
        self._buffer = buffer
        self._ledger = ledger
        self._expected_samples = expected_samples
        self._parameters = list(self.surrogate.parameters())
        self._optimiser = _OPTIMISERS[config.optimiser](
            self._parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def train(self, statistics: FieldStatistics, after_step: Callable[[], None]) -> None:
        """Train until the stop, and close the buffer. `after_step` is called after every step."""
        batch = self._buffer.get()
        self.surrogate.normalise_fields(*statistics.freeze())
        started = time.monotonic()
        out_of_time = self._close_buffer_in_time()
        while self._any_batch(batch):
            for group in self._optimiser.param_groups:
                group["lr"] = self._learning_rate()
            self._optimiser.zero_grad()
            # A rank without a batch adds nothing to the others' loss, in their precision.
            loss = self._summed_loss(batch) if batch else self.surrogate.field_mean.new_zeros(())
            if batch:
                loss.backward()  # type: ignore[no-untyped-call]
                self._ledger.train(batch.simulation, batch.first_step)
            self.step += 1
            self.seconds = time.monotonic() - started
            numbers = self._share_counts(batch)
            sum_gradients(self._parameters)
            for parameter in self._parameters:
                if parameter.grad is not None:
                    parameter.grad /= numbers
            self._optimiser.step()
            self.loss = sum_over_ranks(loss.detach()) / numbers
            after_step()
            before = time.monotonic()
            batch = None if self._reached() else self._buffer.get()
            self.waited += time.monotonic() - before
        out_of_time.cancel()
        self._buffer.close()
        self.seconds = time.monotonic() - started

    def _close_buffer_in_time(self) -> threading.Timer:
        """So that a stop after some seconds is kept even while the loop waits for samples."""
        timer = threading.Timer(self._stop.seconds or 0, self._buffer.close)
        timer.daemon = True
        if self._stop.seconds:
            timer.start()
        return timer

    def _any_batch(self, batch: Batch | None) -> bool:
        """Whether any rank has a batch; a rank that has none takes part in the others' step."""
        return bool(sum_over_ranks(torch.tensor(batch is not None).int()))

    def _reached(self) -> bool:
        """Whether the stop is reached; the same on every rank."""
        return self._stop != Stop() and self._progress >= 1

    def _share_counts(self, batch: Batch | None) -> float:
        """Sum what the ranks have done; return how many numbers the summed loss is a sum of."""
        numbers = batch.fields[:, -1].numel() if batch else 0
        samples = len(batch) if batch else 0
        counts = [numbers, samples, self._ledger.unique_trained, self.seconds, 1]
        totals = sum_over_ranks(torch.tensor(counts, dtype=torch.float64)).tolist()
        self.drawn += int(totals[1])
        if self._stop.steps:
            self._progress = self.step / self._stop.steps
        elif self._stop.samples:
            self._progress = self.drawn / self._stop.samples
        elif self._stop.seconds:
            self._progress = totals[3] / totals[4] / self._stop.seconds
        else:
            self._progress = totals[2] / self._expected_samples
        return float(totals[0])

    def _learning_rate(self) -> float:
        rate = self._config.learning_rate
        if self.step < self._config.warmup_steps:
            return rate * (self.step + 1) / self._config.warmup_steps
        if self._config.schedule == "cosine":
            return rate * (1 + math.cos(math.pi * min(self._progress, 1))) / 2
        return rate

    def _summed_loss(self, batch: Batch) -> Tensor:
        bfloat16 = self._config.precision == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=bfloat16):
            return self.surrogate.summed_loss(
                batch.parameters.to(self._device, non_blocking=True),
                batch.times.to(self._device, non_blocking=True),
                batch.fields.to(self._device, non_blocking=True),
            )


_OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
