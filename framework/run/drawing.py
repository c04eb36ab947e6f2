"""The pictures of a run, and their data: alone in a run they need matplotlib, slow to import."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from framework.pictures.comparison import Comparison, drawn_times
from framework.pictures.coverage import DesignPoints
from framework.pictures.run import draw_pictures
from framework.run.folder import RunFolder
from framework.run.parts import Parts
from framework.study.ids import is_held_out
from framework.tracking.history import Record
from framework.training.held_out import trajectories
from framework.training.scores import measure


def draw_run(parts: Parts, folder: RunFolder, rows: Sequence[Record]) -> list[Path]:
    """Draw the run's pictures; return where they are. Raises RunError."""
    latest = parts.validation.latest
    comparison = held_out_comparison(parts, latest.median_simulation) if latest else None
    trivial = latest.trivial if latest else {}
    return draw_pictures(folder.pictures, rows, comparison, design_points(parts), trivial)


def design_points(parts: Parts) -> DesignPoints:
    """Return the parameters of the simulations, grouped by their outcome."""
    design, ended = parts.design, sorted(parts.rank.ledger.completed())

    def parameters(ids: list[int]) -> NDArray[np.float64]:
        values = [design.simulation(id).parameters for id in ids]
        return np.array(values).reshape(-1, len(design.space))

    return DesignPoints(
        design.space,
        completed=parameters([id for id in ended if not is_held_out(id)]),
        quarantined=parameters([item.simulation.id for item in parts.ensemble.quarantined]),
        held_out=parameters([id for id in ended if is_held_out(id)]),
    )


@torch.no_grad()
def held_out_comparison(parts: Parts, simulation: int) -> Comparison:
    """Return a held-out simulation together with the surrogate's prediction of it.

    Of their fields only those that are drawn are held, and one more at a time.
    """
    solver, trainer = parts.case.solver, parts.rank.trainer
    kept = parts.validation.trajectory(simulation)
    drawn = drawn_times(len(kept.times), solver.grid)
    surrogate, held_out = trainer.surrogate.eval(), trajectories([kept])
    rollout = surrogate.rollout(
        torch.tensor(held_out.parameters, device=trainer.device),
        torch.tensor(held_out.times, device=trainer.device),
        torch.tensor(kept.steps(0, 1), device=trainer.device),
    )
    truth, predicted, errors = [], [], np.full(len(kept.times), np.nan)
    for index, fields in enumerate(rollout):
        true, found = kept.steps(index, index + 1), fields.float().cpu().numpy()
        if index >= surrogate.given_times:
            (errors[index],) = measure(found[None], true[None])["relative_l2"][0]
        if index in drawn:
            truth.append(true[0])
            predicted.append(found[0])
    return Comparison(
        simulation,
        held_out.parameters[0],
        held_out.times[0, drawn],
        np.stack(truth),
        np.stack(predicted),
        parts.case.space,
        solver.fields,
        solver.grid,
        surrogate.given_times,
        errors,
    )
