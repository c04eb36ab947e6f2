"""One training rank: it receives a stream, buffers it and learns from it, in one process.

ensemble --blocks--> Reception --samples--> source (buffer) --batches--> Trainer
                         |                                                  |
                         '--> Ledger: each step and sample counts once <----'
                         '--> FieldStatistics: means and deviations to normalise by
"""

from collections.abc import Callable

from framework.run.assembly import make_source, trainer_settings
from framework.simulation.block import Block
from framework.stream.ledger import Ledger
from framework.stream.reception import Blocks, Reception
from framework.stream.source import Source
from framework.stream.statistics import FieldStatistics
from framework.stream.stored_blocks import WithStored
from framework.study.case import Case
from framework.training.checkpoint import Checkpointed
from framework.training.trainer import Trainer, Weigh, training_device
from surrogates.base import Surrogate


class Rank:
    """The parts of one rank, and how they are started and stopped together."""

    ledger: Ledger
    source: Source
    statistics: FieldStatistics
    trainer: Trainer
    # Once `receive_from` was called:
    stored: WithStored
    reception: Reception

    def __init__(self, case: Case, surrogate: Surrogate, weigh: Weigh | None = None) -> None:
        """`weigh` is told the losses of every batch, see `Trainer`. Raises StudyError."""
        self.ledger = Ledger(case.solver.stored_steps, surrogate.window)
        self.source = make_source(case, self.ledger)
        self.statistics = FieldStatistics(len(case.solver.fields), surrogate.bundle)
        self.trainer = Trainer(
            surrogate,
            trainer_settings(case.study.training),
            training_device(),
            self.source,
            self.ledger,
            weigh,
            normalised=case.study.training.initial is not None,
        )

    def receive_from(
        self,
        ensemble: Blocks,
        hold_out: Callable[[Block, bool], None],
        complete: Callable[[Block], None],
    ) -> None:
        """Set where blocks come from and where held-out and last blocks go; call before `train`."""
        self.stored = WithStored(ensemble)
        self.reception = Reception(
            self.stored, self.ledger, self.source, self.statistics, hold_out, complete
        )

    def checkpointed(self) -> dict[str, Checkpointed]:
        """Return the parts that a checkpoint keeps, by their names there."""
        return {
            "trainer": self.trainer,
            "statistics": self.statistics,
            "source": self.source,
            "reception": self.reception,
            "ledger": self.ledger,
            "stored": self.stored,
        }

    def train(self, after_step: Callable[[], None]) -> None:
        """Receive and train until the stop; `after_step` is called after every optimiser step."""
        for samples in self.source.statistics():
            self.statistics.add(samples)
        self.reception.start()
        self.trainer.train(self.statistics, after_step)

    def close(self) -> None:
        """Wake whoever waits for samples or for room: the rank ends soon."""
        self.source.close()
