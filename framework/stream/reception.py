"""The receive thread: takes blocks from the ensemble and fills the buffer.

Ledger, statistics, buffer and the ends of blocks are changed under the buffer's lock, so that
whoever holds it sees all of them agree. Shapes: n samples, w time steps in each, C fields, K steps
that the surrogate predicts at once.
"""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from framework.simulation.block import Block, Samples, WindowCutter
from framework.simulation.ensemble import Ensemble
from framework.stream.buffer import Batches, Buffer, Closed
from framework.stream.collective import sum_over_ranks
from framework.stream.ledger import Ledger, ReplayMismatchError


class FieldStatistics:
    """What each field [C] is normalised by: over all samples received until it is frozen."""

    def __init__(self, channels: int, bundle: int = 1) -> None:
        """`bundle` is K."""
        self._lock = threading.Lock()
        self._frozen = False
        self._count = torch.zeros(1, dtype=torch.float64)
        self._mean = torch.zeros(channels, dtype=torch.float64)
        self._squares = torch.zeros(channels, dtype=torch.float64)  # of deviations from the mean
        # The mean square of what changes from a window's first step to each of the next K.
        self._changes = torch.zeros(bundle, channels, dtype=torch.float64)

    def add(self, samples: Samples) -> None:
        """Merge in samples, by the update of Chan, Golub and LeVeque (1983)."""
        with self._lock:
            if self._frozen or not len(samples):
                return
            windows = torch.tensor(samples.fields, dtype=torch.float64)  # [n, w, C, *grid]
            fields = windows.flatten(0, 1).transpose(0, 1).flatten(1)
            later = windows[:, 1 : 1 + len(self._changes)]
            changes = (later - windows[:, :1]).flatten(3).square().mean((0, 3))  # [K, C]
            count = torch.tensor([fields.shape[1]], dtype=torch.float64)
            mean = fields.mean(1)
            squares = (fields - mean[:, None]).square().sum(1)
            total = self._count + count
            delta = mean - self._mean
            self._squares += squares + delta.square() * self._count * count / total
            if len(changes):
                self._changes += (changes - self._changes) * count / total
            self._mean += delta * count / total
            self._count = total

    def state(self) -> dict[str, Any]:
        """What was added up so far, for `load_state`."""
        with self._lock:
            sums = (self._count, self._mean, self._squares, self._changes)
            return {"frozen": self._frozen, "sums": [tensor.clone() for tensor in sums]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        with self._lock:
            self._frozen = state["frozen"]
            self._count, self._mean, self._squares, self._changes = state["sums"]

    def freeze(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean [C], standard deviation [C], and root mean square change over 1 to K steps [K, C].

        Over all ranks; what is added later is ignored. The change is 0 where a sample is one step.
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
        batches: Batches,
        statistics: FieldStatistics,
        hold_out: Callable[[Block], None],
        complete: Callable[[Block], None] = lambda block: None,
    ) -> None:
        """`batches` is what is trained from: a buffer, or a store, of which nothing is received.
        `complete` is called with the last block of every simulation that is trained on.
        """
        super().__init__(name="reception", daemon=True)
        self.error: BaseException | None = None
        self.over = threading.Event()
        self._ensemble = ensemble
        self._ledger = ledger
        self._batches = batches
        self._statistics = statistics
        self._hold_out = hold_out
        self._complete = complete
        self._cutter = WindowCutter(ledger.window)

    def run(self) -> None:
        try:
            if isinstance(self._batches, Buffer):
                self._fill(self._batches)
            else:
                for block in self._ensemble.blocks():
                    self._hold_out(block)
        except Closed:  # by the training loop, which has reached its stop
            pass
        # Handed over to the main thread, which raises it.
        except BaseException as error:
            self.error = error
            self._batches.close()
        finally:
            self.over.set()

    def state(self) -> dict[str, Any]:
        """Of simulations under way; under the buffer's lock it agrees with the buffer's state."""
        return {"tails": self._cutter.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned; before the thread starts."""
        self._cutter.load_state(state["tails"])

    def _fill(self, buffer: Buffer) -> None:
        if pending := buffer.take_pending():
            buffer.put(pending)
        for block in self._ensemble.blocks():
            with buffer.lock:
                new = self._enter(block, buffer)
                if new is not None and new.simulation >= 0:
                    self._put(new, buffer)
            if new is not None and new.simulation < 0:
                self._hold_out(new)
        buffer.end_reception()

    def _enter(self, block: Block, buffer: Buffer) -> Block | None:
        """The part of a block that was not received before, if any."""
        try:
            return self._ledger.receive(block)
        except ReplayMismatchError:
            # On another processor the same simulation came out different: a trajectory must not
            # be mixed from two, so it starts anew.
            self._ledger.forget(block.simulation)
            self._cutter.forget(block.simulation)
            buffer.discard(block.simulation)
            self._ensemble.restart(block.simulation)
            return None

    def _put(self, new: Block, buffer: Buffer) -> None:
        last = self._ledger.complete(new.simulation)
        samples = self._cutter.cut(new, last)
        if last:
            self._complete(new)
        self._statistics.add(samples)
        buffer.put(samples)
