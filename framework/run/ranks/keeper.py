"""What a training rank tells the owner of the run, and the owner that keeps it."""

import threading
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from framework.run.parts import Parts
from framework.simulation.block import Block
from framework.simulation.failures import Quarantined, Verdicts


class Told(Verdicts, Protocol):
    """What a rank tells, from its receive thread and its training loop."""

    def hold_out(self, block: Block, last: bool) -> None:
        """Take a block of a held-out simulation; `last`: its last one."""

    def complete(self, simulation: int, parameters: NDArray[np.float64]) -> None:
        """Be told that all of a training simulation was received."""

    def scorable(self, weights: dict[str, NDArray[Any]], step: int) -> None:
        """Take the surrogate of an optimiser step, to score it."""


class Keeper(Told):
    """Keeps what ranks tell: in the store, as held-out trajectories, in the quarantine."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lock = threading.Lock()

    def hold_out(self, block: Block, last: bool) -> None:
        with self._lock:
            self._parts.validation.add(block, last)

    def complete(self, simulation: int, parameters: NDArray[np.float64]) -> None:
        # Its solver has already written it.
        if self._parts.store:
            self._parts.store.commit(simulation, parameters)

    def scorable(self, weights: dict[str, NDArray[Any]], step: int) -> None:
        self._parts.validation.submit(weights, step)

    def give_up(self, item: Quarantined) -> None:
        self._parts.quarantine.give_up(item)

    def run_again(self, simulations: Sequence[int], why: str) -> None:
        self._parts.quarantine.run_again(simulations, why)

    def losses(self, batches: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]]) -> None:
        """Remember the losses [b] of batches of simulations [b], to breed new ones by."""
        breeding = self._parts.breeding
        assert breeding is not None
        for simulation, losses in batches:
            breeding.losses.add(simulation, torch.tensor(losses))
