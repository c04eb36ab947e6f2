"""One arm with one seed: trained, scored, and measured."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from framework.compare.report import MEASURES
from framework.errors import SolverError
from framework.files import writing
from framework.report.summary import Summary
from framework.run.assembly import make_dispenser, make_ensemble, make_quarantine
from framework.run.folder import RunFolder
from framework.run.interrupt import Interrupts
from framework.run.run import Run
from framework.store.reader import StoreReader
from framework.stream.ledger import Ledger
from framework.stream.reception import receive_all
from framework.study.case import Case
from framework.study.study import Study
from framework.tracking.history import Record
from framework.training.model import load_model
from framework.training.scores import Trajectories, mean_score, score
from framework.training.validation import Validation


def train_arm(case: Case, folder: RunFolder) -> Summary:
    """Train an arm, or continue with it. Its held-out simulations lie beside `folder` already.

    Raises DivergedError or another RunError, or KeyboardInterrupt.
    """
    with writing(folder.path):
        folder.path.mkdir(exist_ok=True)
        if not folder.held_out.exists():
            folder.held_out.symlink_to(Path("..", "held_out"))
        if not folder.study.exists():
            case.study.save(folder.study)
    case = Case(Study.load(folder.study), folder.study, solver_of=case)
    run = Run(case, folder, pictures=False)
    run.train()
    if run.interrupted:  # after training, while its results were written
        raise KeyboardInterrupt
    return run.summary()


def hold_out(case: Case, directory: Path) -> None:
    """Run the held-out simulations of a seed into a directory, except those already there.

    What programs print is kept in the directory `programs` beside it.

    Raises RunError or KeyboardInterrupt.
    """
    config, stored_steps = case.study.validation, case.solver.stored_steps
    validation = Validation(case.make_surrogate, config.cpus, directory, stored_steps)
    validation.load()
    ledger, count = Ledger(stored_steps, window=1), config.simulations
    groups = make_dispenser(case, count, 0, validation.kept()).groups()
    programs = directory.with_name("programs")
    ensemble = make_ensemble(case, groups, make_quarantine(case, count), None, programs)
    with Interrupts(ensemble.stop) as interrupts:
        try:
            receive_all(ensemble, ledger, validation.add)
        finally:
            ensemble.close()
            validation.close()
    if interrupts.received:
        raise KeyboardInterrupt


def arm_metrics(arm: dict[str, Any]) -> Record:
    """Return the reported figures of an arm, as metrics for MLflow."""
    plain = {key: value for key, value in arm.items() if isinstance(value, int | float)}
    errors = arm.get("validation", {})
    named = {f"arm/{key}": float(value) for key, value in plain.items()}
    return {
        "step": float(arm.get("steps", 0)),
        **named,
        **{f"arm/relative_l2/{key}": error for key, error in errors.items() if error is not None},
    }


def measured(summary: Summary, simulating_seconds: float) -> dict[str, Any]:
    """Return the reported figures of an arm, from the summary of its run.

    `simulating_seconds`: how long it took to simulate the arm's data, if that was not part of its
    run. Raises SolverError if the arm was not scored.
    """
    training, checkpoints = summary.training, summary.checkpoint.seconds
    scores = summary.validation
    if scores is None:
        raise SolverError(
            "there are no two held-out simulations to score by: see what failed above"
        )
    errors = scores.relative_l2
    if math.isnan(errors.mean):
        raise SolverError(
            "the held-out simulations are zero at all times: there is no relative error to compare"
        )
    seconds = training.seconds - checkpoints
    return {
        "status": "done",
        "steps": training.steps,
        "simulations": summary.simulations.completed,
        "unique_samples": summary.samples.unique_trained,
        "drawn_samples": summary.samples.drawn,
        "validation": {
            **{measure: getattr(errors, measure) for measure in MEASURES},
            "last_time": None if scores.last_time is None else scores.last_time.mean,
            "one_step": None if scores.one_step is None else scores.one_step.mean,
        },
        # Without checkpoints, which are large if they hold a buffer.
        "seconds": simulating_seconds + training.seconds_to_end - checkpoints,
        "training_seconds": seconds,
        "samples_per_second": summary.samples.drawn / seconds,
        "waited": training.wait_fraction,
        "loss": training.loss,
    }


def gap(held_out_error: float, folder: RunFolder, shared: Trajectories) -> dict[str, float]:
    """Return an arm's error on simulations that it was trained on, and the gap to held-out ones.

    They are `trained`, and `gap`: how much larger the error is on held-out simulations.
    """
    surrogate = load_model(folder.model).surrogate
    trained = mean_score(score(surrogate, shared)["relative_l2"])
    return {"trained": trained, "gap": held_out_error - trained}


def first_simulations(reader: StoreReader, count: int) -> Trajectories:
    """Return the first complete simulations of a store."""
    ids = reader.complete[:count]
    return Trajectories(
        ids,
        reader.parameters[ids].astype(np.float32),
        reader.t[ids].astype(np.float32),
        np.stack([reader.fields(id) for id in ids.tolist()]),
    )
