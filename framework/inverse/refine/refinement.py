"""A local search that runs the solver, starting from the best entries of a store.

CMA-ES (Hansen, arXiv 1604.00772; the library `cma`) in the solver's parameters, each scaled so that
its bounds are 0 and 1, in logarithms where its prior is log-uniform. It begins at the best entry,
with a width in each parameter of the spread of the best entries. The simulations of a generation
are Ray tasks; each is rated at its best stored time. One that fails is the worst of its generation.

Shapes: p parameters, n starts or candidates, C fields, `*grid` the grid's axes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cma
import numpy as np
from numpy.typing import NDArray

from framework.errors import RunError
from framework.inverse.refine.evaluation import Candidate, Evaluation
from framework.inverse.refine.objective import Objective
from framework.simulation.cluster import ray_for
from framework.store.reader import StoreReader
from framework.study.design import Simulation
from framework.study.identity import streams_version
from framework.study.sections import EnsembleConfig
from framework.study.streams import stored_seed
from solvers.base import ParameterSpace, Solver

# The least and the largest standard deviation of the first generation in scaled parameters, and
# that of a single start.
_LEAST, _LARGEST, _ALONE = 0.01, 0.2, 0.05


@dataclass(frozen=True)
class Refinement:
    """The result of a search. `best` is at least as good as `start`, the first of the starts."""

    start: Candidate
    best: Candidate
    evaluations: int  # how many simulations were run
    failed: int  # how many of them failed
    seconds: float


def refine(
    make_solver: Callable[[], Solver],
    space: ParameterSpace,
    objective: Objective,
    starts: Sequence[Simulation],
    config: EnsembleConfig,
    random: np.random.Generator,
    evaluations: int = 80,
    tell: Callable[[int, float], None] = lambda evaluations, score: None,
) -> Refinement:
    """Search near `starts`, the best entry first, with at most `evaluations` simulations.

    All are run with the first start's seed, within the bounds of `space`. Generators `random` in
    the same state give the same result. `tell` is called after each generation with the number of
    simulations so far and the best score. Raises RunError if the first start cannot be simulated.
    """
    began = time.monotonic()
    scaled = np.stack([scaled_by_bounds(space, start.parameters) for start in starts]).clip(0, 1)
    search = cma.CMAEvolutionStrategy(
        # The library maps points to within the bounds, and this map is flat on a bound itself.
        scaled[0].clip(1e-3, 1 - 1e-3),
        1.0,
        {
            "CMA_stds": _widths(scaled),
            "bounds": [0, 1],
            # All random numbers come from here, and not from numpy's global state.
            "seed": np.nan,
            "randn": lambda *shape: random.standard_normal(shape),
            "verbose": -9,
        },
    )
    with ray_for(config, 0):
        evaluate = Evaluation(make_solver, objective, config, starts[0].seed)
        start = start_of(evaluate, starts[0])
        best, count, failed = start, 1, 0
        while count + search.popsize <= evaluations and not search.stop():
            points = search.ask()
            found = evaluate([unscaled(space, np.asarray(point)) for point in points])
            search.tell(points, _costs(found))
            best = max([best, *found], key=lambda candidate: candidate.rating.score)
            count += len(found)
            failed += sum(bool(candidate.error) for candidate in found)
            tell(count, best.rating.score)
    return Refinement(start, best, count, failed, time.monotonic() - began)


def start_of(evaluate: Evaluation, simulation: Simulation) -> Candidate:
    """Evaluate the simulation that a search starts from. Raises RunError if it fails."""
    (start,) = evaluate([simulation.parameters])
    if start.error:
        raise RunError(
            f"the best entry, simulation {simulation.id}, cannot be simulated again, so there is "
            f"nothing to refine: {start.error}"
        )
    return start


def stored_simulation(reader: StoreReader, id: int) -> Simulation:
    """Return the simulation of a store with this id, with the seed that it was made with."""
    seed = stored_seed(reader.study["seed"], streams_version(reader.study), id)
    return Simulation(id, reader.parameters[id], seed)


def _costs(candidates: Sequence[Candidate]) -> list[float]:
    """Return the costs that CMA-ES minimises. Only their order counts; failures come last."""
    worst = min((c.rating.score for c in candidates if not c.error), default=0.0)
    failed = 1 + abs(worst) - worst
    return [failed if c.error else -c.rating.score for c in candidates]


def _widths(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return standard deviations [p] of scaled starts [n, p], within limits."""
    if len(scaled) == 1:
        return np.full(scaled.shape[1], _ALONE)
    return np.asarray(scaled.std(0).clip(_LEAST, _LARGEST))


def scaled_by_bounds(space: ParameterSpace, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale parameters [p] so that their bounds are 0 and 1, each for itself."""
    low, high, values = (_logarithms(space, x) for x in (space.low, space.high, parameters))
    return (values - low) / (high - low)


def unscaled(space: ParameterSpace, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Undo `scaled_by_bounds`."""
    low, high = _logarithms(space, space.low), _logarithms(space, space.high)
    values = low + (high - low) * scaled
    return np.where(space.log, np.exp(np.where(space.log, values, 0)), values)


def _logarithms(space: ParameterSpace, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return logarithms of the parameters [p] with a log-uniform prior, and the other values."""
    return np.where(space.log, np.log(np.where(space.log, values, 1)), values)
