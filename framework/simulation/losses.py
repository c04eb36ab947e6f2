"""The latest losses of simulations, as scores that say where the loss is high.

Shapes: b samples of a batch, k losses remembered.
"""

from collections import deque
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from framework.simulation.mutation import Floats


class RecentLosses:
    """The last `window` losses, as deviations within their batch.

    Two threads may use it, of which one calls `add`.
    """

    def __init__(self, window: int, batch_size: int) -> None:
        self._window = window
        # Read only when scores are asked for: reading a loss on a GPU waits for it.
        self._new: deque[tuple[NDArray[np.int64], Tensor]] = deque(maxlen=-(-window // batch_size))
        self._simulations = np.empty(0, dtype=np.int64)  # [k]
        self._deviations = np.empty(0)  # [k]
        self._lock = Lock()

    def add(self, simulation: NDArray[np.int64], losses: Tensor) -> None:
        """Remember the losses [b] of a batch; does not wait for them to be computed."""
        self._new.append((simulation, losses.detach()))

    def scores(self) -> tuple[NDArray[np.int64], Floats]:
        """Return the simulations with remembered losses, ascending, and the score of each."""
        with self._lock:
            self._read()
            if not len(self._simulations):
                return self._simulations, self._deviations
            first = self._simulations.min()
            counts = np.bincount(self._simulations - first)
            sums = np.bincount(self._simulations - first, self._deviations)
            present = np.flatnonzero(counts)
            return first + present, sums[present] / counts[present]

    def state(self) -> dict[str, Any]:
        """Return what is remembered, for `load_state`."""
        with self._lock:
            self._read()
            return {"simulations": self._simulations, "deviations": self._deviations}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        with self._lock:
            self._simulations = np.asarray(state["simulations"]).copy()
            self._deviations = np.asarray(state["deviations"]).copy()

    def _read(self) -> None:
        """Read the losses added since the last call, all from a GPU at once."""
        batches = [self._new.popleft() for _ in range(len(self._new))]
        if not batches:
            return
        losses = torch.cat([losses for _, losses in batches]).double().cpu().numpy()
        deviations = _deviations(losses, np.array([len(losses) for _, losses in batches]))
        simulations = [simulation for simulation, _ in batches]
        self._simulations = np.concatenate([self._simulations, *simulations])[-self._window :]
        self._deviations = np.concatenate([self._deviations, deviations])[-self._window :]


def _deviations(losses: Floats, lengths: NDArray[np.int64]) -> Floats:
    """Return how far each loss lies above its batch's mean, in standard deviations, or 0.

    The batches, of these lengths, follow each other.
    """
    starts = np.cumsum(lengths) - lengths
    above = losses - (np.add.reduceat(losses, starts) / lengths).repeat(lengths)
    spread = np.sqrt(np.add.reduceat(above**2, starts) / lengths).repeat(lengths)
    # A batch without spread tells nothing, nor does one that has diverged.
    tells = np.isfinite(spread) & (spread > 0)
    deviations = np.zeros(len(losses))
    np.divide(above.clip(0), spread, out=deviations, where=tells)
    return deviations
