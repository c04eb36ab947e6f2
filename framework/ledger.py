"""Which steps were received and which samples were trained on: what makes each count once.

Delivery is at least once: a simulation whose solver died runs again from its first step. The
ledger keeps the checksum of every step received, so that a repeated step is dropped, and one that
came out different is noticed. It is used by the receive thread and the training thread.
"""

import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from framework.block import Block


class ReplayMismatchError(Exception):
    """A simulation that ran again differs from what was received of it before."""


@dataclass
class _Record:
    """One simulation's entry."""

    trained: NDArray[np.bool_]  # [samples of a simulation]
    checksums: list[int] = field(default_factory=list)  # of the steps received, in order


class Ledger:
    """The entries of all simulations; held-out ones (negative ids) are never trained on."""

    def __init__(self, stored_steps: int, window: int) -> None:
        """`stored_steps` of a simulation, of which every `window` consecutive ones are a sample."""
        self.stored_steps = stored_steps
        self.window = window
        self.samples_per_simulation = stored_steps - window + 1
        self.unique_trained = 0
        self._records: dict[int, _Record] = {}
        self._lock = threading.Lock()

    def receive(self, block: Block) -> Block | None:
        """Enter a block; return the part of it that is new, or None.

        Raises ReplayMismatchError, entering nothing, if a step received before has changed, and
        ValueError if the block leaves a gap.
        """
        with self._lock:
            record = self._record(block.simulation)
            known = len(record.checksums)
            if block.first_step > known:
                raise ValueError(
                    f"block of simulation {block.simulation} starts at step {block.first_step}, "
                    f"but the next one is {known}"
                )
            overlap = known - block.first_step
            checksums = block.checksums.tolist()
            repeated = record.checksums[block.first_step : block.first_step + len(block)]
            if checksums[:overlap] != repeated:
                raise ReplayMismatchError
            record.checksums += checksums[overlap:]
            if overlap >= len(block):
                return None
            return block.from_step(known)

    def forget(self, simulation: int) -> None:
        """The simulation starts anew. What was trained on stays entered: it was."""
        with self._lock:
            self._record(simulation).checksums = []

    def complete(self, simulation: int) -> bool:
        """Whether every step of the simulation was received."""
        with self._lock:
            return len(self._record(simulation).checksums) == self.stored_steps

    def train(self, simulation: NDArray[np.int64], first_step: NDArray[np.int64]) -> None:
        """Enter samples [n] that an optimiser step has used."""
        with self._lock:
            for id, step in zip(simulation.tolist(), first_step.tolist(), strict=True):
                trained = self._record(id).trained
                self.unique_trained += not trained[step]
                trained[step] = True

    def count(self) -> tuple[int, int]:
        """How many different samples for training arrived, and how many of them are untrained."""
        with self._lock:
            received = untrained = 0
            for id, record in self._records.items():
                samples = max(len(record.checksums) - self.window + 1, 0) if id >= 0 else 0
                received += samples
                untrained += samples - int(record.trained[:samples].sum())
            return received, untrained

    def _record(self, simulation: int) -> _Record:
        if simulation not in self._records:
            self._records[simulation] = _Record(np.zeros(self.samples_per_simulation, dtype=bool))
        return self._records[simulation]
