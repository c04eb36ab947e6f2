"""The command `predict`."""

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from framework.cli.arguments import listed_numbers, numbers_by_name
from framework.cli.ending import AsJson, Outcome, ending
from framework.errors import StudyError, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from framework.run.prediction import Asked, Predictor


RunOrModel = Annotated[
    str,
    typer.Argument(
        metavar="RUN_OR_MODEL",
        help="The directory of a run, runs/NAME, or a model in MLflow, models:/NAME/VERSION.",
    ),
]
PointAndSettings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME=VALUE...",
        help="One value of each of the parameters; solver.KEY=VALUE asks for another grid.",
    ),
]
ParametersFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.csv",
        help="Many at once: a column for each parameter that is not given as NAME=VALUE.",
    ),
]
TimesText = Annotated[
    str | None,
    typer.Option(metavar="TIME,...", help="The times to predict, ascending [all stored ones]."),
]
StateFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.npz|.zarr",
        help="Start from the array `initial` [field, *grid], or one array for each field "
        "(autoregressive).",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(min=0, help="Start from the solver's first fields of this seed (likewise)."),
]
PredictionFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.npz|.zarr",
        help="Where to write the fields [RUN/prediction.npz, of many RUN/predictions.zarr]; a .png "
        "is beside.",
    ),
]


def predict_command(
    run: RunOrModel,
    arguments: PointAndSettings = None,
    parameters: ParametersFile = None,
    times: TimesText = None,
    initial: StateFile = None,
    seed: Seed = None,
    out: PredictionFile = None,
    as_json: AsJson = False,
) -> None:
    """Predict fields by a trained surrogate, as numbers and as a picture.

    An autoregressive surrogate starts from the solver's first fields, unless told otherwise.
    """
    with ending(as_json) as outcome:
        given = arguments or []
        settings = [item for item in given if "." in item.partition("=")[0]]
        values = numbers_by_name([item for item in given if item not in settings])
        asked_times = None if times is None else listed_numbers("--times", times)
        fetched = ", fetched from MLflow" if run.startswith("models:") else ""
        tell(f"loading the surrogate of {run}{fetched}")
        from framework.run.loading import load_trained
        from framework.run.predicted import check_place, read_parameters, read_state
        from framework.run.prediction import Predictor

        place = _place(run, out, many=parameters is not None)
        check_place(place)
        predictor = Predictor(load_trained(run, settings))
        many = {}
        if parameters is not None:
            many = read_parameters(parameters, predictor.trained.solver.parameters.names)
            if twice := sorted({*many} & {*values}):
                raise StudyError(f"{twice[0]} is given twice: in {parameters} and as an argument")
        state = None if initial is None else read_state(initial)
        asked = predictor.ask({**values, **many}, asked_times, state, seed=seed)
        for warning in asked.warnings:
            tell(warning)
        _predict(predictor, asked, place, outcome)


def _predict(predictor: "Predictor", asked: "Asked", place: Path, outcome: Outcome) -> None:
    """Predict, and write the fields as numbers and as a picture. Raises StudyError, RunError."""
    from framework.run.predicted import draw, write

    with _advancing(len(asked.values)) as advanced:
        first = write(predictor, asked, place, advanced)
    picture = place.with_suffix(".png")
    tell(f"drawing {picture}")
    draw(predictor, first, picture)
    count = len(asked.values)
    field = next(iter(first.data_vars.values()))
    lead = () if asked.single else (count,)
    shape = (*lead, first.sizes["time"], len(first.data_vars), *predictor.surrogate.problem.grid)
    outcome.result = lambda: {
        "out": str(place),
        "picture": str(picture),
        "simulations": count,
        "times": first.sizes["time"],
        "fields": list(map(str, first.data_vars)),
        "shape": list(shape),
        "warnings": asked.warnings,
    }
    names = ", ".join(map(str, first.data_vars))
    outcome.text = lambda: f"{place}: {names} {field.dtype} {list(shape)} and t\n{picture}"


@contextmanager
def _advancing(simulations: int) -> "Iterator[Callable[[int], None]]":
    """Show on standard error how many simulations are done, if there are several."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("predicting", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=simulations == 1) as bar:
        task = bar.add_task("predicting", total=simulations)
        yield lambda done: bar.update(task, completed=done)


def _place(run: str, out: Path | None, many: bool) -> Path:
    """Return where the user wants the fields, or a place in the run's or the current directory."""
    if out is None:
        name = "predictions.zarr" if many else "prediction.npz"
        return (Path(run) if Path(run).is_dir() else Path()) / name
    return out if out.suffix else out.with_name(out.name + ".npz")  # as numpy would
