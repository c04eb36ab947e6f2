"""The posterior for masks: entries at every choice of thresholds, weighted by their likelihood.

The likelihood of an entry is exp(score / temperature), summed over the indexed thresholds, each
weighted by its share of a uniform distribution between the lowest and the highest. The
score is the mean Dice coefficient; calibration fits the temperature so that credible intervals hold
what they promise.

A store is sparse: few entries come close to the observation. So the values of entries are corrected
by a linear regression on their differences from it (Beaumont, Zhang and Balding, Genetics 162,
2002). The differences are those of volumes, centroids and extents of the masks; the extent, the
mean squared distance of voxels from the centroid, tells a wide front from a sharp one at the same
volume. The observation has a rater's noise and entries have not, so values are then stretched about
their median, by the factors of the calibration. This makes intervals narrower at the same coverage.
Mean and deviation of the fields are those of the entries, without this correction.

Shapes: n entries, m particles (an entry at one choice of thresholds), q quantities, M masks.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from framework.errors import StudyError
from framework.inverse.index.index import Index
from framework.inverse.index.records import moments
from framework.inverse.posterior.posterior import (
    LEAST_WEIGHT,
    Numbers,
    Posterior,
    estimates,
    quantiles,
    quantities_of,
)
from framework.inverse.search.masks import Observed, dice_coefficients, search_masks
from framework.store.reader import StoreReader
from solvers.base import Solver

# Only the best entries count, at most this many.
_MOST_ENTRIES = 400
# The scale of relative differences of masks in the regression.
DIFFERENCE = 0.3
# How far the regression is followed, in standard deviations of the particles: of 120 patients whom
# a store covers, 7 % are further away (half are at 1.3 or more, one at 3.0); a real glioma is at
# 4.2.
REACH = 2.0


class Particles:
    """The entries most like the masks observed, at every choice of thresholds."""

    def __init__(
        self,
        index: Index,
        reader: StoreReader,
        solver: Solver,
        observed: Observed,
        leave_out: int | None = None,
    ) -> None:
        """Search the index; `leave_out` is a simulation whose entries do not count.

        Raises StudyError if the masks do not suit the index, DamagedError if it is damaged.
        """
        others = index.entries - int(np.count_nonzero(index.keys[:, 0] == leave_out))
        top = min(_MOST_ENTRIES, max(others, 1))
        answer = search_masks(index, observed, None, top, leave_out)
        entries = np.array([match.entry for match in answer.matches])
        self.best = answer.matches[0].score
        self._keys = index.keys[entries]
        dices = dice_coefficients(index, observed, entries)
        names = list(dices)
        # Scores [n, thresholds of the first mask, of the second ...], and logarithms of priors.
        axes = np.eye(len(names), dtype=int)
        self._scores = np.zeros((len(entries), *(1,) * len(names)))
        self._prior = np.zeros(self._scores.shape[1:])
        for name, axis in zip(names, axes, strict=True):
            shape = np.where(axis, len(index.masks[name]), 1)
            self._scores = self._scores + dices[name].reshape(-1, *shape) / len(names)
            self._prior = self._prior + np.log(_shares(index.masks[name])).reshape(shape)
        found = quantities_of(reader, solver, self._keys)
        self.units = {name: quantity.units for name, quantity in found.items()}
        self.positive = np.array([quantity.positive for quantity in found.values()])
        self._values = np.stack([quantity.values for quantity in found.values()], 1)  # [n, q]
        self._differences = _differences(index, solver, observed, entries)

    def at(self, temperature: float, stretch: Mapping[str, float] | None = None) -> Posterior:
        """Return the posterior at a temperature.

        `stretch`: by how much the values of each quantity are moved away from their median. Raises
        StudyError as `values` does.
        """
        entries, values, weights = self.values(temperature)
        middle = quantiles(values, weights, (0.5,))[0]
        factors = np.array([(stretch or {}).get(name, 1.0) for name in self.units])
        values = middle + factors * (values - middle)
        kept = entries > LEAST_WEIGHT * entries.max()
        return Posterior(
            self._keys[kept],
            entries[kept] / entries[kept].sum(),
            estimates(np.where(self.positive, np.exp(values), values), weights, self.units),
        )

    def values(self, temperature: float) -> tuple[Numbers, Numbers, Numbers]:
        """Return weights of the entries [n], and values [m, q] and weights [m] of the particles.

        Values of positive quantities are logarithms. Raises StudyError if nothing has grown in any
        of the entries.
        """
        likelihoods = (self._scores - self._scores.max()) / temperature + self._prior
        weights = np.exp(likelihoods - likelihoods.max())
        # A size of 0 cannot be seen, and has no logarithm to regress on.
        weights[(self._values[:, self.positive] <= 0).any(1)] = 0
        if not weights.any():
            raise StudyError(
                f"in none of the {len(weights)} entries most like what was observed has anything "
                "grown yet, so nothing can be said of sizes: add simulations with later times"
            )
        chosen = np.nonzero(weights > LEAST_WEIGHT * weights.max())
        values = np.where(self.positive, np.log(np.maximum(self._values, 1e-300)), self._values)
        moved = regressed(values[chosen[0]], self._at(chosen), weights[chosen])
        return weights.reshape(len(weights), -1).sum(1), moved, weights[chosen]

    def _at(self, chosen: tuple[NDArray[np.intp], ...]) -> Numbers:
        """Return the differences of particles from the observation [m, (2 + axes) M]."""
        entries, *thresholds = chosen
        parts = zip(self._differences, thresholds, strict=True)
        return np.concatenate([of_mask[entries, t] for of_mask, t in parts], 1)


def regressed(values: Numbers, differences: Numbers, weights: Numbers) -> Numbers:
    """Return values [m, q] less what a weighted regression on differences [m, d] explains.

    A ridge keeps the regression from fitting the noise of few particles. A patient unlike every
    entry lies beyond the particles, where the regression need not hold: values are moved no further
    than the particles reach, by Mahalanobis' distance.
    """
    weights = weights / weights.sum()
    differences = differences / DIFFERENCE
    mean = weights @ differences
    centred = differences - mean
    weighted = centred.T * weights
    spread = weighted @ centred + (weights**2).sum() * np.eye(len(mean))
    slopes = np.linalg.solve(spread, weighted @ (values - weights @ values))
    distance = math.sqrt(mean @ np.linalg.solve(spread, mean))
    beyond = mean * max(0.0, 1 - REACH / max(distance, REACH))
    return np.asarray(values - (differences - beyond) @ slopes)


def _shares(thresholds: tuple[float, ...]) -> Numbers:
    """Return the part of a uniform distribution that is nearest to each threshold.

    The distribution lies between the lowest and the highest threshold.
    """
    if len(thresholds) == 1:
        return np.ones(1)
    values = np.array(thresholds)
    middles = (values[1:] + values[:-1]) / 2
    lengths = np.diff(np.concatenate([values[:1], middles, values[-1:]]))
    return np.asarray(lengths / lengths.sum())


def _differences(
    index: Index, solver: Solver, observed: Observed, entries: NDArray[np.int64]
) -> list[Numbers]:
    """Return the differences of entries' masks from those observed.

    They are [n, thresholds, 2 + axes] for each mask: those of `_shape`, with centroids in units of
    the radius of what was observed. The records of the entries have to be checked already.
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
        indices = np.argwhere(observed[name])
        radius = (max(len(indices), 1) * spacing.prod()) ** (1 / axes) / 2
        of_observed = np.array([len(indices), *indices.sum(0), *(indices**2).sum(0)])
        scaled = spacing / radius
        differences.append(_shape(sums[:, :, used], scaled) - _shape(of_observed, scaled))
    return differences


def _shape(sums: NDArray[np.int64], spacing: Numbers) -> Numbers:
    """Return the logarithms of volume and extent, and the centroid [..., 2 + axes], of masks.

    `sums` [..., 1 + 2 axes]: the number of voxels, the sums of their indices, and of these squared.
    The extent is the voxels' mean squared distance from the centroid. An empty mask counts as half
    a voxel in the grid's corner.
    """
    axes = len(spacing)
    voxels = np.maximum(sums[..., :1], 0.5)
    centroid, squares = sums[..., 1 : 1 + axes] / voxels, sums[..., 1 + axes :] / voxels
    # Within a voxel the mean squared distance is a twelfth of its side squared.
    extent = ((squares - centroid**2 + 1 / 12) * spacing**2).sum(-1, keepdims=True)
    return np.concatenate([np.log(voxels), np.log(extent), centroid * spacing], -1)
