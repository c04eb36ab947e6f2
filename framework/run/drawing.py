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
from framework.run.measures import Measures
from framework.tracking.history import Record
from framework.training.held_out import trajectories
from framework.training.scores import measure


def draw_run(measures: Measures, folder: RunFolder, rows: Sequence[Record]) -> list[Path]:
    """Draw the run's pictures; return where they are. Raises RunError."""
    latest = measures.parts.validation.latest
    comparison = held_out_comparison(measures, latest.median_simulation) if latest else None
    trivial = latest.trivial if latest else {}
    return draw_pictures(folder.pictures, rows, comparison, design_points(measures), trivial)


def design_points(measures: Measures) -> DesignPoints:
    """Return the parameters of the simulations, grouped by their outcome."""
    parts, completed = measures.parts, measures.ranks.completed()
    design = parts.design

    def parameters(ids: list[int]) -> NDArray[np.float64]:
        values = [design.simulation(id).parameters for id in ids]
        return np.array(values).reshape(-1, len(design.space))

    return DesignPoints(
        design.space,
        completed=parameters(sorted(completed)),
        quarantined=parameters([item.simulation.id for item in parts.quarantine.items]),
        held_out=parameters(sorted(parts.validation.kept())),
    )


@torch.no_grad()
def held_out_comparison(measures: Measures, simulation: int) -> Comparison:
    """Return a held-out simulation together with the surrogate's prediction of it.

    Of their fields only those that are drawn are held, and one more at a time.
    """
    parts, trained = measures.parts, measures.ranks.surrogate
    solver, device = parts.case.solver, trained.field_mean.device
    kept = parts.validation.trajectory(simulation)
    drawn = drawn_times(len(kept.times), solver.grid)
    surrogate, held_out = trained.eval(), trajectories([kept])
    rollout = surrogate.rollout(
        torch.tensor(held_out.parameters, device=device),
        torch.tensor(held_out.times, device=device),
        torch.tensor(kept.steps(0, 1), device=device),
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
