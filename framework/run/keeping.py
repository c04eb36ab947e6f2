"""What a run keeps when it ends: the trained surrogate and the pictures, in its folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from framework.errors import tell
from framework.pictures.run import draw_pictures
from framework.run.folder import RunFolder
from framework.run.outcome import design_points, held_out_comparison
from framework.run.parts import Parts
from framework.study.identity import identity, study_hash
from framework.tracking.history import Record
from framework.tracking.recorder import Tracking
from framework.training.model import save_model


def keep_model(parts: Parts, folder: RunFolder, tracking: Tracking) -> None:
    """Write the trained surrogate to the run's folder, and register it.

    Raises WriteError.
    """
    latest, data = parts.validation.latest, data_identity(parts)
    save_model(parts.rank.trainer.surrogate, parts.case, folder.model, {"data": data})
    tags = {"data": json.dumps(data)}
    if latest:
        tags["validation.relative_l2"] = str(latest.relative_l2.mean)
        if latest.last_time is not None:
            tags["validation.relative_l2_last_time"] = str(latest.last_time.mean)
        if latest.one_step is not None:
            tags["validation.relative_l2_one_step"] = str(latest.one_step.mean)
    tracking.model(folder.model, parts.study.name, tags)


def data_identity(parts: Parts) -> dict[str, Any]:
    """Return what identifies the training data: its path, if it is kept, and a hash."""
    if source := parts.rank.source.identity:
        return source
    if parts.store:
        return parts.store.identity
    return {
        "path": None,
        "simulations": parts.study.design.simulations,
        "hash": study_hash(identity(parts.case)),
    }


def draw_run(parts: Parts, folder: RunFolder, rows: Sequence[Record]) -> list[Path]:
    """Draw the run's pictures; return where they are. Raises RunError."""
    latest = parts.validation.latest
    comparison = held_out_comparison(parts, latest.median_simulation) if latest else None
    trivial = latest.trivial if latest else {}
    return draw_pictures(folder.pictures, rows, comparison, design_points(parts), trivial)


def send_rest(tracking: Tracking, seconds: float) -> None:
    """Send to MLflow what is left of a run, for at most so many seconds."""
    if tracking.unsent():
        tell(f"sending what is left to MLflow at {tracking.uri}, for at most {seconds:g} s")
    tracking.close(seconds)
