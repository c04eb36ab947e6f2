"""Statistics to normalise fields by: means and deviations of the samples received so far.

Shapes: n samples, w stored steps in each, C fields, K steps that the surrogate predicts at once,
`*grid` the grid's axes.
"""

import threading
from typing import Any

import torch
from torch import Tensor

from framework.stream.collective import sum_over_ranks
from framework.stream.samples import Samples


class FieldStatistics:
    """The mean, the deviation and the typical change of each field [C], until they are frozen."""

    def __init__(self, channels: int, bundle: int = 1) -> None:
        """`bundle` is K."""
        self._lock = threading.Lock()
        self._frozen = False
        self._count = torch.zeros(1, dtype=torch.float64)
        self._mean = torch.zeros(channels, dtype=torch.float64)
        self._squares = torch.zeros(channels, dtype=torch.float64)  # of deviations from the mean
        # The mean square change from a window's first step to each of the next K.
        self._changes = torch.zeros(bundle, channels, dtype=torch.float64)

    def add(self, samples: Samples) -> None:
        """Merge samples in, by the update of Chan, Golub and LeVeque (1983)."""
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
            self._merge(count, mean, squares, changes)

    def _merge(self, count: Tensor, mean: Tensor, squares: Tensor, changes: Tensor) -> None:
        total = (self._count + count).clamp(min=1)
        delta = mean - self._mean
        self._squares += squares + delta.square() * self._count * count / total
        if len(changes):
            self._changes += (changes - self._changes) * count / total
        self._mean += delta * count / total
        self._count = self._count + count

    def state(self) -> dict[str, Any]:
        """Return the sums so far, for `load_state`."""
        with self._lock:
            sums = (self._count, self._mean, self._squares, self._changes)
            return {"frozen": self._frozen, "sums": [tensor.clone() for tensor in sums]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        with self._lock:
            self._frozen = state["frozen"]
            self._count, self._mean, self._squares, self._changes = state["sums"]

    def merge_state(self, state: dict[str, Any]) -> None:
        """Add the sums of another rank to those here, which has stopped if that one has."""
        count, mean, squares, changes = state["sums"]
        with self._lock:
            self._frozen |= state["frozen"]
            self._merge(count, mean, squares, changes)

    def stop(self) -> None:
        """Ignore what is added from now on."""
        with self._lock:
            self._frozen = True

    def freeze(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return means [C], standard deviations [C], and RMS changes over 1 to K steps [K, C].

        They are those over all ranks, each up to its `stop`, and at most until now. The changes are
        0 if a sample is a single step.
        """
        with self._lock:
            self._frozen = True
            count = sum_over_ranks(self._count.clone()).clamp(min=1)
            mean = sum_over_ranks(self._count * self._mean) / count
            shifted = self._squares + self._count * (self._mean - mean).square()
            variance = sum_over_ranks(shifted) / count
            changes = sum_over_ranks(self._count * self._changes) / count
            return mean.float(), variance.sqrt().float(), changes.sqrt().float()
