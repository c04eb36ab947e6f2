"""A posterior: weights of a store's entries, and estimates of quantities from them.

The prior is the store's design: all its simulations, at all their kept steps, with equal weight.
The weight of an entry is its likelihood. For fields it is exp(-distance / 2): independent Gaussian
noise of the deviation that the observation states. particles.py has the likelihood for masks.

Shapes: n entries, q quantities, C fields, p parameters, `*grid` the grid's axes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.inverse.search.fields import FieldAnswer
from framework.store.reader import StoreReader
from framework.study.streams import Stream, generator
from solvers.base import Quantity, Solver

Numbers = NDArray[np.float64]

# Weights below this part of the largest do not count.
LEAST_WEIGHT = 1e-5
# The ends of an interval of 90 %.
SIDES = (0.05, 0.95)


@dataclass(frozen=True)
class Estimate:
    """The mean, the standard deviation and the 90 % interval, from 5 to 95 %, of one quantity."""

    mean: float
    sd: float
    interval_90: tuple[float, float]
    units: str


@dataclass(frozen=True)
class Posterior:
    """Entries and their weights, and estimates of the quantities that identify them."""

    keys: NDArray[np.int64]  # the entries [n, 2]: simulation, position among the kept steps
    weights: Numbers  # [n], with a sum of 1
    quantities: Mapping[str, Estimate]

    @property
    def effective(self) -> float:
        """How many entries of equal weight would say as much."""
        return float(1 / (self.weights**2).sum())

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return the quantities as plain values."""
        return {
            name: {
                "mean": estimate.mean,
                "sd": estimate.sd,
                "interval_90": list(estimate.interval_90),
                "units": estimate.units,
            }
            for name, estimate in self.quantities.items()
        }


def quantities_of(
    reader: StoreReader, solver: Solver, keys: NDArray[np.int64]
) -> Mapping[str, Quantity]:
    """Return the quantities that identify entries `keys` [n, 2], with their values [n]."""
    simulations, positions = keys.T
    t = reader.t[simulations, positions]
    return solver.identifiable(reader.parameters[simulations], t)


def posterior_of_fields(reader: StoreReader, solver: Solver, answer: FieldAnswer) -> Posterior:
    """Return the posterior of a field observation, from the distances of all entries."""
    weights = np.exp(-(answer.distances - answer.distances.min()) / 2)
    kept = weights > LEAST_WEIGHT
    keys, weights = answer.keys[kept], weights[kept]
    found = quantities_of(reader, solver, keys)
    values = np.stack([quantity.values for quantity in found.values()], 1)
    units = {name: quantity.units for name, quantity in found.items()}
    return Posterior(keys, weights / weights.sum(), estimates(values, weights, units))


def mean_and_deviation(reader: StoreReader, posterior: Posterior) -> tuple[Numbers, Numbers]:
    """Return the mean and the standard deviation of the fields [C, *grid] over the entries.

    Raises DamagedError if the store is damaged.
    """
    mean = np.zeros(reader.field_shape)
    square = np.zeros(reader.field_shape)
    for key, weight in zip(posterior.keys.tolist(), posterior.weights, strict=True):
        simulation, position = key
        values = reader.fields_at(simulation, position).astype(np.float64)
        mean += weight * values
        square += weight * values**2
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def points_around(
    posterior: Posterior, reader: StoreReader, solver: Solver, count: int, there: int = 0
) -> Numbers:
    """Draw parameters [count, p] of new simulations from the posterior.

    They come from a kernel density estimate in the prior's unit cube, with a bandwidth by Scott's
    rule, so all lie between the bounds and where the prior allows. They differ with the number of
    simulations that are `there` already.
    """
    random = generator(reader.study["seed"], Stream.AROUND, there)
    space = solver.parameters.with_bounds(reader.study["design"]["bounds"])
    unit = space.to_unit(reader.parameters[posterior.keys[:, 0]])
    mean = posterior.weights @ unit
    deviation = np.sqrt(posterior.weights @ (unit - mean) ** 2)
    width = np.maximum(deviation, 0.01) * posterior.effective ** (-1 / (unit.shape[1] + 4))
    chosen = unit[random.choice(len(unit), count, p=posterior.weights)]
    moved = chosen + width * random.standard_normal(chosen.shape)
    return np.asarray(space.from_unit(moved.clip(0, 1)))


def quantiles(values: Numbers, weights: Numbers, shares: tuple[float, ...]) -> Numbers:
    """Return the quantiles [shares, q] of the columns of values [n, q] with weights [n]."""
    found = np.empty((len(shares), values.shape[1]))
    for q, column in enumerate(values.T):
        order = np.argsort(column)
        below = np.cumsum(weights[order]) - weights[order] / 2
        found[:, q] = np.interp(shares, below / weights.sum(), column[order])
    return found


def estimates(values: Numbers, weights: Numbers, units: Mapping[str, str]) -> dict[str, Estimate]:
    """Estimate quantities from their values [n, q] with weights [n]; `units` names them."""
    means = np.average(values, 0, weights)
    deviations = np.sqrt(np.average((values - means) ** 2, 0, weights))
    columns = zip(units.items(), means, deviations, *quantiles(values, weights, SIDES), strict=True)
    return {
        name: Estimate(float(mean), float(sd), (float(low), float(high)), unit)
        for (name, unit), mean, sd, low, high in columns
    }
