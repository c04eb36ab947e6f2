"""Inverse questions: find the stored simulations that explain an observation."""

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt, PositiveInt

from framework.inverse.inversions.question import Question
from millstream.arguments import checked

PathLikeString = str | PathLike[str]


@checked
def invert(
    store: PathLikeString,
    *,
    masks: Mapping[str, PathLikeString] | None = None,
    labels: PathLikeString | None = None,
    convention: str | None = None,
    regions: Mapping[str, Sequence[int]] | None = None,
    field: PathLikeString | None = None,
    space: str | None = None,
    affine: PathLikeString | None = None,
    weights: Mapping[str, float] | None = None,
    top: PositiveInt = 10,
    grow: NonNegativeInt = 0,
    refine: bool = False,
    surrogate: PathLikeString | None = None,
    recurrence: PathLikeString | None = None,
    out: PathLikeString | None = None,
) -> dict[str, Any]:
    """Find stored simulations that explain an observation, by exact look-up.

    What was observed is given once: as `masks`, as `labels`, or as `field`. Masks and labels need
    the store's index, which `millstream index` builds.

    Args:
        store: The store of simulations, such as `stores/NAME.zarr`.
        masks: Masks in NIfTI, by the names that the store's solver has.
        labels: One segmentation in NIfTI, with all labels.
        convention: What its labels mean, such as `brats2021` or `gliodil`;
        regions: or the labels of each region of the solver, such as `{"core": (1, 4)}`.
        field: Values of the solver's fields, in a numpy `.npz` file.
        space: The space of the images, such as `sri24`, or `own` for the store's.
        affine: A file of 4x4 numbers that map the images' mm to the store's.
        weights: How much each mask counts; without it, all count alike.
        top: How many matches to return.
        grow: How many simulations to add near the best matches before searching again.
        refine: Then search for a better one by simulating.
        surrogate: For a `field`: refine by the gradients of this trained surrogate, a run or a
            model.
        recurrence: A NIfTI mask of a later tumour, to judge plans by; needs `out`.
        out: A folder for `result.json`, images and a picture.

    Returns:
        The plain values that `millstream invert --json` prints: `matches`, the best first, with
        their parameters and times; `posterior`; `coverage`, whether anything in the store fits.

    Raises:
        StudyError: The question contradicts itself, or a file is not what it has to be.
        RunError: The store or its index is damaged, or the answer cannot be written.

    Example:
        >>> found = millstream.invert(
        ...     "stores/tumor_database.zarr", labels="patient.nii.gz", convention="gliodil"
        ... )
        >>> best = found["matches"][0]["parameters"]
    """
    # Long because the reference is made from the docstring, which describes every argument.
    question = Question(
        masks={name: Path(file) for name, file in (masks or {}).items()},
        labels=_path(labels),
        convention=convention,
        regions={name: tuple(numbers) for name, numbers in (regions or {}).items()},
        fields=_path(field),
        space=space,
        affine=_path(affine),
        weights=weights,
        top=top,
        grow=grow,
        refine=refine,
        surrogate=None if surrogate is None else fspath(surrogate),
        recurrence=_path(recurrence),
        out=_path(out),
    )
    inversion = question.ask(fspath(store))
    question.go_on(inversion)
    return inversion.result()


def _path(file: PathLikeString | None) -> Path | None:
    return None if file is None else Path(file)
