"""The rows of a run's history: its counters, and what has changed since the previous row."""

import math

from framework.run.measures import Measures, ratio
from framework.run.usage import system_figures
from framework.tracking.history import Record


class Rows:
    """Makes the rows. `counts` may be called from any thread, `row` from one."""

    def __init__(self, measures: Measures) -> None:
        self._measures = measures
        self._parts = measures.parts
        self._last: dict[str, float] = {}  # values at the previous row

    def row(self) -> Record:
        """Make a row of the history; its rates and shares are those since the previous row."""
        row = {**self.counts(), **self._rates(), **self._news(), **system_figures()}
        return {key: float(value) for key, value in row.items() if math.isfinite(value)}

    def counts(self) -> Record:
        """Return the counters at this moment."""
        parts, measures = self._parts, self._measures
        rank, trainer = parts.rank, parts.rank.trainer
        received, _ = measures.samples()
        counts: Record = {
            "seconds": measures.seconds,
            "step": trainer.optimiser_steps,
            "progress": min(trainer.progress, 1.0),
            "samples/received": received,
            "samples/unique_trained": rank.ledger.unique_trained,
            "samples/drawn": trainer.drawn,
            "buffer/held": len(rank.source),
            "buffer/capacity": parts.study.buffer.capacity,
        }
        if measures.source is None:
            counts |= {
                "simulations/completed": measures.completed(),
                "simulations/requested": parts.study.design.simulations,
                "simulations/quarantined": len(parts.ensemble.quarantined),
                "simulations/stored": measures.stored(),
            }
        if trainer.optimiser_steps:
            counts["training/loss"] = float(trainer.loss)
            counts["training/learning_rate"] = trainer.learning_rate()
        return counts

    def _news(self) -> Record:
        """Return the scores and a checkpoint's seconds, if they are new since the previous row."""
        row: Record = {}
        scores, seconds = self._parts.validation.latest, self._parts.checkpoints.seconds
        if scores and scores.step != self._last.get("validation"):
            row["validation/step"] = self._last["validation"] = scores.step
            row["validation/relative_l2"] = scores.relative_l2.mean
            if scores.last_time is not None:
                row["validation/relative_l2_last_time"] = scores.last_time.mean
            if scores.one_step is not None:
                row["validation/relative_l2_one_step"] = scores.one_step.mean
            row["validation/nrmse"] = scores.nrmse
            row["validation/max"] = scores.max
        if seconds != self._last.get("checkpoint", 0.0):
            row["checkpoint/seconds"] = seconds - self._last.get("checkpoint", 0.0)
            self._last["checkpoint"] = seconds
        return row

    def _rates(self) -> Record:
        """Return samples per second, and the share of the time that each part waited."""
        trainer = self._parts.rank.trainer
        now = {
            **self._measures.totals(),
            "drawn": float(trainer.drawn),
            "redrawn": self._measures.redrawn(),
            "waited": trainer.waited,
            "trained": trainer.seconds,
        }
        before, self._last = self._last, {**self._last, **now}
        since = {key: now[key] - before.get(key, now[key]) for key in now}
        shares = {"wait/training": ratio(since["waited"], since["trained"])}
        if not self._parts.rank.reception.over.is_set():
            actors = self._parts.study.ensemble.actors
            shares["wait/solvers"] = ratio(since["solvers_waited"], actors * since["seconds"])
            shares["wait/transport"] = ratio(since["idle"], since["seconds"])
            if self._measures.source is None:
                again = max(0.0, ratio(since["redrawn"], since["drawn"]))
                shares["wait/redraws"] = min(again, 1.0) * (1 - shares["wait/training"])
        return {
            "training/samples_per_second": ratio(since["drawn"], since["seconds"]),
            **{key: min(share, 1.0) for key, share in shares.items()},
        }
