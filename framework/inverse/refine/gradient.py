"""A local search by the gradients of a trained surrogate, for observations of fields.

From every start the parameters descend along the gradient of the distance between the surrogate's
fields and the observation, at the start's stored step; all starts at once. Then the solver is run
with the parameters found: its scores are reported, so a surrogate that is wrong there does no harm.

Shapes: n starts, p parameters, C fields, m observed values of a field, `*grid` the grid's axes.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from framework.errors import StudyError
from framework.inverse.observed.fields import FieldObservation
from framework.inverse.refine.evaluation import Evaluation
from framework.inverse.refine.objective import FieldObjective
from framework.inverse.refine.refinement import Refinement, start_of
from framework.simulation.cluster import ray_for
from framework.study.design import Simulation
from framework.study.sections import EnsembleConfig
from solvers.base import Solver
from surrogates.base import Surrogate

# The number of optimiser steps, and their size in parameters scaled by their bounds: enough to
# cross half the range.
_OPTIMISER_STEPS, _STEP_SIZE = 200, 0.01


def refine_by_gradient(
    surrogate: Surrogate,
    make_solver: Callable[[], Solver],
    observation: FieldObservation,
    starts: Sequence[tuple[Simulation, int]],
    config: EnsembleConfig,
) -> Refinement:
    """Descend from simulations, each at a stored step, the best entry first.

    Stays within the bounds that the surrogate was trained in. Raises StudyError if the
    surrogate is of another solver or not in mode direct, and RunError if the first start cannot be
    simulated.
    """
    began = time.monotonic()
    solver = make_solver()
    _check_surrogate(surrogate, solver)
    points = descend(surrogate, solver, observation, starts)
    with ray_for(config, 0):
        objective, seed = FieldObjective(observation), starts[0][0].seed
        evaluate = Evaluation(make_solver, objective, config, seed)
        start = start_of(evaluate, starts[0][0])
        found = evaluate(list(points.numpy()))
    best = max([start, *found], key=lambda candidate: candidate.rating.score)
    failed = sum(bool(candidate.error) for candidate in found)
    return Refinement(start, best, 1 + len(found), failed, time.monotonic() - began)


def descend(
    surrogate: Surrogate,
    solver: Solver,
    observation: FieldObservation,
    starts: Sequence[tuple[Simulation, int]],
) -> Tensor:
    """Return the parameters [n, p] of least distance, by the surrogate, found from each start."""
    values = torch.tensor(np.stack([simulation.parameters for simulation, _ in starts]))
    steps = [step for _, step in starts]
    p = values.shape[1]
    low, span, log = surrogate.low[:p], (surrogate.high - surrogate.low)[:p], surrogate.log[:p]
    scaled = (torch.where(log, values.clamp(min=1e-300).log(), values) - low) / span
    scaled = scaled.clamp(0, 1).requires_grad_()
    adam = torch.optim.Adam([scaled], lr=_STEP_SIZE)
    best, least = values, torch.full((len(starts),), torch.inf, dtype=torch.float64)
    for _ in range(_OPTIMISER_STEPS):
        raw = low + span * scaled
        parameters = torch.where(log, raw.exp(), raw)
        # The gradient ignores that times may depend on the parameters.
        times = [
            solver.times(row)[step]
            for row, step in zip(parameters.detach().numpy(), steps, strict=True)
        ]
        fields = surrogate.direct(parameters, torch.tensor(np.array(times)))
        distances = _surrogate_distances(observation, fields)
        better = distances < least
        least = torch.where(better, distances, least).detach()
        best = torch.where(better[:, None], parameters, best).detach()
        adam.zero_grad()
        # The gradient of each start is as large as if it were alone.
        distances.sum().backward()  # type: ignore[no-untyped-call]
        adam.step()
        with torch.no_grad():
            scaled.clamp_(0, 1)
    return best


def _surrogate_distances(observation: FieldObservation, fields: Tensor) -> Tensor:
    """Return `FieldObservation.distance` of fields [n, C, *grid]: [n], with gradients."""
    total = fields.new_zeros(len(fields), dtype=torch.float64)
    for channel, seen in observation.fields.items():
        values = fields[:, channel].flatten(1).double()
        if seen.points is not None:
            values = values[:, torch.from_numpy(seen.points)]
        if seen.shares is not None:
            values = (values * torch.from_numpy(seen.shares)).sum(-1)
        error = (values - torch.from_numpy(seen.values)) * torch.from_numpy(seen.precision)
        total = total + error.square().sum(1)
    return total


def _check_surrogate(surrogate: Surrogate, solver: Solver) -> None:
    """Raise StudyError unless the surrogate stands for the solver, in mode direct."""
    problem = surrogate.problem
    if surrogate.mode != "direct":
        raise StudyError(
            f"the surrogate is {surrogate.mode}: refinement by gradients needs one in mode direct; "
            "without a surrogate the solver is run instead"
        )
    theirs = problem.names, problem.channels, problem.grid
    ours = solver.parameters.names, len(solver.fields), solver.grid.shape
    for what, there, here in zip(("parameters", "fields", "grid"), theirs, ours, strict=True):
        if there != here:
            raise StudyError(
                "the surrogate is of another solver than the store: "
                f"{what} {there} instead of {here}"
            )
