"""An inverse question asked by segmentations, and its answer in the patient's space.

Shapes: C fields, `*grid` the grid's axes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from framework.inverse.index.building import build, imaged_solver
from framework.inverse.index.index import Index
from framework.inverse.inversions.inversion import Inversion
from framework.inverse.observed.masks import (
    Mask,
    MaskObservation,
    covered,
    patient_image,
    read_region,
    to_patient,
)
from framework.inverse.picture import draw_match
from framework.inverse.posterior.calibration import Calibration
from framework.inverse.posterior.particles import Particles
from framework.inverse.posterior.posterior import Posterior, mean_and_deviation
from framework.inverse.refine.objective import MaskObjective, Objective
from framework.inverse.search.masks import MaskAnswer, MaskMatch, search_masks
from framework.store.reader import StoreReader
from solvers.base import ImagedSolver


class MaskInversion(Inversion[MaskMatch, ImagedSolver]):
    """The search for the simulations most like segmentations of a patient."""

    def __init__(
        self,
        store: str,
        observe: Callable[[ImagedSolver], MaskObservation],
        weights: Mapping[str, float] | None,
        top: int,
        recurrence: Path | None = None,
    ) -> None:
        """Read the observation and ask. Raises StudyError and RunError.

        `observe` reads what was observed, for the solver of the store. `recurrence`: a NIfTI mask
        of where the patient's tumour was later.
        """
        reader = StoreReader(store)
        super().__init__(reader, imaged_solver(reader), top)
        self.index = Index.open(self.reader)
        self.observation = observe(self.solver)
        self.region: NDArray[np.intp] | None = None
        if recurrence is not None:
            self.region = read_region(self.observation, recurrence)
        self.calibration = Calibration.read(self.index, self.observation.masks)
        self.warnings += self.observation.warnings
        if self.calibration.least_score is None:
            self.warnings.append(
                "the store is too small to be calibrated: the posterior's intervals are not to be "
                "relied on"
            )
        self.weights = weights
        self.plans: dict[str, dict[str, float]] = {}
        self.answer()

    def ask(self, reader: StoreReader, top: int) -> MaskAnswer:
        return search_masks(self._index(reader), self.observation.masks, self.weights, top)

    def _index(self, reader: StoreReader) -> Index:
        return self.index if reader is self.reader else Index.open(reader)

    def weigh(self) -> Posterior:
        particles = Particles(self.index, self.reader, self.solver, self.observation.masks)
        return particles.at(self.calibration.temperature, self.calibration.stretch)

    def rank(self, match: MaskMatch) -> float:
        return -match.score

    def tell(self, match: MaskMatch) -> dict[str, Any]:
        return {
            "score": match.score,
            "thresholds": dict(match.thresholds),
            "dice": dict(match.dice),
        }

    def objective(self) -> Objective:
        return MaskObjective(self.observation.masks, self.index.masks, self.weights)

    def index_grown(self, path: str) -> None:
        build(path, self.index.masks)

    def coverage(self) -> dict[str, Any]:
        score = self.best_score()
        return {
            "fits": self.calibration.fits(score),
            "score": score,
            "least_score": self.calibration.least_score,
            "false_alarms": self.calibration.false_alarms,
        }

    def best_score(self) -> float:
        """Return the best score of all entries, with the equal weights of the calibration."""
        if self.weights is None:
            return float(self.matches[0][1].score)
        indexes = [self._index(reader) for reader in self.readers()]
        asked = [search_masks(index, self.observation.masks, None, 1) for index in indexes]
        return max(answer.matches[0].score for answer in asked)

    def result(self) -> dict[str, Any]:
        result = super().result()
        result["volumes_ml"] = self.observation.volumes
        result["provenance"]["index"] = {
            "path": str(self.index.folder),
            "entries": self.index.entries,
            "masks": {name: list(values) for name, values in self.index.masks.items()},
            "calibration": self.calibration.summary(),
        }
        if self.plans:
            result["plans"] = self.plans
        return result

    def text(self) -> str:
        coverage = self.coverage()
        says = {
            True: "something in the store fits",
            False: "NOTHING in the store fits what was observed: do not trust the matches; --grow "
            "simulates more around them",
            None: "the store is too small to say whether it fits",
        }[coverage["fits"]]
        if coverage["least_score"] is not None:
            says += (
                f": the best score is {coverage['score']:.3f}; {coverage['false_alarms']:.0%} of "
                f"patients whom the store covers are below {coverage['least_score']:.3f}"
            )
        lines = [super().text(), says]
        for name, plan in self.plans.items():
            share = plan.get("recurrence_covered")
            told = "" if share is None else f", {share:.1%} of the recurrence"
            lines.append(f"plan {name}: {plan['ml']:.1f} ml{told}")
        return "\n".join(lines)

    def write(self, out: Path) -> None:
        observation = self.observation
        reader, match = self.matches[0]
        matched = reader.fields_at(match.simulation, match.position)
        mean, deviation = mean_and_deviation(self.reader, self.posterior)
        images: dict[str, NDArray[Any]] = {}
        for channel, field in enumerate(self.solver.fields):
            images[f"matched_{field.name}"] = to_patient(observation, matched[channel])
            images[f"mean_{field.name}"] = to_patient(observation, mean[channel])
            images[f"sd_{field.name}"] = to_patient(observation, deviation[channel])
        for name, plan in self._plan(images).items():
            images[f"plan_{name}"] = plan
        for name, values in images.items():
            nibabel.save(patient_image(observation, values), out / f"{name}.nii.gz")
        title = f"simulation {match.simulation}, step {reader.steps[match.position]}"
        self._draw(out / "match.png", title, matched, match, mean)

    def _plan(self, images: Mapping[str, NDArray[np.float32]]) -> Mapping[str, Mask]:
        """Make plans [*image] from the mean fields among `images`, and note what to tell of them.

        They are made in the patient's image, so what is told is what counts in the files.
        """
        observation = self.observation
        plans = self.solver.plans(
            observation.images,
            np.stack([images[f"mean_{field.name}"] for field in self.solver.fields]),
            {
                name: to_patient(observation, values)
                for name, values in self.solver.static_fields.items()
            },
            observation.image_affine,
        )
        voxel = abs(np.linalg.det(observation.image_affine[:3, :3])) / 1000  # ml
        for name, plan in plans.items():
            self.plans[name] = {"ml": float(np.count_nonzero(plan) * voxel)}
            if self.region is not None:
                self.plans[name]["recurrence_covered"] = covered(plan, self.region)
        return plans

    def _draw(
        self,
        picture: Path,
        title: str,
        matched: NDArray[np.float32],
        match: MaskMatch,
        mean: NDArray[np.float64],
    ) -> None:
        masks = {
            name: np.asarray(self.solver.observe(matched, **{name: value})[name], dtype=bool)
            for name, value in match.thresholds.items()
        }
        dice = ", ".join(f"{name} {value:.3f}" for name, value in match.dice.items())
        title = f"{title}: Dice {dice}"
        density = mean[0].astype(np.float32)
        name = f"mean {self.solver.fields[0].name}"
        draw_match(picture, self.solver, self.observation.masks, masks, title, density, name)
