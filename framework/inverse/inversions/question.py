"""An inverse question as a whole: what was observed, and how far to look for an explanation.

The modules that answer it are imported only when it is asked, so that a contradiction in the
question is found at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from framework.errors import StudyError, tell
from framework.files import writing

if TYPE_CHECKING:
    from framework.inverse.inversions.fields import FieldInversion
    from framework.inverse.inversions.masks import MaskInversion
    from framework.inverse.observed.masks import MaskObservation
    from solvers.base import ImagedSolver


@dataclass(frozen=True)
class Question:
    """What is asked of a store. The observation is masks, or labels, or a field: one of the three.

    Making a question raises StudyError if its parts contradict each other.
    """

    # Masks in NIfTI, by the names that the store's solver has.
    masks: Mapping[str, Path] = field(default_factory=dict)
    # Or one segmentation in NIfTI, with the convention of its labels, or the labels of each of the
    # solver's regions.
    labels: Path | None = None
    convention: str | None = None
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    # Or values of any solver's fields, see `FieldObservation.read`.
    fields: Path | None = None
    space: str | None = None  # of the images
    affine: Path | None = None  # or a file with the affine that maps them to the store's space
    weights: Mapping[str, float] | None = None  # of the masks
    top: int = 10  # how many matches to report
    grow: int = 0  # simulations to add around the best, before asking again
    refine: bool = False  # whether to search for a better one by simulating
    surrogate: str | None = None  # of fields: refine by its gradients; a run or a model
    recurrence: Path | None = None  # a mask of a later tumour, to judge plans by
    out: Path | None = None  # a folder for result.json, images and a picture

    def __post_init__(self) -> None:
        self._check_sources()
        if self.fields is not None:
            of_masks = (self.weights, self.space, self.affine, self.recurrence)
            if any(option is not None for option in of_masks):
                raise StudyError(
                    "weights, a space, an affine and a recurrence are for segmentations, and not "
                    "for a field"
                )
            return
        if self.surrogate is not None:
            raise StudyError(
                "a surrogate's gradients can refine what is found for a field only: masks have none"
            )
        if self.recurrence is not None and self.out is None:
            raise StudyError(
                "a recurrence is to judge the written plans by: give a folder for them (out), too"
            )

    def ask(self, store: str) -> "FieldInversion | MaskInversion":
        """Ask a store for its best matches. Raises StudyError and RunError."""
        from framework.inverse.inversions.fields import FieldInversion
        from framework.inverse.inversions.masks import MaskInversion

        if self.fields is not None:
            return FieldInversion(store, self.fields, self.top)
        return MaskInversion(store, self._observe, self.weights, self.top, self.recurrence)

    def go_on(self, inversion: "FieldInversion | MaskInversion") -> None:
        """Simulate more and refine as far as asked for, and write the answer.

        Raises StudyError and RunError.
        """
        from framework.inverse.inversions.fields import FieldInversion

        if self.out is not None:  # before the work that takes long
            with writing(self.out):
                self.out.mkdir(parents=True, exist_ok=True)
        if self.grow:
            tell(f"simulating {self.grow} more near the best matches")
            inversion.grow(self.grow)
        if self.surrogate is not None and isinstance(inversion, FieldInversion):
            tell(f"refining the best match by the gradients of {self.surrogate}")
            inversion.descend(self.surrogate)
        elif self.refine:
            tell("refining the best match by simulations")
            inversion.refine()
        if self.out is not None:
            tell(f"writing the answer to {self.out}")
            inversion.save(self.out)

    def _observe(self, solver: "ImagedSolver") -> "MaskObservation":
        """Read what was observed, for the solver of the store. Raises StudyError."""
        from framework.inverse.observed.masks import read_labels, read_masks

        if self.labels is None:
            return read_masks(solver, self.masks, self.space, self.affine)
        meanings = self.convention or self.regions
        return read_labels(solver, self.labels, meanings, self.space, self.affine)

    def _check_sources(self) -> None:
        """Raise StudyError unless exactly one thing was observed, and labels have one meaning."""
        if bool(self.masks) + (self.labels is not None) + (self.fields is not None) != 1:
            raise StudyError(
                "what was observed has to be given once: as masks, one or several, as labels, or "
                "as a field"
            )
        meanings = (self.convention is not None) + bool(self.regions)
        if self.labels is not None and meanings != 1:
            raise StudyError(
                f"what the labels of {self.labels} mean is never guessed: name their convention, "
                "or the labels of each region"
            )
        if self.labels is None and meanings:
            raise StudyError("a convention and regions are for labels, which are not given")
