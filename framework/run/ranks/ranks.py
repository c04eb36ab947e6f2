"""The training ranks of a run, as the run sees them; and the one that trains in this process."""

import time
from pathlib import Path
from typing import Any, Protocol

from framework.errors import told
from framework.run.ranks.figures import Figures
from framework.run.ranks.keeper import Told
from framework.run.ranks.planning import Planner
from framework.run.ranks.rank import Keeping, Rank
from framework.run.saving import Saver
from framework.study.ids import is_held_out
from framework.threads import Background
from framework.training.checkpoint import Found
from surrogates.base import Surrogate


class Ranks(Protocol):
    """One rank or several.

    A run calls `begin`, `train`, `save` if it can be gone on from, and `end`, in this order; `stop`
    and what reads may be called from any thread at any time.
    """

    @property
    def surrogate(self) -> Surrogate:
        """The surrogate that is trained; once training has ended, with its last weights."""

    @property
    def device(self) -> str:
        """What is trained on."""

    @property
    def source(self) -> dict[str, Any] | None:
        """The identity of the store that is trained from; None when training from a stream."""

    def begin(self, found: Found | None) -> None:
        """Go on from a checkpoint, or from the beginning. Raises StudyError and DamagedError."""

    def train(self) -> None:
        """Receive and train until the stop. Raises RunError.

        Before an error of reception is raised, a checkpoint is written.
        """

    def stop(self) -> None:
        """Make `train` return soon, between two optimiser steps."""

    def save(self, finished: bool = False) -> None:
        """Write a checkpoint, training having ended. Raises WriteError.

        `finished`: the run has come to its end.
        """

    def end(self) -> None:
        """End the ranks and their solvers."""

    def figures(self) -> Figures:
        """Return the counters of all ranks together."""

    def completed(self) -> set[int]:
        """Return the training simulations that have arrived whole."""


class OneRank(Ranks):
    """The one rank of a run, in this process."""

    def __init__(
        self, rank: Rank, planner: Planner, saver: Saver, told: Told, keeping: Keeping
    ) -> None:
        self._rank = rank
        self._planner = planner
        self._saver = saver
        self._told = told
        self._keeping = keeping
        self._writing: Background | None = None

    @property
    def surrogate(self) -> Surrogate:
        return self._rank.trainer.surrogate

    @property
    def device(self) -> str:
        return str(self._rank.trainer.device)

    @property
    def source(self) -> dict[str, Any] | None:
        return self._rank.source.identity

    def begin(self, found: Found | None) -> None:
        begun = self._rank.begin(found)
        dispenser, (share,) = self._planner.plan(found, [begun])
        self._rank.take(share, dispenser.groups(), self._told, self._keeping)

    def train(self) -> None:
        rank = self._rank
        try:
            rank.train(self._after_step)
        finally:
            rank.end()
        if rank.error is not None:
            with told():
                self.save()
            raise rank.error
        rank.check_loss()

    def stop(self) -> None:
        self._rank.stop()

    def save(self, finished: bool = False) -> None:
        self._written()
        self._rank.check_loss()
        self._write(self._saver.begin(), self._rank.states(finished), finished)

    def end(self) -> None:
        if self._writing:
            self._writing.wait()
        self._rank.end()

    def figures(self) -> Figures:
        return self._rank.figures()

    def completed(self) -> set[int]:
        return {id for id in self._rank.ledger.completed() if not is_held_out(id)}

    def _after_step(self) -> None:
        """Begin a checkpoint, if one is due: training waits only until its content is copied."""
        if not self._saver.due() or not self._written(wait=False):
            return
        self._rank.check_loss()
        began = time.monotonic()
        folder, states = self._saver.begin(), self._rank.states()
        self._writing = Background("checkpoint", lambda: self._write(folder, states))
        self._writing.start()
        self._saver.count_wait(time.monotonic() - began)

    def _write(self, folder: Path, states: dict[str, Any], finished: bool = False) -> None:
        self._saver.publish(folder, self._rank.write(folder, states), finished)

    def _written(self, wait: bool = True) -> bool:
        """Return whether the last checkpoint is written. Raises what has kept it from that."""
        if self._writing is None:
            return True
        if not self._writing.wait(None if wait else 0):
            return False
        self._writing.join()
        self._writing = None
        return True
