"""The command `invert`."""

from pathlib import Path
from typing import Annotated

import typer

from framework.cli.arguments import numbers_by_name, texts_by_name
from framework.cli.ending import AsJson, ending
from framework.cli.index import StorePath
from framework.errors import StudyError, tell
from framework.inverse.inversions.question import Question

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
        help="or the labels of a region of the solver, such as core=1,4; repeatable.",
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
    str | None, typer.Option(metavar="MASK=NUMBER,...", help="The weights of the masks [equal].")
]
Top = Annotated[int, typer.Option(metavar="N", help="How many matches to report.")]
Grow = Annotated[
    int, typer.Option(metavar="N", min=0, help="Simulate N more near the best, search again.")
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
        question = Question(
            masks={name: Path(text) for name, text in texts_by_name(mask or []).items()},
            labels=labels,
            convention=convention,
            regions={
                name: _labels(text, name) for name, text in texts_by_name(region or []).items()
            },
            fields=field,
            space=space,
            affine=affine,
            weights=numbers_by_name(weights.split(",")) if weights else None,
            top=top,
            grow=grow,
            refine=refine,
            surrogate=surrogate,
            recurrence=recurrence,
            out=out,
        )
        tell(f"reading the store {store}, and searching it for what explains the observation")
        inversion = question.ask(store)
        outcome.result, outcome.text = inversion.result, inversion.text
        question.go_on(inversion)


def _labels(text: str, name: str) -> tuple[int, ...]:
    """Read labels with commas between them. Raises StudyError."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise StudyError(
            f"--region {name} has {text}: it has to be whole numbers with commas, such as 1,4"
        ) from None
