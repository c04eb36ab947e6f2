"""The command line. Exit status: 0 done, 1 failed, 2 wrong use, 130 interrupted.

What a command needs is imported when it runs, so that `--help` answers at once.
"""

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from framework.cli.compare import comparison, resume_comparison
from framework.cli.ending import (
    AsJson,
    Overrides,
    StudyFile,
    carry_out,
    fail,
    load_case,
    print_result,
)
from framework.cli.inverse import inverse
from framework.errors import RunError, StudyError

if TYPE_CHECKING:
    from framework.run.run import Run

app = typer.Typer(
    help="Train neural surrogates of PDE solvers while the solvers run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(comparison)
app.add_typer(inverse)


def main() -> None:
    """The entry point of the `millstream` command."""
    # A study may name a solver of the user's own, in a module beside it: my_wave:Wave.
    sys.path.append(str(Path.cwd()))
    app()


@app.command(epilog="Example: millstream train configs/quickstart.yaml design.simulations=400")
def train(study: StudyFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Simulate, stream, and train a surrogate at the same time, as a study says."""
    from framework.run.run import Run

    _run(lambda: Run(load_case(study, overrides)), as_json)


@app.command(epilog="Example: millstream resume runs/quickstart")
def resume(
    run: Annotated[
        Path, typer.Argument(help="The directory of a run or of a comparison, runs/NAME.")
    ],
    as_json: AsJson = False,
) -> None:
    """Go on with a run or a comparison after any interruption, from its last checkpoint."""
    from framework.report.text import run_text
    from framework.run.folder import RunFolder
    from framework.run.run import Run, send_what_is_left
    from framework.study.case import Case
    from framework.study.study import Study

    if RunFolder(run).comparison.is_file():
        resume_comparison(run, as_json)
        return
    try:
        folder = RunFolder.find(run)
        summary = folder.finished()
        study = Study.load(folder.study)
    except StudyError as error:
        fail(2, str(error), {}, as_json)
    if summary is None:
        _run(lambda: Run(Case(study, folder.study), folder), as_json)
        return
    print(f"millstream: {run} is done already: there is nothing to resume", file=sys.stderr)
    send_what_is_left(study, folder)
    text = run_text(summary, Case(study, folder.study))
    print_result(summary.to_json(), text, as_json)


def _run(make: "Callable[[], Run]", as_json: bool) -> None:
    from framework.report.text import run_text
    from framework.run.run import Run

    carry_out(
        make,
        Run.train,
        lambda it: it.summary().to_json(),
        lambda it: run_text(it.summary(), it.case),
        as_json,
    )


@app.command(epilog="Example: millstream simulate configs/quickstart.yaml design.simulations=1000")
def simulate(
    study: StudyFile,
    overrides: Overrides = None,
    picture: Annotated[
        bool, typer.Option("--picture", help="Draw some of the simulations, beside the store.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the simulations of a study into its store, without training."""
    from framework.run.simulating import Simulating

    simulating: Simulating | None = None
    try:
        with redirect_stdout(sys.stderr):
            simulating = Simulating(load_case(study, overrides))
            simulating.run()
            drawn = str(simulating.draw()) if picture else None
    except StudyError as error:
        fail(2, str(error), {}, as_json)
    except RunError as error:
        fail(1, str(error), simulating.summary() if simulating else {}, as_json)
    except KeyboardInterrupt:
        summary = simulating.summary() if simulating else {}
        fail(130, "interrupted: the same command goes on", summary, as_json)
    summary = {**simulating.summary(), "picture": drawn}
    counts = summary["simulations"]
    text = (
        f"{summary['store']}: {counts['completed']} of {counts['requested']} simulations, "
        f"{counts['quarantined']} quarantined, {summary['bytes'] / 1e6:.1f} MB, "
        f"{summary['seconds']:.0f} s"
    )
    if drawn:
        text += f"\n{drawn}"
    print_result(summary, text, as_json)


@app.command(
    epilog="Example: millstream predict runs/quickstart initial=150 left=480 right=200 "
    "bottom=300 top=120"
)
def predict(
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
    as_json: AsJson = False,
) -> None:
    """Predict the fields at every stored time, as numbers and as a picture."""
    from framework.run.prediction import draw
    from framework.run.prediction import predict as predict_fields

    try:
        with redirect_stdout(sys.stderr):
            settings = [item for item in parameters or [] if "." in item.partition("=")[0]]
            values = [item for item in parameters or [] if item not in settings]
            prediction = predict_fields(run, _numbers(values), settings)
    except StudyError as error:
        fail(2, str(error), {}, as_json)
    except RunError as error:
        fail(1, str(error), {}, as_json)
    if out is not None and out.suffix != ".npz":
        out = out.with_name(out.name + ".npz")  # as numpy would
    numbers = out or (Path(run) if Path(run).is_dir() else Path()) / "prediction.npz"
    picture = numbers.with_suffix(".png")
    try:
        prediction.save(numbers)
        draw(prediction, picture)
    except OSError as error:
        fail(2, f"cannot write {error.filename}: {error.strerror}", {}, as_json)
    result = {"out": str(numbers), "picture": str(picture), "shape": list(prediction.field.shape)}
    print_result(result, f"{numbers}: field {prediction.field.shape} and t\n{picture}", as_json)


@app.command("list", epilog="Example: millstream list solvers")
def list_(
    what: Annotated[str | None, typer.Argument(help="solvers, surrogates or studies.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the solvers and surrogates with their settings, and the studies in configs/."""
    from framework.cli.listing import listing

    entries = listing()
    if what is not None:
        if what not in entries:
            fail(2, f"{what} cannot be listed: it must be {', '.join(entries)}", {}, as_json)
        entries = {what: entries[what]}
    lines = []
    for kind, items in entries.items():
        lines.append(f"{kind}:")
        width = max(len(item["name"]) for item in items) if items else 0
        for item in items:
            lines.append(f"  {item['name']:{width}}  {item['summary']}")
            lines += [f"  {'':{width}}    {key}: {item[key]}" for key in item if key not in _HEADER]
    print_result(entries, "\n".join(lines), as_json)


_HEADER = ("name", "summary")


def _numbers(arguments: list[str]) -> dict[str, float]:
    """The `name=value` arguments. Raises StudyError."""
    numbers = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        try:
            numbers[name] = float(value)
        except ValueError:
            raise StudyError(f"{argument} is not of the form name=number") from None
    return numbers
