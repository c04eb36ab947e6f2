"""What a run keeps when it ends: the trained surrogate, in its folder."""

import json
from importlib import import_module
from typing import Any

from framework.errors import tell, told
from framework.run.folder import RunFolder
from framework.run.measures import Measures
from framework.run.parts import Parts
from framework.study.design_file import DesignFile
from framework.study.identity import identity, study_hash
from framework.study.ids import held_out_id
from framework.tracking.recorder import Tracking
from framework.training.model import save_model


def keep_model(measures: Measures, folder: RunFolder, tracking: Tracking) -> None:
    """Write the trained surrogate to the run's folder, and register it.

    Raises WriteError.
    """
    parts = measures.parts
    latest, data = parts.validation.latest, data_identity(measures)
    save_model(measures.ranks.surrogate, parts.case, folder.model, {"data": data})
    tags = {"data": json.dumps(data)}
    if latest:
        tags["validation.relative_l2"] = str(latest.relative_l2.mean)
        if latest.last_time is not None:
            tags["validation.relative_l2_last_time"] = str(latest.last_time.mean)
        if latest.one_step is not None:
            tags["validation.relative_l2_one_step"] = str(latest.one_step.mean)
    tracking.model(folder.model, parts.study.name, tags)


def data_identity(measures: Measures) -> dict[str, Any]:
    """Return what identifies the training data: its path, if it is kept, and a hash."""
    parts = measures.parts
    if source := measures.source:
        return source
    if parts.store:
        return parts.store.identity
    return {
        "path": None,
        "simulations": parts.study.design.simulations,
        "hash": study_hash(identity(parts.case)),
    }


def import_drawing() -> None:
    """Import what draws the pictures, which takes a second, before the user waits for them."""
    import_module("framework.run.drawing")


def write_design(parts: Parts, folder: RunFolder, tracking: Tracking) -> None:
    """Write the parameters and the seed of every simulation to design.csv, unless it is there."""
    if folder.design.exists():
        return
    design, study = parts.design, parts.study
    training = 0 if study.training.source else study.design.simulations
    held_out = reversed(range(study.validation.simulations))
    ids = [*map(held_out_id, held_out), *range(training)]
    with told():
        file = DesignFile(folder.design, design.space.names)
        file.write((design.simulation(id), ()) for id in ids)
        file.close()
    tracking.artifact(folder.design)


def send_rest(tracking: Tracking, seconds: float) -> None:
    """Send to MLflow what is left of a run, for at most so many seconds."""
    if tracking.unsent():
        tell(f"sending what is left to MLflow at {tracking.uri}, for at most {seconds:g} s")
    tracking.close(seconds)
