"""Calibrate the answers for masks on the store's own simulations.

Patients are made from stored simulations: a kept step is observed at thresholds drawn evenly
between the lowest and the highest that are indexed, and every boundary is moved by as much as two
raters differ. For each patient a posterior is made from all other simulations, at several
temperatures. The best temperature is that at which 90 % intervals hold the truth most nearly in
90 % of cases, in the mean over the quantities; the intervals of each quantity are then stretched
until they do. The patients' best scores show which scores are rare for a patient whom the store
covers. All this is done for every choice of masks, as some may not be observed. The result is kept
beside the index, and holds for that state of it.

Shapes: t temperatures, q quantities.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from framework.errors import DamagedError, StudyError, reason
from framework.files import write_text
from framework.inverse.index.building import imaged_solver
from framework.inverse.index.index import Index
from framework.inverse.index.layout import index_folder, manifest_checksum
from framework.inverse.posterior.particles import Particles
from framework.inverse.posterior.patients import patients
from framework.inverse.posterior.posterior import SIDES, Numbers, quantiles, quantities_of
from framework.store.reader import StoreReader
from framework.study.streams import Stream, generator
from solvers.base import Solver

FILE = "calibration.json"
# How many patients are made, and the temperatures that are tried.
PATIENTS, TEMPERATURES = 300, (0.05, 0.06, 0.07, 0.08, 0.1, 0.13)
# With fewer patients or fewer simulations nothing can be said.
_FEWEST = 40
# The share of truths that 90 % intervals should hold.
_SHARE = 0.9
# The share of patients covered by the store for whom nothing is said to fit.
FALSE_ALARMS = 0.05


@dataclass(frozen=True)
class Calibration:
    """The calibration for patients of whom these masks are observed."""

    masks: tuple[str, ...]
    entries: int  # of the index
    temperature: float
    # By how much the values of each quantity have to be moved away from their median.
    stretch: Mapping[str, float]
    # Below this score nothing fits; a share `false_alarms` of patients whom the store covers is
    # below it. None if there were too few patients to say.
    least_score: float | None
    false_alarms: float
    # How often the 90 % interval of each quantity held the truth of `checked` patients, where the
    # intervals of each half are stretched by the factors found on the other half; and the median
    # width of the interval as a part of the prior's.
    checked: int
    coverage: Mapping[str, float]
    width: Mapping[str, float]

    @classmethod
    def read(cls, index: Index, masks: Collection[str] | None = None) -> Self:
        """Read the calibration kept beside an index for these masks; for all its masks if None.

        Raises StudyError if none is kept for the index as it is now, DamagedError if the file is
        damaged.
        """
        path = index.folder / FILE
        try:
            kept = [cls(**{**one, "masks": tuple(one["masks"])}) for one in _read_file(path)]
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise DamagedError(
                f"{path} is damaged: {reason(error)}; remove it and run millstream index again"
            ) from None
        wanted = set(index.masks if masks is None else masks)
        for one in kept:
            if one.entries == index.entries and set(one.masks) == wanted:
                return one
        raise StudyError(
            f"the index {index.folder} is not calibrated: run millstream index "
            f"{str(index.folder).removesuffix('.index')}, which was interrupted"
        )

    def fits(self, score: float) -> bool | None:
        """Return whether the store fits an observation with this best score; None if unknown."""
        return None if self.least_score is None else score >= self.least_score

    def summary(self) -> dict[str, Any]:
        """Return the calibration as plain values."""
        return asdict(self)


def calibrated(store: str) -> Calibration:
    """Return the calibration of a store's index; make it if the index as it is now has none."""
    reader = StoreReader(store)
    index = Index(index_folder(reader.path))
    index.check(reader)
    try:
        return Calibration.read(index)
    except StudyError:
        return calibrate(store)


def calibrate(
    store: str, count: int = PATIENTS, temperatures: Sequence[float] = TEMPERATURES
) -> Calibration:
    """Calibrate the index of a store and keep the result beside it; return that for all masks.

    Makes `count` patients, or none if the store has few simulations. Raises StudyError if there is
    no index, or one of another store, DamagedError if it or the store is damaged, and WriteError if
    the result cannot be written.
    """
    reader = StoreReader(store)
    # The store may have more simulations by now than the index.
    index, solver = Index(index_folder(reader.path)), imaged_solver(reader)
    index.check(reader)
    random = generator(reader.study["seed"], Stream.CALIBRATION)
    # Patients made from few simulations are too much alike.
    if len(np.unique(index.keys[:, 0])) < _FEWEST:
        count = 0
    names = list(index.masks)
    choices = [chosen for n in range(len(names), 0, -1) for chosen in combinations(names, n)]
    trials: dict[tuple[str, ...], list[_Trial]] = {chosen: [] for chosen in choices}
    for simulation, position, observed in patients(index, reader, solver, count, random):
        for chosen in choices:
            particles = Particles(
                index, reader, solver, {name: observed[name] for name in chosen}, simulation
            )
            key = np.array([[simulation, position]])
            trials[chosen].append(_Trial.of(particles, reader, solver, key, temperatures))
    found = [_fitted(index, reader, solver, *item, temperatures) for item in trials.items()]
    kept: dict[str, Any] = {"found": [calibration.summary() for calibration in found]}
    text = json.dumps({**kept, "checksum": manifest_checksum(kept)}, indent=1)
    write_text(index.folder / FILE, text)
    return found[0]


def _read_file(path: Path) -> list[dict[str, Any]]:
    """Read the calibrations in a file; none if it is not there. Raises ValueError, LookupError."""
    try:
        kept: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return []
    if kept.pop("checksum") != manifest_checksum(kept):
        raise ValueError("its checksum is wrong")
    found: list[dict[str, Any]] = kept["found"]
    return found


@dataclass(frozen=True)
class _Trial:
    """The answer of all other simulations to one patient. Positive quantities are logarithms."""

    score: float  # the best
    true: Numbers  # the true values [q]
    found: Numbers  # the median and the ends of the intervals, at every temperature [t, 3, q]

    @classmethod
    def of(
        cls,
        particles: Particles,
        reader: StoreReader,
        solver: Solver,
        key: NDArray[np.int64],
        temperatures: Sequence[float],
    ) -> Self:
        """Compare `particles` with the entry `key` [1, 2] that the patient was made from."""
        truth = quantities_of(reader, solver, key).values()
        true = np.array([quantity.values[0] for quantity in truth])
        true = np.where(particles.positive, np.log(np.maximum(true, 1e-300)), true)
        found = [
            quantiles(*particles.values(temperature)[1:], (0.5, *SIDES))
            for temperature in temperatures
        ]
        return cls(particles.best, true, np.array(found))

    def needed(self) -> Numbers:
        """Return the least factors [t, q] by which to stretch intervals to hold the truth."""
        middle, ends = self.found[:, 0], self.found[:, 1:]
        away = self.true - middle
        reach = np.where(away < 0, middle - ends[:, 0], ends[:, 1] - middle)
        return np.asarray(np.abs(away) / np.maximum(reach, 1e-9))

    def widths(self, t: int, factors: Numbers, positive: NDArray[np.bool_]) -> Numbers:
        """Return the widths [q], in natural units, of intervals stretched by factors.

        `t` is the number of the temperature.
        """
        middle, *ends = self.found[t]
        low, high = (middle + factors * (end - middle) for end in ends)
        return np.asarray(np.where(positive, np.exp(high) - np.exp(low), high - low))


def _fitted(
    index: Index,
    reader: StoreReader,
    solver: Solver,
    masks: tuple[str, ...],
    trials: list[_Trial],
    temperatures: Sequence[float],
) -> Calibration:
    """Return the calibration for these masks, from the trials of patients."""
    if len(trials) < _FEWEST:
        middle = temperatures[len(temperatures) // 2]
        return Calibration(masks, index.entries, middle, {}, None, FALSE_ALARMS, 0, {}, {})
    prior = quantities_of(reader, solver, index.keys)
    positive = np.array([quantity.positive for quantity in prior.values()])
    needed = np.array([trial.needed() for trial in trials])  # [patients, t, q]
    t = int(np.abs((needed <= 1).mean(axis=(0, 2)) - _SHARE).argmin())
    needed = needed[:, t]
    one, other = needed[::2], needed[1::2]
    held = np.concatenate([one <= _factors(other), other <= _factors(one)]).mean(axis=0)
    factors = _factors(needed)
    whole = [np.subtract(*np.quantile(quantity.values, SIDES[::-1])) for quantity in prior.values()]
    width = np.median([trial.widths(t, factors, positive) for trial in trials], axis=0)
    # A quantity that is the same in the whole store has no width to compare with.
    width = np.divide(width, whole, out=np.zeros(len(whole)), where=np.array(whole) > 0)
    return Calibration(
        masks,
        index.entries,
        temperatures[t],
        dict(zip(prior, factors.tolist(), strict=True)),
        float(np.quantile([trial.score for trial in trials], FALSE_ALARMS)),
        FALSE_ALARMS,
        len(trials),
        dict(zip(prior, held.tolist(), strict=True)),
        dict(zip(prior, width.tolist(), strict=True)),
    )


def _factors(needed: Numbers) -> Numbers:
    """Return the factors [q] that are enough for as many patients as an interval promises."""
    return np.asarray(np.quantile(needed, _SHARE, axis=0))
