"""Writes the checkpoints of a run: what its ranks and the run itself need to go on."""

from collections.abc import Mapping
from pathlib import Path

from framework.run.parts import Parts
from framework.training.checkpoint import (
    RUN,
    Checkpointed,
    Found,
    load_states,
    states_of,
    write_states,
)


class Saver:
    """Makes checkpoints of the files that ranks write, and of the states of the run's own parts."""

    def __init__(self, parts: Parts, planner: Checkpointed) -> None:
        self._checkpoints = parts.checkpoints
        self._store = parts.store
        bred: dict[str, Checkpointed] = {"breeding": parts.breeding} if parts.breeding else {}
        self._parts: dict[str, Checkpointed] = {
            "checkpoints": parts.checkpoints,
            "clock": parts.clock,
            "quarantine": parts.quarantine,
            "planner": planner,
            **bred,
        }

    def find(self) -> Found | None:
        """Let the run's own parts go on from the last checkpoint; return it, if there is one.

        Raises StudyError and DamagedError.
        """
        found = self._checkpoints.find()
        if found is not None:
            load_states(self._parts, found.read(RUN))
        return found

    def due(self) -> bool:
        """Return whether it is time for a checkpoint."""
        return self._checkpoints.due()

    def begin(self) -> Path:
        """Return an empty folder for the files of the ranks. Raises WriteError."""
        return self._checkpoints.begin()

    def publish(self, folder: Path, checksums: Mapping[str, int], finished: bool = False) -> None:
        """Make a folder with the files of all ranks the last checkpoint. Raises WriteError.

        `checksums`: of these files. `finished`: the run has come to its end.
        """
        if self._store:
            # Otherwise what the ledgers call received might never be stored.
            self._store.flush()
        own = write_states(folder / RUN, states_of(self._parts))
        self._checkpoints.publish(folder, {**checksums, RUN: own}, finished)

    def count_wait(self, seconds: float) -> None:
        """Count seconds that training stood still for a checkpoint."""
        self._checkpoints.seconds += seconds
