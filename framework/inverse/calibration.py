"""How far the answers for segmentations can be trusted, found out on the store's own simulations.

Patients are made of stored simulations: a kept step is observed at thresholds drawn evenly between
the lowest and the highest that are indexed, and every boundary is moved as two raters differ. For
each a posterior is made of all other simulations, at several temperatures. Chosen is that at which
90 % intervals hold the truth most nearly as often as they say, in the mean over the quantities; and
what each of these still lacks is made up for by stretching its intervals. The best scores say what
is rare for a patient that the store covers. All this for every choice of masks, as some may not be
observed. What was found is kept beside the index, and is of that state of it.

Shapes: t temperatures, q quantities.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from framework.errors import RunError, StudyError, reason
from framework.files import write_text
from framework.inverse.index.index import Index, index_folder, manifest_checksum
from framework.inverse.posterior import SIDES, Floats, Particles, quantiles
from framework.inverse.search.query import Observed
from framework.store.attributes import solver_of
from framework.store.reader import StoreReader
from solvers.base import Solver

FILE = "calibration.json"
# Patients that are made, how many entries are tried for one, and with fewer than which, or of fewer
# simulations, nothing can be said.
_PATIENTS, _TRIES, _FEWEST = 300, 20, 40
# The temperatures that are tried.
_TEMPERATURES = (0.05, 0.06, 0.07, 0.08, 0.1, 0.13)
# What 90 % intervals are to hold.
_SHARE = 0.9
# How a boundary is moved: standard deviation and correlation length, in the grid's units (mm).
# Five automatic raters of a glioma differed from their fusion by 0.1-1.4 mm in the mean.
NOISE, CORRELATION = 1.0, 10.0
# The share of patients whom the store covers that are told that nothing fits.
FALSE_ALARMS = 0.05
# Voxels that every mask of a patient has at least: of less nothing would be segmented.
_VISIBLE = 27


@dataclass(frozen=True)
class Calibration:
    """What was found for patients of whom these masks are observed.

    `stretch`: by how much the values of each quantity have to be moved away from their median.
    `least_score`: below it nothing fits, with `false_alarms` among patients who are covered; None
    if there were too few patients to say. `coverage`: how often the 90 % interval of each quantity
    held the truth of `checked` patients, those of each half stretched by what was found on the
    other; and `width`: its median as a part of the prior's.
    """

    masks: tuple[str, ...]
    entries: int
    temperature: float
    stretch: Mapping[str, float]
    least_score: float | None
    false_alarms: float
    checked: int
    coverage: Mapping[str, float]
    width: Mapping[str, float]

    @classmethod
    def read(cls, index: Index, masks: Collection[str] | None = None) -> Self:
        """What is kept beside an index for these masks, or for all of it.

        Raises StudyError if there is nothing of the index's state, and RunError if it is damaged.
        """
        path = index.folder / FILE
        try:
            kept = [cls(**{**one, "masks": tuple(one["masks"])}) for one in _read(path)]
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise RunError(
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
        """Whether anything in the store fits an observation with this best score."""
        return None if self.least_score is None else score >= self.least_score

    def summary(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def calibrated(store: str) -> Calibration:
    """As `calibrate`, which is only done if it was not yet for what the index has."""
    reader = StoreReader(store)
    index = Index(index_folder(reader.path))
    index.check(reader)
    try:
        return Calibration.read(index)
    except StudyError:
        return calibrate(store)


def calibrate(store: str) -> Calibration:
    """Make patients of a store that is indexed, and keep what they teach beside the index; returned
    is what they teach where all masks are observed.

    Raises StudyError if there is no index, or one of another store, and RunError if it or the store
    is damaged, or the calibration cannot be written.
    """
    reader = StoreReader(store)
    index, solver = Index(index_folder(reader.path)), solver_of(reader)
    index.check(reader)  # but the store may have more by now
    random = np.random.default_rng(0)
    # Patients of few simulations say the same over and over.
    count = _PATIENTS if len(np.unique(index.keys[:, 0])) >= _FEWEST else 0
    names = list(index.masks)
    choices = [chosen for n in range(len(names), 0, -1) for chosen in combinations(names, n)]
    found: dict[tuple[str, ...], list[_Patient]] = {chosen: [] for chosen in choices}
    for simulation, step, observed in patients(index, reader, solver, count, random):
        for chosen in choices:
            masks = {name: observed[name] for name in chosen}
            found[chosen].append(_try(index, reader, solver, masks, simulation, step))
    calibrations = [_fitted(index, reader, solver, *item) for item in found.items()]
    path = index.folder / FILE
    kept: dict[str, Any] = {"found": [calibration.summary() for calibration in calibrations]}
    write_text(path, json.dumps({**kept, "checksum": manifest_checksum(kept)}, indent=1))
    return calibrations[0]


def _read(path: Path) -> list[dict[str, Any]]:
    """What is in the file, nothing if there is none. Raises ValueError and LookupError."""
    try:
        kept: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return []
    if kept.pop("checksum") != manifest_checksum(kept):
        raise ValueError("its checksum is wrong")
    found: list[dict[str, Any]] = kept["found"]
    return found


@dataclass(frozen=True)
class _Patient:
    """One that was made: the best score, the true values [q], and the median and the ends of the
    intervals at every temperature [t, 3, q]; values that are positive as logarithms."""

    score: float
    true: Floats
    found: Floats

    def needed(self) -> Floats:
        """The least factors [t, q] by which intervals that are stretched hold the truth."""
        middle, ends = self.found[:, 0], self.found[:, 1:]
        away = self.true - middle
        reach = np.where(away < 0, middle - ends[:, 0], ends[:, 1] - middle)
        return np.asarray(np.abs(away) / np.maximum(reach, 1e-9))

    def widths(self, t: int, factors: Floats, positive: NDArray[np.bool_]) -> Floats:
        """Of the intervals [q] at one temperature stretched by factors [q], in natural units."""
        middle, *ends = self.found[t]
        low, high = (middle + factors * (end - middle) for end in ends)
        return np.asarray(np.where(positive, np.exp(high) - np.exp(low), high - low))


def patients(
    index: Index,
    reader: StoreReader,
    solver: Solver,
    count: int,
    random: np.random.Generator,
) -> Iterator[tuple[int, int, Observed]]:
    """At most so many: simulation, position of the step, and what is observed of it."""
    lowest = index.sizes[list(index.first.values())]
    seen = np.flatnonzero(lowest.all(axis=0))  # the others have nothing to see at any threshold
    simulations, steps = index.keys.T
    told = solver.identifiable(reader.parameters[simulations], reader.t[simulations, steps])
    # What a posterior leaves out: a seed that has not grown, however large it is.
    possible = np.ones(index.entries, dtype=bool)
    for quantity in told.values():
        possible &= (quantity.values > 0) | (not quantity.positive)
    for entry in random.permutation(seen)[: _TRIES * count].tolist():
        simulation, step = index.keys[entry].tolist()
        observed = observe(solver, reader.step(simulation, step), index.masks, random)
        if observed is not None and possible[entry]:
            yield simulation, step, observed
            count -= 1
            if not count:
                return


def observe(
    solver: Solver,
    fields: NDArray[np.float32],
    masks: Mapping[str, tuple[float, ...]],
    random: np.random.Generator,
) -> Observed | None:
    """Segmentations of fields [C, *grid] by a rater, or None if there is too little to see."""
    observed = {}
    for name, thresholds in masks.items():
        value = random.uniform(thresholds[0], thresholds[-1])
        mask = np.asarray(solver.observe(fields, **{name: value})[name], dtype=bool)
        mask = moved(mask, solver.grid.spacing, random)
        if np.count_nonzero(mask) < _VISIBLE:
            return None
        observed[name] = mask
    return observed


def moved(
    mask: NDArray[np.bool_], spacing: tuple[float, ...], random: np.random.Generator
) -> NDArray[np.bool_]:
    """A mask [*grid] whose boundary is moved by a smooth random field, out or in."""
    if not mask.any():
        return mask
    where = np.argwhere(mask)
    rim = np.ceil((4 * NOISE) / np.array(spacing)).astype(int) + 1
    low = np.maximum(where.min(0) - rim, 0)
    box = tuple(map(slice, low, where.max(0) + 1 + rim))
    part = mask[box]
    # Signed distances from the boundary, which lies half a voxel from the nearest middles.
    half = min(spacing) / 2
    inside = ndimage.distance_transform_edt(part, spacing)
    outside = ndimage.distance_transform_edt(~part, spacing)
    distance = np.where(part, inside - half, half - outside)
    # The correlation of white noise after a Gaussian filter is a Gaussian, wider by sqrt(2).
    sigma = CORRELATION / np.sqrt(2) / np.array(spacing)
    pad = np.ceil(3 * sigma).astype(int)
    white = random.standard_normal(np.add(part.shape, 2 * pad))
    smooth = ndimage.gaussian_filter(white, sigma, truncate=3.0)
    smooth = smooth[tuple(slice(p, p + n) for p, n in zip(pad, part.shape, strict=True))]
    smooth *= np.prod(np.sqrt(2 * np.sqrt(np.pi) * sigma))  # to a deviation of 1
    result = np.zeros_like(mask)
    result[box] = distance + NOISE * smooth > 0
    return result


def _try(
    index: Index,
    reader: StoreReader,
    solver: Solver,
    observed: Observed,
    simulation: int,
    step: int,
) -> _Patient:
    """Ask what all other simulations say of a patient whose truth is known."""
    particles = Particles(index, reader, solver, observed, simulation)
    t = reader.t[simulation, step : step + 1]
    truth = solver.identifiable(reader.parameters[simulation : simulation + 1], t)
    true = np.array([quantity.values[0] for quantity in truth.values()])
    true = np.where(particles.positive, np.log(np.maximum(true, 1e-300)), true)
    found = [
        quantiles(*particles.values(temperature)[1:], (0.5, *SIDES))
        for temperature in _TEMPERATURES
    ]
    return _Patient(particles.best, true, np.array(found))


def _fitted(
    index: Index, reader: StoreReader, solver: Solver, masks: tuple[str, ...], found: list[_Patient]
) -> Calibration:
    """The calibration for these masks, from what was found of patients."""
    simulations, steps = index.keys.T
    all = solver.identifiable(reader.parameters[simulations], reader.t[simulations, steps])
    if len(found) < _FEWEST:
        middle = _TEMPERATURES[len(_TEMPERATURES) // 2]
        return Calibration(masks, index.entries, middle, {}, None, FALSE_ALARMS, 0, {}, {})
    positive = np.array([quantity.positive for quantity in all.values()])
    needed = np.array([patient.needed() for patient in found])  # [patients, t, q]
    t = int(np.abs((needed <= 1).mean(axis=(0, 2)) - _SHARE).argmin())
    needed = needed[:, t]
    one, other = needed[::2], needed[1::2]
    held = np.concatenate([one <= _factors(other), other <= _factors(one)]).mean(axis=0)
    factors = _factors(needed)
    prior = [np.subtract(*np.quantile(quantity.values, SIDES[::-1])) for quantity in all.values()]
    width = np.median([patient.widths(t, factors, positive) for patient in found], axis=0)
    # Of what is the same in the whole store there is nothing to tell.
    width = np.divide(width, prior, out=np.zeros(len(prior)), where=np.array(prior) > 0)
    return Calibration(
        masks,
        index.entries,
        _TEMPERATURES[t],
        dict(zip(all, factors.tolist(), strict=True)),
        float(np.quantile([patient.score for patient in found], FALSE_ALARMS)),
        FALSE_ALARMS,
        len(found),
        dict(zip(all, held.tolist(), strict=True)),
        dict(zip(all, width.tolist(), strict=True)),
    )


def _factors(needed: Floats) -> Floats:
    """Of those needed [patients, q], what is enough for so many as an interval promises."""
    return np.asarray(np.quantile(needed, _SHARE, axis=0))
