"""The command `predict`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from framework.cli.arguments import numbers_by_name
from framework.cli.ending import AsJson, Outcome, ending
from framework.errors import StudyError, tell

if TYPE_CHECKING:
    from framework.run.prediction import Prediction


def predict_command(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_MODEL",
            help="The directory of a run, runs/NAME, or a model in MLflow, models:/NAME/VERSION.",
        ),
    ],
    parameters: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=VALUE...",
            help="One value of each of the parameters; solver.KEY=VALUE asks for another grid.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The .npz file for field and t [RUN/prediction.npz]; a .png is beside."),
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz",
            help="Start from the array `initial` [field, *grid] of this file (autoregressive).",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Start from the solver's first fields of this seed, likewise."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Predict the fields at every stored time, as numbers and as a picture.

    An autoregressive surrogate starts from the solver's first fields, unless told otherwise.
    """
    with ending(as_json) as outcome:
        arguments = parameters or []
        settings = [item for item in arguments if "." in item.partition("=")[0]]
        values = numbers_by_name([item for item in arguments if item not in settings])
        fetched = ", fetched from MLflow" if run.startswith("models:") else ""
        tell(f"checking {run}: its solver and its surrogate{fetched}")
        from framework.run.prediction import Start, predict, read_state

        start = Start(None if initial is None else read_state(initial), seed)
        prediction = predict(run, values, settings, start)
        for warning in prediction.warnings():
            tell(warning)
        _keep(prediction, _file_for(run, out), outcome)


def _keep(prediction: "Prediction", numbers: Path, outcome: Outcome) -> None:
    """Write a prediction as numbers and as a picture. Raises StudyError."""
    from framework.run.prediction import draw

    tell("drawing the predicted fields")
    picture, shape = numbers.with_suffix(".png"), prediction.field.shape
    try:
        prediction.save(numbers)
        draw(prediction, picture)
    except OSError as error:
        raise StudyError(f"cannot write {error.filename}: {error.strerror}") from None
    outcome.result = lambda: {
        "out": str(numbers),
        "picture": str(picture),
        "shape": list(shape),
        "outside": {name: list(bounds) for name, bounds in prediction.outside.items()},
    }
    outcome.text = lambda: f"{numbers}: field {shape} and t\n{picture}"


def _file_for(run: str, out: Path | None) -> Path:
    """Return the .npz file that the user named, or one in the run's or the current directory."""
    if out is None:
        return (Path(run) if Path(run).is_dir() else Path()) / "prediction.npz"
    return out if out.suffix == ".npz" else out.with_name(out.name + ".npz")  # as numpy would
