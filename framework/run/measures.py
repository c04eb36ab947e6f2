"""What a run has done so far, as numbers: its summary, and the rows of its history.

Counters go on over resumes. All may be read from any thread.
"""

import math
import time
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from framework.pictures.coverage import DesignPoints
from framework.run.usage import system_figures
from framework.simulation.breeding import BredDesign
from framework.simulation.ensemble import Ensemble
from framework.store.owner import Store
from framework.stream.buffer import Buffer
from framework.stream.ledger import Ledger
from framework.stream.reception import Reception
from framework.stream.stored import StoredSamples
from framework.study.design import Design
from framework.study.sections import kept_steps
from framework.study.study import Study
from framework.tracking.history import Record
from framework.tracking.recorder import Tracking
from framework.training.checkpoint import Checkpoints
from framework.training.trainer import Trainer
from framework.training.validation import Validation


class Figures:
    """Reads the parts of a run; changes none of them."""

    def __init__(
        self,
        study: Study,
        design: Design,
        store: Store | None,
        ensemble: Ensemble,
        ledger: Ledger,
        buffer: Buffer | StoredSamples,
        reception: Reception,
        trainer: Trainer,
        validation: Validation,
        checkpoints: Checkpoints,
    ) -> None:
        self.study = study
        self._design = design
        self._store = store
        self._ensemble = ensemble
        self._ledger = ledger
        self._buffer = buffer
        self._reception = reception
        self._trainer = trainer
        self._validation = validation
        self._checkpoints = checkpoints
        self._started = time.monotonic()
        self._ended: float | None = None
        self._trained: float | None = None
        self._cost: dict[str, int] | None = None
        # Up to the checkpoint that the run was resumed from.
        self._before = {"seconds": 0.0, "streaming": 0.0, "idle": 0.0, "solvers_waited": 0.0}
        # What training had done when reception was last seen going on.
        self._simulating = {"steps": 0, "seconds": 0.0, "waited": 0.0}
        self._last: dict[str, float] = {}
        self._kept_steps = len(kept_steps(study.store.keep, ledger.stored_steps))

    def after_step(self) -> None:
        """Called by the training loop after every step."""
        if isinstance(self._buffer, Buffer) and not self._reception.over.is_set():
            trainer = self._trainer
            self._simulating["steps"] += 1
            self._simulating["seconds"] = trainer.seconds
            self._simulating["waited"] = trainer.waited

    def trained(self) -> None:
        """Called when the training loop has ended; what follows is scoring and writing."""
        self._trained = self.seconds

    def count_cost(self) -> None:
        """What an optimiser step costs; takes about as long as one."""
        surrogate, batch_size = self._trainer.surrogate, self.study.training.batch_size
        with suppress(torch.OutOfMemoryError):  # of a GPU that training itself has just fitted
            self._cost = vars(surrogate.cost(batch_size))

    def end(self) -> None:
        """The run has ended: its clock stands still."""
        self._ended = self.seconds

    @property
    def seconds(self) -> float:
        """Of the run, without the time between an interruption and its resumption."""
        if self._ended is not None:
            return self._ended
        return self._before["seconds"] + time.monotonic() - self._started

    def state(self) -> dict[str, Any]:
        """The counters, for `load_state`."""
        return {"before": self._totals(), "simulating": dict(self._simulating)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on counting from what `state` returned."""
        self._before, self._simulating = state["before"], state["simulating"]

    def _totals(self) -> dict[str, float]:
        before = self._before
        return {
            "seconds": self.seconds,
            "streaming": before["streaming"] + self._ensemble.seconds,
            "idle": before["idle"] + self._ensemble.idle,
            "solvers_waited": before["solvers_waited"] + self._ensemble.solvers_waited,
        }

    def received(self) -> tuple[int, int]:
        """How many different samples there are to train on, and how many are untrained."""
        if isinstance(self._buffer, StoredSamples):
            return self._buffer.samples, self._buffer.samples - self._ledger.unique_trained
        return self._ledger.count()

    def source(self) -> dict[str, Any] | None:
        """The identity of the store that is trained from, if it is not a stream."""
        return self._buffer.identity if isinstance(self._buffer, StoredSamples) else None

    def completed(self) -> int:
        """Training simulations that have arrived whole."""
        return sum(id >= 0 for id in self._ensemble.completed.copy())

    def stored(self) -> int:
        """Simulations of this study that are complete in the store."""
        return self._store.count(below=self.study.design.simulations) if self._store else 0

    def waits(self) -> dict[str, float]:
        """The shares of the time while simulating that each waited: the solvers to hand over what
        they had computed, training for a batch, transport for something to carry."""
        totals, simulating = self._totals(), self._simulating
        actors = self.study.ensemble.actors
        return {
            "solvers": _ratio(totals["solvers_waited"], actors * totals["streaming"]),
            "training": _ratio(simulating["waited"], simulating["seconds"]),
            "transport": _ratio(totals["idle"], totals["streaming"]),
        }

    def record(self) -> Record:
        """A row of the history; rates are those since the row before."""
        row = {**self.counts(), **self._rates(), **self._news(), **system_figures()}
        return {key: float(value) for key, value in row.items() if math.isfinite(value)}

    def counts(self) -> Record:
        """What was done up to this moment."""
        trainer = self._trainer
        received, _ = self.received()
        counts: Record = {
            "seconds": self.seconds,
            "step": trainer.step,
            "progress": min(trainer.progress, 1.0),
            "samples/received": received,
            "samples/unique_trained": self._ledger.unique_trained,
            "samples/drawn": trainer.drawn,
            "buffer/held": len(self._buffer),
            "buffer/capacity": self.study.buffer.capacity,
        }
        if not self.source():
            counts |= {
                "simulations/completed": self.completed(),
                "simulations/requested": self.study.design.simulations,
                "simulations/quarantined": len(self._ensemble.quarantined),
                "simulations/stored": self.stored(),
            }
        if trainer.step:
            counts["training/loss"] = float(trainer.loss)
            counts["training/learning_rate"] = trainer.learning_rate()
        return counts

    def _news(self) -> Record:
        """Of a validation or a checkpoint since the row before."""
        row: Record = {}
        latest, seconds = self._validation.latest, self._checkpoints.seconds
        if latest and latest["step"] != self._last.get("validation"):
            row["validation/step"] = self._last["validation"] = latest["step"]
            row["validation/relative_l2"] = latest["relative_l2"]["mean"]
            row["validation/nrmse"] = latest["nrmse"]
            row["validation/max"] = latest["max"]
        if seconds != self._last.get("checkpoint", 0.0):
            row["checkpoint/seconds"] = seconds - self._last.get("checkpoint", 0.0)
            self._last["checkpoint"] = seconds
        return row

    def _rates(self) -> Record:
        now = {
            **self._totals(),
            "drawn": float(self._trainer.drawn),
            "waited": self._trainer.waited,
            "trained": self._trainer.seconds,
        }
        before, self._last = self._last, {**self._last, **now}
        since = {key: now[key] - before.get(key, now[key]) for key in now}
        rates = {"training/samples_per_second": _ratio(since["drawn"], since["seconds"])}
        if not self._reception.over.is_set():
            actors = self.study.ensemble.actors
            rates |= {
                "wait/solvers": _ratio(since["solvers_waited"], actors * since["seconds"]),
                "wait/transport": _ratio(since["idle"], since["seconds"]),
            }
        rates["wait/training"] = _ratio(since["waited"], since["trained"])
        return {key: value if "per" in key else min(value, 1.0) for key, value in rates.items()}

    def points(self) -> DesignPoints:
        """The parameters of the simulations, by what became of them."""
        design = self._design
        ended = sorted(self._ensemble.completed.copy())
        quarantined = [item.simulation.id for item in self._ensemble.quarantined]
        groups = ([id for id in ended if id >= 0], quarantined, [id for id in ended if id < 0])
        return DesignPoints(
            design.space,
            *(
                np.array([design.simulation(id).parameters for id in group]).reshape(
                    -1, len(design.space)
                )
                for group in groups
            ),
        )

    def _breeding(self) -> dict[str, Any] | None:
        """What was decided of bred simulations, and the share of the run that it took."""
        if not isinstance(self._design, BredDesign):
            return None
        counts = self._design.counts()
        return {**counts, "share": _ratio(counts["seconds"], self.seconds)}

    def summary(self, status: str, directory: str, tracking: Tracking | None) -> dict[str, Any]:
        """The run as plain numbers for JSON.

        `samples` counts different samples, but for `drawn`; `produced` is what the solvers
        delivered, `received` what entered the buffer.
        """
        trainer, quarantined = self._trainer, self._ensemble.quarantined
        names = trainer.surrogate.problem.names
        produced, untrained = self.received()
        registered = tracking.registered if tracking else None
        summary = {
            "run_dir": directory,
            "status": status,
            "source": self.source(),
            "store": self._store.path if self._store else None,
            "simulations": {
                "requested": self.study.design.simulations,
                "completed": self.completed(),
                "quarantined": sum(item.simulation.id >= 0 for item in quarantined),
            },
            "quarantined": [item.describe(names) for item in quarantined],
            "samples": {
                "produced": produced,
                # A simulation that had to start anew was put twice.
                "received": min(self._buffer.received, produced),
                "unique_trained": self._ledger.unique_trained,
                "untrained": untrained,
                "drawn": trainer.drawn,
                "stored": self.stored() * self._kept_steps,
            },
            "training": {
                "steps": trainer.step,
                "steps_while_simulating": self._simulating["steps"],
                "samples_per_second": _ratio(trainer.drawn, trainer.seconds),
                "wait_fraction": _ratio(trainer.waited, trainer.seconds),
                "loss": float(trainer.loss),
                # Of training steps and of waiting for them, since the first batch; and of the run
                # until they were done, with the wait for the first.
                "seconds": trainer.seconds,
                "seconds_to_end": self._trained if self._trained is not None else self.seconds,
                "device": str(trainer.device),
            },
            "surrogate": self._cost,  # of a step: see `surrogates.cost.Cost`
            "wait": self.waits(),
            "validation": self._validation.latest,
            "checkpoint": {"count": self._checkpoints.count, "seconds": self._checkpoints.seconds},
            "breeding": self._breeding(),
            "model": registered,
            "mlflow": tracking.summary() if tracking else None,
            "seconds": self.seconds,
        }
        return {key: _without_nan(value) for key, value in summary.items()}


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
