"""Which steps were received and which samples were trained on: what makes each count once.

Where simulations are bred (breeding.py), it also keeps what was decided of each before it ran, so
that it has the same parameters whenever it runs again.

Delivery is at least once: a simulation whose solver died runs again from its first step. The
ledger keeps the checksum of every step received, so that a repeated step is dropped, and one that
came out different is noticed. It is used by the receive thread and the training thread.
"""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.simulation.block import Block


class ReplayMismatchError(Exception):
    """A simulation that ran again differs from what was received of it before."""


@dataclass(frozen=True)
class Decision:
    """What a simulation was given before it ran."""

    parameters: NDArray[np.float64]  # [p]
    parent: int | None  # the simulation that it was bred from, if it was bred
    weight: float = 1.0  # of the losses of its samples


@dataclass
class _Record:
    """One simulation's entry."""

    trained: NDArray[np.bool_]  # [samples of a simulation]
    checksums: NDArray[np.uint32]  # [stored steps], of which the first `received` are set
    received: int = 0


class Ledger:
    """The entries of all simulations; held-out ones (negative ids) are never trained on."""

    def __init__(self, stored_steps: int, window: int) -> None:
        """`stored_steps` of a simulation, of which every `window` consecutive ones are a sample."""
        self.stored_steps = stored_steps
        self.window = window
        self.samples_per_simulation = stored_steps - window + 1
        self.unique_trained = 0
        self._records: dict[int, _Record] = {}
        self._decisions: dict[int, Decision] = {}
        self._lock = threading.Lock()

    def receive(self, block: Block) -> Block | None:
        """Enter a block; return the part of it that is new, or None.

        Raises ReplayMismatchError, entering nothing, if a step received before has changed, and
        ValueError if the block leaves a gap.
        """
        with self._lock:
            record = self._record(block.simulation)
            known = record.received
            if block.first_step > known:
                raise ValueError(
                    f"block of simulation {block.simulation} starts at step {block.first_step}, "
                    f"but the next one is {known}"
                )
            stop = block.first_step + len(block)
            repeated = record.checksums[block.first_step : min(known, stop)]
            if not np.array_equal(block.checksums[: len(repeated)], repeated):
                raise ReplayMismatchError
            if stop <= known:
                return None
            record.checksums[known:stop] = block.checksums[len(repeated) :]
            record.received = stop
            return block.from_step(known)

    def forget(self, simulation: int) -> None:
        """The simulation starts anew. What was trained on stays entered: it was."""
        with self._lock:
            self._record(simulation).received = 0

    def complete(self, simulation: int) -> bool:
        """Whether every step of the simulation was received."""
        with self._lock:
            return self._record(simulation).received == self.stored_steps

    def completed(self) -> set[int]:
        """The simulations of which every step was received, held-out ones too."""
        with self._lock:
            return {
                id for id, record in self._records.items() if record.received == self.stored_steps
            }

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
                samples = max(record.received - self.window + 1, 0) if id >= 0 else 0
                received += samples
                untrained += samples - int(record.trained[:samples].sum())
            return received, untrained

    def decide(self, simulation: int, decision: Decision) -> None:
        """Enter what a simulation will run with. Raises ValueError if that was decided before."""
        with self._lock:
            if simulation in self._decisions:
                raise ValueError(f"simulation {simulation} was decided before")
            self._decisions[simulation] = decision

    def decisions(self) -> dict[int, Decision]:
        """What was decided so far, by simulation."""
        with self._lock:
            return dict(self._decisions)

    def decided(self, simulation: NDArray[np.int64]) -> list[Decision]:
        """What was decided of simulations [n]. Raises KeyError if that is nothing."""
        with self._lock:
            return [self._decisions[id] for id in simulation.tolist()]

    def decision(self, simulation: int) -> Decision | None:
        """What was decided of a simulation, if anything was."""
        with self._lock:
            return self._decisions.get(simulation)

    def state(self) -> dict[str, Any]:
        """The entries as arrays, one row a simulation, for `load_state`."""
        with self._lock:
            records = list(self._records.values())
            rows, steps = len(records), self.stored_steps
            return {
                "simulations": np.fromiter(self._records, dtype=np.int64, count=rows),
                "received": np.array([record.received for record in records], dtype=np.int64),
                "checksums": _stack([record.checksums for record in records], steps, np.uint32),
                "trained": _stack(
                    [record.trained for record in records], self.samples_per_simulation, np.bool_
                ),
                "decisions": [
                    {
                        "simulation": id,
                        "parameters": item.parameters,
                        "parent": item.parent,
                        "weight": item.weight,
                    }
                    for id, item in self._decisions.items()
                ],
            }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned; what was decided since then stays entered."""
        keys = ("simulations", "trained", "checksums", "received")
        columns = (np.array(state[key]) for key in keys)
        with self._lock:
            for item in state["decisions"]:
                self._decisions[item["simulation"]] = Decision(
                    np.array(item["parameters"]), item["parent"], item["weight"]
                )
            self._records = {
                int(id): _Record(trained, checksums, int(received))
                for id, trained, checksums, received in zip(*columns, strict=True)
            }
            self.unique_trained = sum(int(item.trained.sum()) for item in self._records.values())

    def _record(self, simulation: int) -> _Record:
        if simulation not in self._records:
            self._records[simulation] = _Record(
                np.zeros(self.samples_per_simulation, dtype=bool),
                np.zeros(self.stored_steps, dtype=np.uint32),
            )
        return self._records[simulation]


def _stack(rows: list[NDArray[Any]], width: int, dtype: type[np.generic]) -> NDArray[np.generic]:
    return np.array(rows, dtype=dtype).reshape(len(rows), width)
