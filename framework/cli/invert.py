"""The command `invert`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from framework.cli.arguments import numbers_by_name, texts_by_name
from framework.cli.ending import AsJson, ending
from framework.cli.index import StorePath
from framework.errors import StudyError
from framework.files import writing

if TYPE_CHECKING:
    from framework.inverse.observed.masks import MaskObservation
    from solvers.base import ImagedSolver

Masks = Annotated[
    list[str] | None,
    typer.Option(
        "--mask",
        metavar="NAME=FILE",
        help="A mask in NIfTI, of one of the names that the store's solver has; repeatable.",
    ),
]
LabelFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Or a NIfTI segmentation, all labels in one.")
]
ConventionName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="What its labels mean, such as brats2021 or gliodil;"),
]
Regions = Annotated[
    list[str] | None,
    typer.Option(
        "--region",
        metavar="NAME=LABELS",
        help="or which of them a region of the solver's has, such as core=1,4; repeatable.",
    ),
]
FieldFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Or values of any solver's fields: .npz, see docs."),
]
SpaceName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The space of the images: sri24, or own: the store's."),
]
AffineFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Or 4x4 numbers: their mm to the store's mm.")
]
Weights = Annotated[
    str | None, typer.Option(metavar="MASK=NUMBER,...", help="Of the masks [equal].")
]
Top = Annotated[int, typer.Option(metavar="N", help="How many matches to tell.")]
Grow = Annotated[
    int, typer.Option(metavar="N", min=0, help="Simulate N more around the best, ask again.")
]
Refine = Annotated[
    bool, typer.Option("--refine", help="Then search for a better one by simulating.")
]
SurrogateOf = Annotated[
    str | None,
    typer.Option(
        metavar="RUN_OR_MODEL", help="With --field: refine by the gradients of a trained surrogate."
    ),
]
Recurrence = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="NIfTI mask of a later tumour, to judge plans by."),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where to write result.json, images and a picture."),
]


def invert_command(
    store: StorePath,
    mask: Masks = None,
    labels: LabelFile = None,
    convention: ConventionName = None,
    region: Regions = None,
    field: FieldFile = None,
    space: SpaceName = None,
    affine: AffineFile = None,
    weights: Weights = None,
    top: Top = 10,
    grow: Grow = 0,
    refine: Refine = False,
    surrogate: SurrogateOf = None,
    recurrence: Recurrence = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Find stored simulations that explain an observation, by exact look-up."""
    with ending(as_json) as outcome:
        files = {name: Path(text) for name, text in texts_by_name(mask or []).items()}
        meanings = {name: _labels(text, name) for name, text in texts_by_name(region or []).items()}
        _check_sources(files, labels, field, convention, meanings)
        from framework.inverse.inversions.fields import FieldInversion
        from framework.inverse.inversions.masks import MaskInversion

        inversion: FieldInversion | MaskInversion
        if field is not None:
            _check_for_fields(weights, space, affine, recurrence)
            inversion = FieldInversion(store, field, top)
        else:
            _check_for_masks(surrogate, recurrence, out)
            read = _reader(files, labels, convention or meanings, space, affine)
            shares = numbers_by_name(weights.split(",")) if weights else None
            inversion = MaskInversion(store, read, shares, top, recurrence)
        outcome.result, outcome.text = inversion.result, inversion.text
        if out is not None:  # before what takes long
            with writing(out):
                out.mkdir(parents=True, exist_ok=True)
        if grow:
            inversion.grow(grow)
        if surrogate is not None and isinstance(inversion, FieldInversion):
            inversion.descend(surrogate)
        elif refine:
            inversion.refine()
        if out is not None:
            inversion.save(out)


def _reader(
    files: Mapping[str, Path],
    labels: Path | None,
    meanings: str | Mapping[str, tuple[int, ...]],
    space: str | None,
    affine: Path | None,
) -> "Callable[[ImagedSolver], MaskObservation]":
    """Make what reads the observation for a solver: masks in files of their own, or labels."""
    from framework.inverse.observed.masks import read_labels, read_masks

    def read(solver: "ImagedSolver") -> "MaskObservation":
        if labels is None:
            return read_masks(solver, files, space, affine)
        return read_labels(solver, labels, meanings, space, affine)

    return read


def _check_sources(
    masks: Mapping[str, Path],
    labels: Path | None,
    field: Path | None,
    convention: str | None,
    regions: Mapping[str, tuple[int, ...]],
) -> None:
    """Raise StudyError unless exactly one thing was observed, and labels have one meaning."""
    if bool(masks) + (labels is not None) + (field is not None) != 1:
        raise StudyError(
            "what was observed has to be given once: as --mask NAME=FILE, one or several, as "
            "--labels, or as --field"
        )
    meanings = (convention is not None) + bool(regions)
    if labels is not None and meanings != 1:
        raise StudyError(
            f"what the labels of {labels} mean is never guessed: name their --convention, or the "
            "labels of each --region"
        )
    if labels is None and meanings:
        raise StudyError("--convention and --region are for --labels, which is not given")


def _check_for_fields(*of_masks: object) -> None:
    """Raise StudyError on options that are for segmentations only."""
    if any(option is not None for option in of_masks):
        raise StudyError(
            "--weights, --space, --affine and --recurrence are for segmentations, and not for "
            "--field"
        )


def _check_for_masks(surrogate: str | None, recurrence: Path | None, out: Path | None) -> None:
    """Raise StudyError on options that segmentations cannot have."""
    if surrogate is not None:
        raise StudyError(
            "a --surrogate's gradients can refine what is found for --field only: masks have none"
        )
    if recurrence is not None and out is None:
        raise StudyError("--recurrence is for the plans that are written: give --out too")


def _labels(text: str, name: str) -> tuple[int, ...]:
    """Read labels with commas between them. Raises StudyError."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise StudyError(
            f"--region {name} has {text}: it has to be whole numbers with commas, such as 1,4"
        ) from None
