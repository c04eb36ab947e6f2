"""The rows of a run's history: its counters, and what has changed since the previous row."""

import math

from framework.run.measures import Measures, ratio, redrawn
from framework.run.ranks.figures import Figures
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
        figures = self._measures.ranks.figures()
        rates = self._rates(figures)
        row = {**self._counts(figures), **rates, **self._news(), **system_figures()}
        return {key: float(value) for key, value in row.items() if math.isfinite(value)}

    def counts(self) -> Record:
        """Return the counters at this moment."""
        return self._counts(self._measures.ranks.figures())

    def _counts(self, figures: Figures) -> Record:
        parts, measures = self._parts, self._measures
        study = parts.study
        counts: Record = {
            "seconds": measures.clock.seconds,
            "step": figures.steps,
            "progress": figures.progress,
            "samples/received": figures.produced,
            "samples/unique_trained": figures.unique_trained,
            "samples/drawn": figures.drawn,
            "buffer/held": figures.held,
            "buffer/capacity": study.buffer.capacity * study.training.ranks,
        }
        if measures.source is None:
            counts |= {
                "simulations/completed": len(measures.ranks.completed()),
                "simulations/requested": study.design.simulations,
                "simulations/quarantined": len(parts.quarantine.items),
                "simulations/stored": measures.stored(),
            }
        if figures.steps:
            counts["training/loss"] = figures.loss
            counts["training/learning_rate"] = figures.learning_rate
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

    def _rates(self, figures: Figures) -> Record:
        """Return samples per second, and the share of the time that each part waited."""
        streamed, study = figures.streamed, self._parts.study
        now = {
            "seconds": self._measures.clock.seconds,
            "idle": streamed.idle,
            "solvers_waited": streamed.solvers_waited,
            "drawn": float(figures.drawn),
            "redrawn": redrawn(study.buffer, figures.received, figures.drawn),
            "waited": figures.waited,
            "trained": figures.seconds,
        }
        before, self._last = self._last, {**self._last, **now}
        since = {key: now[key] - before.get(key, now[key]) for key in now}
        shares = {"wait/training": ratio(since["waited"], since["trained"])}
        if figures.receiving:
            actors = study.ensemble.actors
            shares["wait/solvers"] = ratio(since["solvers_waited"], actors * since["seconds"])
            shares["wait/transport"] = ratio(since["idle"], since["seconds"])
            if self._measures.source is None:
                again = max(0.0, ratio(since["redrawn"], since["drawn"]))
                shares["wait/redraws"] = min(again, 1.0) * (1 - shares["wait/training"])
        return {
            "training/samples_per_second": ratio(since["drawn"], since["seconds"]),
            **{key: min(share, 1.0) for key, share in shares.items()},
        }
