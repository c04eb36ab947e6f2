"""The ledger: which steps were received and which samples trained on, so that each counts once.

Delivery is at least once: a simulation whose solver died runs again from its first step. The ledger
keeps the checksum of every step received, so that a repeated step is dropped, and a step that came
out different is noticed. It is used by the receive thread and the training thread.

In a run the ledger alone decides whether a simulation is complete, which it is once every stored
step was received. Reception asks the ledger, then tells the store to mark the simulation, or the
validation to keep the trajectory. What an earlier process has left (a checkpoint, files of held-out
trajectories) is entered here first; the ensemble then skips the simulations that are complete.
"""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.simulation.block import Block
from framework.study.ids import is_held_out


class ReplayMismatchError(Exception):
    """A simulation that ran again differs from what was received from it before."""


@dataclass
class _Entry:
    """One simulation's entry."""

    trained: NDArray[np.bool_]  # [samples of a simulation]
    checksums: NDArray[np.uint32]  # [stored steps], of which the first `received` are set
    received: int = 0


class Ledger:
    """The entries of all simulations; held-out ones are never trained on."""

    def __init__(self, stored_steps: int, window: int) -> None:
        """`stored_steps` of a simulation, of which every `window` consecutive ones are a sample."""
        self.stored_steps = stored_steps
        self.window = window
        self.samples_per_simulation = stored_steps - window + 1
        self.unique_trained = 0
        self._entries: dict[int, _Entry] = {}
        self._lock = threading.Lock()

    def receive(self, block: Block) -> Block | None:
        """Enter a block; return the part of it that is new, or None if none is.

        Raises ReplayMismatchError, entering nothing, if a step received before has changed, and
        ValueError if the block leaves a gap.
        """
        with self._lock:
            entry = self._entry(block.simulation)
            known = entry.received
            if block.first_step > known:
                raise ValueError(
                    f"block of simulation {block.simulation} starts at step {block.first_step}, "
                    f"but the next one is {known}"
                )
            stop = block.first_step + len(block)
            repeated = entry.checksums[block.first_step : min(known, stop)]
            if not np.array_equal(block.checksums[: len(repeated)], repeated):
                raise ReplayMismatchError
            if stop <= known:
                return None
            entry.checksums[known:stop] = block.checksums[len(repeated) :]
            entry.received = stop
            return block.from_step(known)

    def forget(self, simulation: int) -> None:
        """Forget the steps of a simulation that starts anew; what was trained on stays entered."""
        with self._lock:
            self._entry(simulation).received = 0

    def under_way(self) -> set[int]:
        """Return the simulations of which some steps, but not all, were received."""
        with self._lock:
            entries = self._entries.items()
            return {id for id, entry in entries if 0 < entry.received < self.stored_steps}

    def complete(self, simulation: int) -> bool:
        """Return whether every step of the simulation was received."""
        with self._lock:
            return self._entry(simulation).received == self.stored_steps

    def completed(self) -> set[int]:
        """Return the simulations of which every step was received, held-out ones too."""
        with self._lock:
            return {
                id for id, entry in self._entries.items() if entry.received == self.stored_steps
            }

    def train(self, simulation: NDArray[np.int64], first_step: NDArray[np.int64]) -> None:
        """Enter the samples [n] that an optimiser step has used."""
        with self._lock:
            for id, step in zip(simulation.tolist(), first_step.tolist(), strict=True):
                trained = self._entry(id).trained
                self.unique_trained += not trained[step]
                trained[step] = True

    def count(self) -> tuple[int, int]:
        """Count the different samples for training that arrived, and how many are untrained."""
        with self._lock:
            received = untrained = 0
            for id, entry in self._entries.items():
                samples = 0 if is_held_out(id) else max(entry.received - self.window + 1, 0)
                received += samples
                untrained += samples - int(entry.trained[:samples].sum())
            return received, untrained

    def state(self) -> dict[str, Any]:
        """Return the entries as arrays, one row per simulation, for `load_state`."""
        with self._lock:
            entries = list(self._entries.values())
            rows, steps = len(entries), self.stored_steps
            return {
                "simulations": np.fromiter(self._entries, dtype=np.int64, count=rows),
                "received": np.array([entry.received for entry in entries], dtype=np.int64),
                "checksums": _stack([entry.checksums for entry in entries], steps, np.uint32),
                "trained": _stack(
                    [entry.trained for entry in entries], self.samples_per_simulation, np.bool_
                ),
            }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        keys = ("simulations", "trained", "checksums", "received")
        columns = (np.asarray(state[key]).copy() for key in keys)
        with self._lock:
            self._entries = {
                int(id): _Entry(trained, checksums, int(received))
                for id, trained, checksums, received in zip(*columns, strict=True)
            }
            self.unique_trained = sum(int(item.trained.sum()) for item in self._entries.values())

    def _entry(self, simulation: int) -> _Entry:
        if simulation not in self._entries:
            self._entries[simulation] = _Entry(
                np.zeros(self.samples_per_simulation, dtype=bool),
                np.zeros(self.stored_steps, dtype=np.uint32),
            )
        return self._entries[simulation]


def _stack(rows: list[NDArray[Any]], width: int, dtype: type[np.generic]) -> NDArray[np.generic]:
    return np.array(rows, dtype=dtype).reshape(len(rows), width)
