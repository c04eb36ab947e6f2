"""One training rank: it receives a stream, buffers it and learns from it, in one process.

ensemble --blocks--> Reception --samples--> source (buffer) --batches--> Trainer
                         |                                                  |
                         '--> Ledger: each step and sample counts once <----'
                         '--> FieldStatistics: means and deviations to normalise by
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from framework.errors import DivergedError
from framework.run.assembly import make_ensemble, make_source, trainer_settings
from framework.run.ranks.dealing import states_for
from framework.run.ranks.figures import Figures, Moment, Streamed
from framework.run.ranks.keeper import Told
from framework.run.ranks.planning import Begun, Share
from framework.simulation.dispenser import Groups
from framework.simulation.ensemble import Ensemble
from framework.simulation.solver_actor import Writer
from framework.store.reader import StoreReader
from framework.stream.ledger import Ledger
from framework.stream.reception import Reception
from framework.stream.statistics import FieldStatistics
from framework.stream.stored_blocks import WithStored
from framework.stream.windows import WindowCutter
from framework.study.case import Case
from framework.study.ids import is_held_out
from framework.training.checkpoint import (
    Checkpointed,
    Found,
    load_states,
    rank_file,
    states_of,
    write_states,
)
from framework.training.trainer import Trainer, Weigh, training_device
from framework.training.weights import arrays_of
from surrogates.base import Surrogate

# Optimiser steps between two looks at the loss: on a GPU each look waits for the step to finish.
_CHECK_STEPS = 20


@dataclass(frozen=True)
class Keeping:
    """Where a rank's solvers keep what they compute."""

    writer: Writer | None = None
    store: str | None = None  # the path of the study's store
    programs: Path | None = None  # the folder for what programs print


class Rank:
    """The parts of one rank, and how they are started and stopped together.

    `begin`, `take`, `train` and `end` are called in this order; `stop`, `figures` and `write` may
    be called from any thread.
    """

    def __init__(
        self,
        case: Case,
        surrogate: Surrogate,
        weigh: Weigh | None = None,
        number: int = 0,
    ) -> None:
        """`weigh` is told the losses of every batch, see `Trainer`. Raises StudyError."""
        self.number = number
        self._case = case
        self._study = study = case.study
        self.ledger = Ledger(case.solver.stored_steps, surrogate.window)
        self.source = make_source(case, self.ledger, number)
        self._statistics = FieldStatistics(len(case.solver.fields), surrogate.bundle)
        self._counters = _Counters()
        self._ensemble: Ensemble | None = None
        self._reception: Reception | None = None
        self._cutter = WindowCutter(self.ledger.window)
        self.trainer = Trainer(
            surrogate,
            trainer_settings(study.training),
            training_device(),
            self.source,
            self.ledger,
            weigh,
            normalised=study.training.initial is not None,
        )

    def begin(self, found: Found | None) -> Begun:
        """Go on from a checkpoint, or begin without one. Raises StudyError."""
        ledger, sink = self.ledger, self.source.sink
        if found is not None:
            states = states_for(found, self.number, self._study, sink, self._statistics)
            load_states(self._parts(), states)
        # Held-out trajectories are kept in files: what is not there runs again from its first step.
        for id in filter(is_held_out, ledger.completed() | ledger.under_way()):
            ledger.forget(id)
        over = sink is None or sink.over
        return Begun(frozenset(ledger.completed()), frozenset(ledger.under_way()), over)

    def take(self, share: Share, groups: Groups, told: Told, keeping: Keeping) -> None:
        """Take what the rank is given, and where its work comes from. Raises DamagedError."""
        sink, study = self.source.sink, self._study
        self._told = told
        if share.longer:
            self.trainer.progress = 0.0
        if share.more and sink is not None:
            sink.reopen()
        if share.again and sink is not None:
            sink.clear()  # it is in the store, too
            for id in range(share.again):
                self.ledger.forget(id)
        actors, ranks = study.ensemble.actors, study.training.ranks
        own = actors // ranks + (self.number < actors % ranks)
        self._ensemble = make_ensemble(
            self._case, groups, told, keeping.writer, keeping.programs, own
        )
        blocks = WithStored(self._ensemble)
        if share.stored and keeping.store:
            blocks.add(StoreReader(keeping.store), share.stored, share.run)
        self._reception = Reception(
            blocks,
            self.ledger,
            self.source,
            self._statistics,
            self._cutter,
            told.hold_out,
            lambda last: told.complete(last.simulation, last.parameters),
        )

    @property
    def error(self) -> BaseException | None:
        """What has ended reception early, if anything."""
        return self._reception.error if self._reception else None

    def train(
        self, after_step: Callable[[], None], ask: Callable[[], bool] = lambda: False
    ) -> None:
        """Receive and train until the stop; see `Trainer.train`. Raises DivergedError."""
        for samples in self.source.statistics():
            self._statistics.add(samples)
        assert self._reception is not None
        self._reception.start()

        def count_and_look() -> None:
            self._count()
            steps = self.trainer.optimiser_steps
            if steps % _CHECK_STEPS == 0:
                self.check_loss()
            if self.number == 0 and steps % self._study.validation.every_steps == 0:
                self._told.scorable(arrays_of(self.trainer.surrogate), steps)
            after_step()

        self.trainer.train(self._statistics, count_and_look, ask)
        if self.source.sink is None:
            self._reception.wait()  # for held-out simulations, which training did not wait for

    def stop(self) -> None:
        """Wake whoever waits for samples or for room: the rank ends soon."""
        # The source first: reception then knows that it was cut short.
        self.source.close()
        if self._ensemble:
            self._ensemble.stop()

    def end(self) -> None:
        """Wait until reception has ended, and end the solvers."""
        self.stop()
        if self._reception and self._ensemble:
            self._reception.wait()
            self._ensemble.close()

    def check_loss(self) -> None:
        """Raise DivergedError if the loss is not finite."""
        trainer = self.trainer
        if not torch.isfinite(trainer.loss):
            raise DivergedError(
                f"training has diverged: the loss is {float(trainer.loss)} at optimiser step "
                f"{trainer.optimiser_steps}; lower training.learning_rate "
                f"({self._study.training.learning_rate:g})"
            )

    def states(self, finished: bool = False) -> dict[str, Any]:
        """Return copies of all that a checkpoint keeps of the rank; call between optimiser steps.

        `finished`: the run has come to its end, so that what the buffer still holds is not needed.
        """
        with self.source.lock:
            if finished and self.source.sink is not None:
                self.source.sink.clear()
            self._counters.streamed = self._streamed()
            return states_of(self._parts())

    def write(self, folder: Path, states: dict[str, Any]) -> dict[str, int]:
        """Write the rank's file of a checkpoint; return its checksum by its name.

        May be called from any thread. Raises WriteError.
        """
        name = rank_file(self.number)
        return {name: write_states(folder / name, states)}

    def figures(self) -> Figures:
        """Return the counters at this moment; may be called from any thread."""
        trainer, source = self.trainer, self.source
        produced, untrained = source.counts()
        return Figures(
            steps=trainer.optimiser_steps,
            drawn=trainer.drawn,
            progress=min(trainer.progress, 1.0),
            loss=float(trainer.loss),
            learning_rate=trainer.learning_rate(),
            seconds=trainer.seconds,
            waited=trainer.waited,
            held=len(source),
            received=source.received,
            produced=produced,
            untrained=untrained,
            unique_trained=self.ledger.unique_trained,
            receiving=self._receiving(),
            streamed=self._streamed(),
            while_receiving=self._counters.moment,
        )

    def _parts(self) -> dict[str, Checkpointed]:
        """Return the parts that a checkpoint keeps, by their names there."""
        return {
            "trainer": self.trainer,
            "statistics": self._statistics,
            "source": self.source,
            "tails": self._cutter,
            "ledger": self.ledger,
            "counters": self._counters,
        }

    def _count(self) -> None:
        """Note the totals of training, as long as reception goes on."""
        trainer = self.trainer
        if self.source.sink is not None and self._receiving():
            self._counters.moment = Moment(
                self._counters.moment.steps + 1,
                trainer.seconds,
                trainer.waited,
                trainer.drawn,
                self.source.received,
            )

    def _receiving(self) -> bool:
        return self._reception is None or not self._reception.over.is_set()

    def _streamed(self) -> Streamed:
        before, now = self._counters.before, self._ensemble
        if now is None:
            return before
        return Streamed(
            before.seconds + now.seconds,
            before.idle + now.idle,
            before.solvers_waited + now.solvers_waited,
        )


def be_deterministic() -> None:
    """Let torch compute the same bits every time."""
    # cuBLAS needs this for it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


@dataclass
class _Counters:
    """Counters of a rank that no part of it keeps."""

    moment: Moment = field(default_factory=Moment)
    before: Streamed = field(default_factory=Streamed)  # in earlier processes
    streamed: Streamed = field(default_factory=Streamed)  # until the checkpoint

    def state(self) -> dict[str, Any]:
        return {"moment": asdict(self.moment), "streamed": asdict(self.streamed)}

    def load_state(self, state: dict[str, Any]) -> None:
        self.moment = Moment(**state["moment"])
        self.before = Streamed(**state["streamed"])
