"""The commands of inverse questions: `index` and `invert`."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from framework.cli.ending import AsJson, fail, print_result
from framework.errors import RunError, StudyError
from framework.files import writing

if TYPE_CHECKING:
    from framework.inverse.inversion import Inversion
    from framework.inverse.observed.observation import Observation
    from solvers.base import Solver

inverse = typer.Typer()

StorePath = Annotated[
    str, typer.Argument(metavar="STORE", help="Of simulations, such as stores/NAME.zarr.")
]


@inverse.command(epilog="Example: millstream index stores/tumor_database.zarr")
def index(
    store: StorePath,
    thresholds: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MASK=VALUE,...",
            help="Imaging thresholds to try of a mask, in place of the solver's own.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build the look-up index of a store, or extend it by what was simulated since."""
    from framework.inverse.calibration import calibrated
    from framework.inverse.index.indexing import build

    try:
        with redirect_stdout(sys.stderr), _stoppable():
            tried = {name: _numbers(text, name) for name, text in _pairs(thresholds or [])}
            result = build(store, tried or None, _tell)
            result["calibration"] = calibrated(store).summary()
    except StudyError as error:
        fail(2, str(error), {}, as_json)
    except RunError as error:
        fail(1, str(error), {}, as_json)
    except KeyboardInterrupt:
        fail(130, "interrupted: the same command goes on", {}, as_json)
    text = (
        f"{result['index']}: {result['entries']} entries of "
        f"{result['simulations']['indexed']} simulations, {result['simulations']['added']} of them "
        f"new, {result['bytes'] / 1e6:.1f} MB, {result['seconds']:.0f} s"
    )
    print_result(result, text, as_json)


def _tell(done: int, simulations: int) -> None:
    if done == simulations or done % 100 == 0:
        print(f"indexed {done} of {simulations} simulations", file=sys.stderr)


Core = Annotated[str | None, typer.Option(metavar="LABELS", help="Or which are of the core: 1,4")]
Oedema = Annotated[
    str | None, typer.Option(metavar="LABELS", help="and which are of oedema alone: 2")
]
T1c = Annotated[
    Path | None, typer.Option(metavar="FILE", help="NIfTI mask of what T1c shows: the core.")
]
Flair = Annotated[Path | None, typer.Option(metavar="FILE", help="NIfTI mask of core and oedema.")]
LabelFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="NIfTI segmentation, all labels in one.")
]
ConventionName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="What its labels mean, such as brats2021 or gliodil."),
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


@inverse.command(
    epilog="Example: millstream invert stores/tumor_database.zarr --labels patient.nii.gz "
    "--convention brats2021 --out patient"
)
def invert(
    store: StorePath,
    t1c: T1c = None,
    flair: Flair = None,
    labels: LabelFile = None,
    convention: ConventionName = None,
    core: Core = None,
    oedema: Oedema = None,
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
    """Find the simulations in a store that explain what was observed, by exact look-up."""
    from framework.inverse.field_inversion import FieldInversion
    from framework.inverse.mask_inversion import MaskInversion

    inversion: Inversion | None = None
    try:
        with redirect_stdout(sys.stderr), _stoppable():
            _check_sources(t1c or flair, labels, field, convention, core or oedema)
            if field is not None:
                _check_for_fields(weights, space, affine, recurrence)
                inversion = FieldInversion(store, field, top)
            else:
                _check_for_masks(surrogate, recurrence, out)
                masks, regions = {"t1c": t1c, "flair": flair}, {"core": core, "oedema": oedema}
                read = _reader(masks, labels, convention, regions, space, affine)
                shares = {k: _number(v, k) for k, v in _pairs((weights or "").split(","))}
                inversion = MaskInversion(store, read, shares or None, top, recurrence)
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
    except StudyError as error:
        _end(2, str(error), inversion, as_json)
    except RunError as error:
        _end(1, str(error), inversion, as_json)
    except KeyboardInterrupt:
        _end(130, "interrupted", inversion, as_json)
    print_result(inversion.result(), inversion.text(), as_json)


def _reader(
    masks: Mapping[str, Path | None],
    labels: Path | None,
    convention: str | None,
    regions: Mapping[str, str | None],
    space: str | None,
    affine: Path | None,
) -> "Callable[[Solver], Observation]":
    """Reads what was observed, masks or labels, for a solver."""
    from framework.inverse.observed.observation import read_labels, read_masks

    files = {name: file for name, file in masks.items() if file is not None}
    meanings = {name: _labels(text, name) for name, text in regions.items() if text is not None}

    def read(solver: "Solver") -> "Observation":
        if labels is None:
            return read_masks(solver, files, space, affine)
        return read_labels(solver, labels, convention or meanings, space, affine)

    return read


def _end(status: int, message: str, inversion: "Inversion | None", as_json: bool) -> NoReturn:
    """End early, with what was found by then."""
    if inversion is not None and not as_json:
        print(inversion.text())
    fail(status, message, inversion.result() if inversion else {}, as_json)


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM interrupts, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_sources(
    masks: Path | None,
    labels: Path | None,
    field: Path | None,
    convention: str | None,
    regions: str | None,
) -> None:
    """Raises StudyError unless exactly one thing was observed, and labels have one meaning."""
    if sum(given is not None for given in (masks, labels, field)) != 1:
        raise StudyError(
            "what was observed has to be given once: as --t1c and --flair or one of them, as "
            "--labels, or as --field"
        )
    meanings = sum(given is not None for given in (convention, regions))
    if labels is not None and meanings != 1:
        raise StudyError(
            f"what the labels of {labels} mean is never guessed: name their --convention, or the "
            "labels of --core and --oedema"
        )
    if labels is None and meanings:
        raise StudyError("--convention, --core and --oedema are for --labels, which is not given")


def _check_for_fields(*of_masks: object) -> None:
    """Raises StudyError on options that are for segmentations only."""
    if any(option is not None for option in of_masks):
        raise StudyError(
            "--weights, --space, --affine and --recurrence are for segmentations, and not for "
            "--field"
        )


def _check_for_masks(surrogate: str | None, recurrence: Path | None, out: Path | None) -> None:
    """Raises StudyError on options that segmentations cannot have."""
    if surrogate is not None:
        raise StudyError(
            "a --surrogate's gradients can refine what is found for --field only: masks have none"
        )
    if recurrence is not None and out is None:
        raise StudyError("--recurrence is for the plans that are written: give --out too")


def _pairs(texts: list[str]) -> list[tuple[str, str]]:
    """`name=value` each. Raises StudyError."""
    pairs = []
    for text in filter(None, texts):
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise StudyError(f"{text} is not of the form name=value")
        pairs.append((name, value))
    return pairs


def _numbers(text: str, name: str) -> list[float]:
    return [_number(part, name) for part in text.split(",")]


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise StudyError(f"{text} is given for {name}: it has to be a number") from None


def _labels(text: str, name: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise StudyError(
            f"--{name} is {text}: it has to be whole numbers with commas, such as 1,4"
        ) from None
