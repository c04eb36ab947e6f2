"""Run simulations as Ray tasks and rate each at its best stored time.

A worker's process imports this file, so its own imports are few.
Shapes: p parameters.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError, RayTaskError

from framework.errors import RunError
from framework.inverse.refine.objective import Objective, Rating
from framework.simulation.solver_actor import SolverActor
from framework.study.design import Simulation
from framework.study.sections import EnsembleConfig
from solvers.base import Solver


@dataclass(frozen=True)
class Candidate:
    """A simulation, rated at its best stored time; or, with `error` set, one that failed."""

    parameters: NDArray[np.float64]  # [p]
    rating: Rating = field(default_factory=Rating)
    step: int = 0  # the best stored step
    time: float = 0.0  # of that step
    error: str = ""


class Evaluation:
    """Simulates and rates candidates in Ray tasks. Ray repeats a task once if its process dies."""

    def __init__(
        self,
        make_solver: Callable[[], Solver],
        objective: Objective,
        config: EnsembleConfig,
        seed: int,
    ) -> None:
        self._task = ray.remote(_evaluate).options(num_cpus=config.cpus_per_actor, max_retries=1)
        self._arguments = uuid.uuid4().hex, make_solver, config.time_limit, ray.put(objective)
        self._seed = seed

    def __call__(self, points: Sequence[NDArray[np.float64]]) -> list[Candidate]:
        """Simulate and rate points, parameters [p] each. Raises RunError if rating fails."""
        simulations = [Simulation(id, point, self._seed) for id, point in enumerate(points)]
        references = [self._task.remote(*self._arguments, item) for item in simulations]
        return [self._get(*pair) for pair in zip(references, points, strict=True)]

    def _get(self, reference: "ray.ObjectRef[Candidate]", point: NDArray[np.float64]) -> Candidate:
        try:
            return ray.get(reference)
        except RayTaskError as error:
            # An error of the solver makes a failed candidate: this is another kind of error.
            raise RunError(str(error.cause)) from error
        except RayError as error:
            return Candidate(point, error=f"its process died: {type(error).__name__}")


# The solver of this process, keyed by the search that it was made for.
_solvers: dict[str, Solver] = {}


def _evaluate(
    search: str,
    make_solver: Callable[[], Solver],
    time_limit: float,
    objective: Objective,
    simulation: Simulation,
) -> Candidate:
    """Simulate and rate one candidate, in a worker process."""
    if search not in _solvers:
        _solvers.clear()
        _solvers[search] = make_solver()
    solver = _solvers[search]
    best = Candidate(simulation.parameters, error="no stored time is that of the observation")
    for message in SolverActor(lambda: solver, time_limit).run([simulation], 1):
        for block in message.blocks:
            if block.error:
                return Candidate(simulation.parameters, error=block.error)
            if objective.at(block.times)[0]:
                rating = objective.rate(solver, block.fields[0])
                if best.error or rating.score > best.rating.score:
                    step, t = block.first_step, float(block.times[0])
                    best = Candidate(simulation.parameters, rating, step, t)
    if not best.error and not np.isfinite(best.rating.score):
        return Candidate(simulation.parameters, error="its score is not finite")
    return best
