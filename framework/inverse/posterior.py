"""What an observation tells: a posterior over a store's entries, and over what identifies them.

The prior is the store's design: its simulations, at their kept steps, all alike. An entry's weight
is its likelihood, under a model that depends on what was observed:

- Segmentations: exp(score / temperature), summed over the thresholds that are indexed, each of
  which stands for its part of a uniform distribution between the lowest and the highest. The score
  is the mean Dice coefficient; the temperature is fitted so that credible intervals hold what they
  promise (`calibration.py`).
- Fields: exp(-distance / 2), independent Gaussian noise of the deviation that the observation says.

A store is sparse: few entries come close to what was observed. So the values of entries are moved
by what a linear regression says of how they differ from it (Beaumont, Zhang and Balding, Genetics
162, 2002), with volumes, centroids and extents of the masks as what is compared. The extent, how
far voxels are from the centroid, tells a front that is wide from one that is sharp at the same
volume. What was observed has a rater's noise, which entries have not, so values are then stretched
about their median as calibration says. All this makes intervals narrower at the same coverage.
Fields have it not, and neither have mean and deviation of the simulated fields, which are over the
entries as they are.

Shapes: n entries or particles (an entry with one choice of thresholds), q quantities, M masks, T
thresholds of all masks, C fields, `*grid` the grid's axes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.errors import StudyError
from framework.inverse.index.index import Index
from framework.inverse.search.field_query import FieldAnswer
from framework.inverse.search.kernels import moments
from framework.inverse.search.query import Observed, dice, search
from framework.store.reader import StoreReader
from solvers.base import Solver

Floats = NDArray[np.float64]

# Only so many of the best entries count, and no weight below so much of the largest.
_MOST, _LEAST = 400, 1e-5
# The ends of an interval of 90 %.
SIDES = (0.05, 0.95)
# A relative difference of masks that a regression should not take for large.
_DIFFERENCE = 0.3
# How far it is followed, in standard deviations of the particles: 7 % of 120 patients whom a store
# covers are further away (half of them 1.3 or more, one 3.0), a real glioma 4.2.
_REACH = 2.0


@dataclass(frozen=True)
class Estimate:
    """Of one quantity: mean, standard deviation and the interval between 5 and 95 %."""

    mean: float
    sd: float
    interval_90: tuple[float, float]
    units: str


@dataclass(frozen=True)
class Posterior:
    """Weights [n], of sum 1, of entries: their simulations and positions of steps, `keys` [n, 2].

    `effective`: how many entries of equal weight would tell as much.
    """

    keys: NDArray[np.int64]
    weights: Floats
    quantities: Mapping[str, Estimate]

    @property
    def effective(self) -> float:
        return float(1 / (self.weights**2).sum())

    def summary(self) -> dict[str, dict[str, Any]]:
        """The quantities as plain values."""
        return {
            name: {
                "mean": estimate.mean,
                "sd": estimate.sd,
                "interval_90": list(estimate.interval_90),
                "units": estimate.units,
            }
            for name, estimate in self.quantities.items()
        }


class Particles:
    """Entries like segmentations, with every choice of thresholds: what a posterior is made of."""

    def __init__(
        self,
        index: Index,
        reader: StoreReader,
        solver: Solver,
        observed: Observed,
        leave_out: int | None = None,
    ) -> None:
        """`leave_out`: a simulation that does not count."""
        others = index.entries - int(np.count_nonzero(index.keys[:, 0] == leave_out))
        answer = search(index, observed, None, min(_MOST, max(others, 1)), leave_out)
        entries = np.array([match.entry for match in answer.matches])
        self.best = answer.matches[0].score
        self._keys = index.keys[entries]
        dices = dice(index, observed, entries)
        names = list(dices)
        # Scores [n, thresholds of the first mask, of the second ...], and logarithms of priors.
        shapes = np.eye(len(names), dtype=int)
        self._scores = np.zeros((len(entries), *(1,) * len(names)))
        self._prior = np.zeros(self._scores.shape[1:])
        for name, axis in zip(names, shapes, strict=True):
            shape = np.where(axis, len(index.masks[name]), 1)
            self._scores = self._scores + dices[name].reshape(-1, *shape) / len(names)
            self._prior = self._prior + np.log(_shares(index.masks[name])).reshape(shape)
        simulations, steps = self._keys.T
        found = solver.identifiable(reader.parameters[simulations], reader.t[simulations, steps])
        self.units = {name: quantity.units for name, quantity in found.items()}
        self.positive = np.array([quantity.positive for quantity in found.values()])
        self._values = np.stack([quantity.values for quantity in found.values()], 1)  # [n, q]
        self._differences = _differences(index, solver, observed, entries)

    def at(self, temperature: float, stretch: Mapping[str, float] | None = None) -> Posterior:
        """The posterior at this temperature.

        `stretch`: by how much the values of each quantity are moved away from their median.
        """
        entries, values, weights = self.values(temperature)
        middle = quantiles(values, weights, (0.5,))[0]
        factors = np.array([(stretch or {}).get(name, 1.0) for name in self.units])
        values = middle + factors * (values - middle)
        kept = entries > _LEAST * entries.max()
        return Posterior(
            self._keys[kept],
            entries[kept] / entries[kept].sum(),
            _estimates(np.where(self.positive, np.exp(values), values), weights, self.units),
        )

    def values(self, temperature: float) -> tuple[Floats, Floats, Floats]:
        """Weights of the entries [n]; values of the quantities of the particles [m, q], those that
        are positive as logarithms; and the particles' weights [m].

        Raises StudyError if nothing has grown in any of the entries."""
        likelihoods = (self._scores - self._scores.max()) / temperature + self._prior
        weights = np.exp(likelihoods - likelihoods.max())
        # What has no logarithm cannot be regressed on; of a size 0 nothing is to be seen anyway.
        weights[(self._values[:, self.positive] <= 0).any(1)] = 0
        if not weights.any():
            raise StudyError(
                f"in none of the {len(weights)} entries most like what was observed has anything "
                "grown yet, so nothing can be said of sizes: add simulations with later times"
            )
        chosen = np.nonzero(weights > _LEAST * weights.max())
        values = np.where(self.positive, np.log(np.maximum(self._values, 1e-300)), self._values)
        adjusted = _adjusted(values[chosen[0]], self._at(chosen), weights[chosen])
        return weights.reshape(len(weights), -1).sum(1), adjusted, weights[chosen]

    def _at(self, chosen: tuple[NDArray[np.intp], ...]) -> Floats:
        """How far particles are from what was observed [m, (2 + axes) M]."""
        entries, *thresholds = chosen
        parts = zip(self._differences, thresholds, strict=True)
        return np.concatenate([of_mask[entries, t] for of_mask, t in parts], 1)


def of_masks(
    index: Index,
    reader: StoreReader,
    solver: Solver,
    observed: Observed,
    temperature: float,
    stretch: Mapping[str, float] | None = None,
) -> Posterior:
    """The posterior for segmentations, see `Particles.at`. Raises StudyError and RunError as the
    search does."""
    return Particles(index, reader, solver, observed).at(temperature, stretch)


def of_distances(reader: StoreReader, solver: Solver, answer: FieldAnswer) -> Posterior:
    """The posterior for a field observation, from the distances of all entries."""
    weights = np.exp(-(answer.distances - answer.distances.min()) / 2)
    kept = weights > _LEAST
    keys, weights = answer.keys[kept], weights[kept]
    simulations, steps = keys.T
    found = solver.identifiable(reader.parameters[simulations], reader.t[simulations, steps])
    values = np.stack([quantity.values for quantity in found.values()], 1)
    units = {name: quantity.units for name, quantity in found.items()}
    return Posterior(keys, weights / weights.sum(), _estimates(values, weights, units))


def fields(reader: StoreReader, posterior: Posterior) -> tuple[Floats, Floats]:
    """Mean and standard deviation of the fields [C, *grid] over the entries."""
    mean = np.zeros(reader.field_shape)
    square = np.zeros(reader.field_shape)
    for (simulation, step), weight in zip(posterior.keys.tolist(), posterior.weights, strict=True):
        values = reader.step(simulation, step).astype(np.float64)
        mean += weight * values
        square += weight * values**2
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def around(
    posterior: Posterior, reader: StoreReader, solver: Solver, count: int, seed: int = 0
) -> Floats:
    """Parameters [count, p] of new simulations where the posterior is.

    A kernel density estimate in the prior's unit cube: entries by their weight, moved as far as
    they differ, by Scott's rule. So all lie between the bounds, and where the prior allows.
    """
    random = np.random.default_rng(seed)
    space = solver.parameters.with_bounds(reader.study["design"]["bounds"])
    unit = space.to_unit(reader.parameters[posterior.keys[:, 0]])
    mean = posterior.weights @ unit
    deviation = np.sqrt(posterior.weights @ (unit - mean) ** 2)
    width = np.maximum(deviation, 0.01) * posterior.effective ** (-1 / (unit.shape[1] + 4))
    chosen = unit[random.choice(len(unit), count, p=posterior.weights)]
    moved = chosen + width * random.standard_normal(chosen.shape)
    return np.asarray(space.from_unit(moved.clip(0, 1)))


def _shares(thresholds: tuple[float, ...]) -> Floats:
    """What part of a uniform distribution between the ends is nearest to each threshold."""
    if len(thresholds) == 1:
        return np.ones(1)
    values = np.array(thresholds)
    middles = (values[1:] + values[:-1]) / 2
    lengths = np.diff(np.concatenate([values[:1], middles, values[-1:]]))
    return np.asarray(lengths / lengths.sum())


def _differences(
    index: Index, solver: Solver, observed: Observed, entries: NDArray[np.int64]
) -> list[Floats]:
    """Of the masks of entries from those observed, for each mask [n, thresholds, 2 + axes].

    Those of what `_shape` says; centroids in units of the radius of what was observed. The entries
    are some that `dice` has checked.
    """
    spacing = np.array(solver.grid.spacing)
    axes, cubes = len(spacing), index.cubes
    grid = np.array((1,) * (3 - axes) + index.grid)
    used = [0, *range(4 - axes, 4), *range(7 - axes, 7)]
    differences = []
    for name in [name for name in index.masks if name in observed]:
        numbers = index.first[name] + np.arange(len(index.masks[name]))
        sums = np.zeros((len(entries), len(numbers), 7), np.int64)
        records = index.voxels, index.ends, numbers, entries
        moments(*records, np.array(cubes.sides), np.array(cubes.across), grid, sums)
        places = np.argwhere(observed[name])
        radius = (max(len(places), 1) * spacing.prod()) ** (1 / axes) / 2
        of_observed = np.array([len(places), *places.sum(0), *(places**2).sum(0)])
        scaled = spacing / radius
        differences.append(_shape(sums[:, :, used], scaled) - _shape(of_observed, scaled))
    return differences


def _shape(sums: NDArray[np.int64], spacing: Floats) -> Floats:
    """Logarithms of volume and of extent, and the centroid [..., 2 + axes], of the number of voxels
    and the sums of their indices and of these squared [..., 1 + 2 axes].

    The extent is the voxels' mean squared distance from the centroid. Of an empty mask: as of half
    a voxel in the grid's corner.
    """
    axes = len(spacing)
    voxels = np.maximum(sums[..., :1], 0.5)
    centroid, squares = sums[..., 1 : 1 + axes] / voxels, sums[..., 1 + axes :] / voxels
    # That within a voxel is a twelfth of its side squared.
    extent = ((squares - centroid**2 + 1 / 12) * spacing**2).sum(-1, keepdims=True)
    return np.concatenate([np.log(voxels), np.log(extent), centroid * spacing], -1)


def _adjusted(values: Floats, differences: Floats, weights: Floats) -> Floats:
    """Values [n, q] less what a weighted regression on the differences explains.

    With a ridge, lest few particles are fitted to their chance. A patient whom no entry is like
    lies beyond the particles, where nothing says that the regression holds: values are moved no
    further than these reach, by Mahalanobis' distance.
    """
    weights = weights / weights.sum()
    differences = differences / _DIFFERENCE
    mean = weights @ differences
    centred = differences - mean
    weighted = centred.T * weights
    spread = weighted @ centred + (weights**2).sum() * np.eye(len(mean))
    slopes = np.linalg.solve(spread, weighted @ (values - weights @ values))
    distance = math.sqrt(mean @ np.linalg.solve(spread, mean))
    beyond = mean * max(0.0, 1 - _REACH / max(distance, _REACH))
    return np.asarray(values - (differences - beyond) @ slopes)


def quantiles(values: Floats, weights: Floats, shares: tuple[float, ...]) -> Floats:
    """Of each column of values [n, q] with weights [n]: [shares, q]."""
    found = np.empty((len(shares), values.shape[1]))
    for q, column in enumerate(values.T):
        order = np.argsort(column)
        below = np.cumsum(weights[order]) - weights[order] / 2
        found[:, q] = np.interp(shares, below / weights.sum(), column[order])
    return found


def _estimates(values: Floats, weights: Floats, units: Mapping[str, str]) -> dict[str, Estimate]:
    """Of values [n, q]."""
    means = np.average(values, 0, weights)
    deviations = np.sqrt(np.average((values - means) ** 2, 0, weights))
    columns = zip(units.items(), means, deviations, *quantiles(values, weights, SIDES), strict=True)
    return {
        name: Estimate(float(mean), float(sd), (float(low), float(high)), unit)
        for (name, unit), mean, sd, low, high in columns
    }
