"""The objective of a search: how well a simulation explains the observation.

It is the score that ranks the entries of a store, for fields that need not be stored.

Shapes: C fields, `*grid` the grid's axes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from framework.inverse.index.observer import Observer
from framework.inverse.observed.fields import FieldObservation
from solvers.base import Solver


@dataclass(frozen=True)
class Rating:
    """The score of the fields at one time; greater is better."""

    score: float = -math.inf
    # For each mask observed: the best threshold (of equal ones the lowest), and its Dice.
    thresholds: Mapping[str, float] = field(default_factory=dict)
    dice: Mapping[str, float] = field(default_factory=dict)


class Objective(Protocol):
    """Rates simulations; can be sent to another process."""

    def at(self, t: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which of the stored times `t` are to be rated."""

    def rate(self, solver: Solver, fields: NDArray[np.float32]) -> Rating:
        """Rate the fields [C, *grid] at one time."""


@dataclass(frozen=True)
class MaskObjective(Objective):
    """The weighted mean of Dice coefficients, as in `search_masks`."""

    observed: Mapping[str, NDArray[np.bool_]]  # masks [*grid]
    tried: Mapping[str, tuple[float, ...]]  # the thresholds of every mask, as in an index
    weights: Mapping[str, float] | None = None  # of the masks observed; equal if None

    def at(self, t: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.ones(t.shape, dtype=bool)

    def rate(self, solver: Solver, fields: NDArray[np.float32]) -> Rating:
        names = [name for name in self.tried if name in self.observed]
        given = dict.fromkeys(names, 1.0) if self.weights is None else self.weights
        total = sum(given.values())
        masks, corner = Observer(solver, {name: self.tried[name] for name in names}).masks(fields)
        ends = zip(corner, masks.shape[1:], strict=True)
        box = tuple(slice(start, start + length) for start, length in ends)
        of_masks = iter(masks)
        score, thresholds, dice = 0.0, {}, {}
        for name in names:
            dices = [_box_dice(next(of_masks), self.observed[name], box) for _ in self.tried[name]]
            best = int(np.argmax(dices))
            thresholds[name], dice[name] = self.tried[name][best], dices[best]
            score += given.get(name, 0.0) / total * dices[best]
        return Rating(score, thresholds, dice)


@dataclass(frozen=True)
class FieldObjective(Objective):
    """Minus the distance of fields from an observation."""

    observation: FieldObservation

    def at(self, t: NDArray[np.float64]) -> NDArray[np.bool_]:
        return self.observation.at(t)

    def rate(self, solver: Solver, fields: NDArray[np.float32]) -> Rating:
        return Rating(-self.observation.distance(fields))


def _box_dice(
    mask: NDArray[np.bool_], observed: NDArray[np.bool_], box: tuple[slice, ...]
) -> float:
    """Return the Dice coefficient of a mask in a box, empty outside it, and a mask on the grid."""
    voxels = np.count_nonzero(mask) + np.count_nonzero(observed)
    return 1.0 if voxels == 0 else 2.0 * np.count_nonzero(mask & observed[box]) / voxels
