"""One run: wires the parts, starts and ends them, and says what came of it.

    design --simulations--> solver actors --blocks--> receive thread --samples--> buffer
                               |                        |                           | batches
                  steps, then  v      held-out blocks   v                           v
                             store   Ray task <-weights- validation <-after steps- training loop
                               ^                                                    |
                               '--- commits --- receive thread        checkpoints, model, history

    who waits             for whom                                            until
    a solver actor        the receive thread, with CREDIT messages ready      one is drawn
                          its own write to the store                          it is written
    the receive thread    the buffer                                          a place is free
    the training loop     the buffer                                          a batch is permitted
                          a checkpoint, every now and then                    it is written
    validation, commits,  nobody; and nobody for them, but at the end of a run
    history, tracking

This process holds the receive thread, the buffer and the training loop; solvers and scoring have
processes of their own. Whoever fails closes the buffer, which wakes the other side: the receive
thread's error is raised here once the training loop has returned. An interrupt closes it, too; the
loop then ends between two steps, and what is left is kept in a checkpoint. However a run ends, the
weights and the summary of what was done are written.
"""

import csv
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from framework.errors import DivergedError, RunError
from framework.files import writing
from framework.pictures.errors import Comparison
from framework.pictures.run import draw_pictures
from framework.report.display import Display
from framework.report.summary import Summary
from framework.run.assembly import make_batches, make_breeding, make_ensemble, open_store
from framework.run.folder import RunFolder
from framework.run.interrupt import Interrupts
from framework.run.measures import Measures, Parts
from framework.run.outcome import design_points, summarised
from framework.run.rows import Rows
from framework.simulation.block import Block
from framework.simulation.cluster import check_gpus, ray_for
from framework.simulation.ensemble import Ensemble, Quarantined
from framework.stream.ledger import Ledger
from framework.stream.reception import FieldStatistics, Reception
from framework.stream.stored import StoredSamples
from framework.study.case import Case
from framework.study.design import Design
from framework.study.identity import identity, study_hash
from framework.study.study import Study
from framework.tracking.history import History
from framework.tracking.recorder import Tracking
from framework.tracking.uri import check_uri
from framework.training.checkpoint import Checkpointed, Checkpoints
from framework.training.model import save_model
from framework.training.surrogate import make_surrogate
from framework.training.trainer import Trainer
from framework.training.validation import Validation

# Optimiser steps between two looks at the loss: on a GPU each look waits for the step to finish.
_CHECK_STEPS = 20
# Seconds for what is still to be sent to MLflow; an interrupt has to end soon.
PATIENCE, HURRY = 60.0, 5.0


def train(case: Case) -> Summary:
    """Simulate, stream and train as the study says.

    Raises StudyError before Ray is started, and RunError when the run cannot be finished.
    """
    run = Run(case)
    run.train()
    return run.summary()


def resume(directory: str | Path) -> Summary:
    """Go on with an interrupted run; of one that is done, return the summary.

    Raises StudyError and RunError as `train` does.
    """
    folder = RunFolder.find(Path(directory))
    study = Study.load(folder.study)
    if finished := folder.finished():
        send_what_is_left(study, folder)
        return finished
    run = Run(Case(study, folder.study), folder)
    run.train()
    return run.summary()


def send_what_is_left(study: Study, folder: RunFolder) -> None:
    """Send to MLflow what an earlier process of a run could not."""
    Tracking(study.tracking, folder.path, folder.path.name).close(PATIENCE)


class Run:
    """One training run, in a folder of its own under runs/."""

    def __init__(self, case: Case, folder: RunFolder | None = None, pictures: bool = True) -> None:
        """`folder`: of an earlier process, whose run is to go on. `pictures`: whether to draw any.

        Checks everything that can be checked before anything starts; raises StudyError, and
        RunError where a folder cannot be made.
        """
        self.case = case
        self.study = study = case.study
        self._status = "new"
        self._interrupted = False
        self._pictures = pictures
        self._resumed = folder is not None
        check_uri(study.tracking)
        check_gpus(study.ensemble)
        if study.deterministic:
            _be_deterministic()
        self.surrogate = make_surrogate(case)
        solver = case.solver
        self._ledger = Ledger(solver.stored_steps, self.surrogate.window)
        self._buffer = make_batches(case, self.surrogate.window)
        self._breeding = make_breeding(case, self._ledger)
        self._design = self._breeding or case.design
        if self._breeding and folder:
            self._breeding.load(folder.design)
        self._store = None if study.training.source else open_store(case, self._breeding)
        self.folder = folder or RunFolder.create(study.name)
        self._ensemble = make_ensemble(
            case,
            study.validation.simulations,
            0 if study.training.source else study.design.simulations,
            self._store,
            self._design,
        )
        self._trainer = Trainer(
            self.surrogate,
            study.training,
            torch.device("cuda" if torch.cuda.is_available() else "cpu"),
            self._buffer,
            self._ledger,
            self._buffer.samples * study.training.epochs
            if isinstance(self._buffer, StoredSamples)
            else study.design.simulations * self._ledger.samples_per_simulation,
            self._breeding,
        )
        self._validation = Validation(
            case.make_surrogate,
            solver.stored_steps,
            study.validation.cpus,
            self.folder.held_out,
        )
        self._statistics = FieldStatistics(len(solver.fields), self.surrogate.bundle)
        self._reception = Reception(
            self._ensemble,
            self._ledger,
            self._buffer,
            self._statistics,
            self._validation.add,
            self._commit,
        )
        self._checkpoints = Checkpoints(self.folder.checkpoints, study.checkpoint, study.hash())
        self._tracking = Tracking(study.tracking, self.folder.path, self.folder.path.name)
        self._parts = Parts(
            study,
            self._design,
            self._store,
            self._ensemble,
            self._ledger,
            self._buffer,
            self._reception,
            self._trainer,
            self._validation,
            self._checkpoints,
        )
        self._measures = Measures(self._parts)
        self._rows = Rows(self._measures)
        self._history = History(self.folder.history, self._rows.row, self._tracking.log)

    def train(self) -> None:
        """Run to the study's stop. However it ends, weights, pictures and summary are written.

        Raises RunError when it cannot be finished, KeyboardInterrupt when it was interrupted.
        """
        self._status = "failed"
        with Interrupts(self._interrupt):
            try:
                self._begin()
                with (
                    self._display(),
                    self._history,
                    ray_for(self.study.ensemble, self.study.validation.cpus),
                ):
                    self._stream_and_train()
                if self._interrupted:
                    raise KeyboardInterrupt
                self._status = "done"
            except KeyboardInterrupt:
                self._status = "interrupted"
                raise
            finally:
                self._end()

    @property
    def interrupted(self) -> bool:
        """Whether it was asked to stop."""
        return self._interrupted

    def summary(self) -> Summary:
        """What was done so far."""
        return summarised(self._measures, self._status, str(self.folder.path), self._tracking)

    def _begin(self) -> None:
        """Take up what an earlier process has left, or write down the study."""
        if self._resumed:
            self._restore()
        else:
            with writing(self.folder.path):
                self.study.save(self.folder.study)
        study = self.study.model_dump(mode="json")
        self._tracking.start(study, self._data())
        self._tracking.artifact(self.folder.study)
        if self._breeding:
            self._breeding.keep(self.folder.design, self.study.validation.simulations)
            return
        # Seconds for 100,000 simulations, for which nobody has to wait.
        threading.Thread(target=self._write_design, name="design", daemon=True).start()

    def _write_design(self) -> None:
        """Which parameters and which seed every simulation has; held-out ones have negative ids."""
        if self.folder.design.exists():
            return
        design = self._design
        training = 0 if self._measures.source else self.study.design.simulations
        temporary = self.folder.design.with_suffix(".writing")
        with _said(), writing(self.folder.design):
            with temporary.open("w", newline="") as file:
                rows = csv.writer(file)
                rows.writerow(["simulation", "seed", *design.space.names])
                for id in range(-self.study.validation.simulations, training):
                    simulation = design.simulation(id)
                    rows.writerow([id, simulation.seed, *simulation.parameters.tolist()])
            temporary.replace(self.folder.design)
        self._tracking.artifact(self.folder.design)

    def _stream_and_train(self) -> None:
        if isinstance(self._buffer, StoredSamples):
            for samples in self._buffer.statistics():
                self._statistics.add(samples)
        self._reception.start()
        try:
            self._trainer.train(self._statistics, self._after_step)
            self._measures.end_training()
            if self._measures.source:
                self._reception.join()  # held-out simulations, which training did not wait for
        finally:
            # Before the last validation, which may need the solvers' CPUs. The buffer first, which
            # so knows that reception was cut short.
            self._buffer.close()
            self._ensemble.stop()
            self._reception.join()
            self._ensemble.close()
        if self._reception.error:
            with _said():
                self._checkpoint()
            raise self._reception.error
        if self._interrupted:
            self._checkpoint()
        self._check_loss()
        self._validation.final(self.surrogate, self._trainer.step, lambda: self._interrupted)
        if self._interrupted:
            self._checkpoint()

    def _after_step(self) -> None:
        self._measures.after_step()
        if self._trainer.step % _CHECK_STEPS == 0:
            self._check_loss()
        if self._trainer.step % self.study.validation.every_steps == 0:
            self._validation.submit(self.surrogate, self._trainer.step)
        if self._checkpoints.due():
            self._checkpoint()

    def _interrupt(self) -> None:
        self._interrupted = True
        self._buffer.close()
        self._ensemble.stop()

    def _commit(self, last: Block) -> None:
        """A simulation has arrived whole; its process has stored it before."""
        if self._store:
            self._store.commit(last.simulation, last.parameters)

    def _checkpoint(self) -> None:
        """Keep all that is needed to go on from here; between two steps."""
        with self._buffer.lock:
            if self._store:
                self._store.flush()  # or what the ledger calls received might never be stored
            self._check_loss()
            self._checkpoints.save(self._checkpointed())

    def _checkpointed(self) -> dict[str, Checkpointed]:
        """All parts that are kept in a checkpoint, by their names there."""
        parts: dict[str, Checkpointed] = {
            "trainer": self._trainer,
            "statistics": self._statistics,
            "buffer": self._buffer,
            "reception": self._reception,
            "ledger": self._ledger,
            "figures": self._measures,
        }
        if self._breeding:
            parts["breeding"] = self._breeding
        parts["quarantined"] = _Quarantine(self._ensemble, self._design)
        return parts

    def _restore(self) -> None:
        """Go on from the last checkpoint; from the beginning if there is none."""
        going_on = self._checkpoints.load(self._checkpointed())
        held_out = self._validation.load()
        self._history.resume(self._measures.resumed_at)
        received: set[int] = set()
        if going_on:
            received = {id for id in self._ledger.completed() if id >= 0}
            for id in range(-self.study.validation.simulations, 0):
                if id not in held_out:
                    self._ledger.forget(id)
        self._ensemble.resume(received | held_out, self._ensemble.quarantined)

    def _check_loss(self) -> None:
        if not torch.isfinite(self._trainer.loss):
            raise DivergedError(
                f"training has diverged: the loss is {float(self._trainer.loss)} at step "
                f"{self._trainer.step}; lower training.learning_rate "
                f"({self.study.training.learning_rate:g})"
            )

    def _end(self) -> None:
        """Whatever has happened: keep and say what was done."""
        self._measures.end()
        if self._status == "done":
            self._keep()
        else:
            with _said():
                self._keep()

    def _keep(self) -> None:
        try:
            if self._store:
                self._store.close()
            if self._trainer.step:
                self._keep_model()
                self._measures.count_cost()
            if self._breeding:
                self._tracking.artifact(self.folder.design)
            for picture in self._draw():
                self._tracking.artifact(picture, "pictures")
        finally:
            self._tracking.finish(self._status)
            self._tracking.close(HURRY if self._status == "interrupted" else PATIENCE)
            self.folder.write_summary(self.summary())

    def _keep_model(self) -> None:
        latest, data = self._validation.latest, self._data()
        with writing(self.folder.model):
            save_model(self.surrogate, self.study, self.folder.model, {"data": data})
        tags = {"data": json.dumps(data)}
        if latest:
            tags["validation.relative_l2"] = str(latest.relative_l2.mean)
        self._tracking.model(self.folder.model, self.study.name, tags)

    def _data(self) -> dict[str, Any]:
        """What is trained on: where it lies, if it is kept, and what it is a function of."""
        if source := self._measures.source:
            return source
        if self._store:
            return self._store.identity
        return {
            "path": None,
            "simulations": self.study.design.simulations,
            "hash": study_hash(identity(self.case)),
        }

    def _display(self) -> Display:
        names = f"{self.study.solver.name} into {self.study.surrogate.name}"
        title = f"{self.folder.path}: {names}, training on {self._trainer.device}"
        return Display(title, self._rows.counts, self._history.rows)

    def _draw(self) -> list[Path]:
        """Draw the run's pictures; where they are."""
        if not self._pictures:
            return []
        latest = self._validation.latest
        comparison = self._compare(latest.median_simulation) if latest else None
        trivial = latest.trivial if latest else {}
        points = design_points(self._parts)
        return draw_pictures(self.folder.pictures, self._history.rows, comparison, points, trivial)

    def _compare(self, simulation: int) -> Comparison:
        """The surrogate's prediction of a held-out simulation, beside the simulation."""
        solver, trajectory = self.case.solver, self._validation.trajectory(simulation)
        device = self._trainer.device
        self.surrogate.eval()
        rollout = self.surrogate.rollout(
            torch.tensor(trajectory.parameters, device=device),
            torch.tensor(trajectory.times, device=device),
            torch.tensor(trajectory.fields[:, 0], device=device),
        )
        return Comparison(
            simulation,
            trajectory.parameters[0],
            trajectory.times[0],
            trajectory.fields[0],
            np.stack([fields[0].float().cpu().numpy() for fields in rollout]),
            self.case.space,
            solver.fields,
            solver.grid,
        )


class _Quarantine:
    """What is checkpointed of an ensemble: which simulations it has given up."""

    def __init__(self, ensemble: Ensemble, design: Design) -> None:
        self._ensemble = ensemble
        self._design = design

    def state(self) -> list[dict[str, Any]]:
        """The quarantined simulations."""
        return [
            {"id": item.simulation.id, "step": item.step, "error": item.error}
            for item in self._ensemble.quarantined
        ]

    def load_state(self, state: list[dict[str, Any]]) -> None:
        """Take them up, once the design knows the parameters of what was bred."""
        self._ensemble.quarantined = [
            Quarantined(self._design.simulation(item["id"]), item["step"], item["error"])
            for item in state
        ]


@contextmanager
def _said() -> Iterator[None]:
    """A RunError on the way out is said, and does not take the place of what ended the run."""
    try:
        yield
    except RunError as error:
        print(f"millstream: {error}", file=sys.stderr)


def _be_deterministic() -> None:
    # What cuBLAS needs for the same bits every time.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
