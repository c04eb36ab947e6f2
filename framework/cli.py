"""The command line. Exit status: 0 done, 1 failed, 2 wrong use, 130 interrupted.

What a command needs is imported when it runs, so that `--help` answers at once.
"""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from framework.errors import RunError, StudyError

app = typer.Typer(
    help="Train neural surrogates of PDE solvers while the solvers run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def main() -> None:
    """The entry point of the `millstream` command."""
    # A study may name a solver of the user's own, in a module beside it: my_wave:Wave.
    sys.path.append(str(Path.cwd()))
    app()


@app.command(epilog="Example: millstream train configs/quickstart.yaml design.simulations=400")
def train(
    study: Annotated[Path, typer.Argument(help="A study, such as configs/quickstart.yaml.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SECTION.KEY=VALUE]...", help="Settings that replace the study's."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate, stream, and train a surrogate at the same time, as a study says."""
    from framework.run import Run
    from framework.study import Study

    try:
        with redirect_stdout(sys.stderr):
            run = Run(Study.load(study, overrides or []))
    except StudyError as error:
        _fail(2, str(error), {}, as_json)
    try:
        # Standard output is for the result: what Ray or a solver prints goes to standard error.
        with redirect_stdout(sys.stderr):
            run.train()
    except RunError as error:
        _fail(1, str(error), run.summary(), as_json)
    except KeyboardInterrupt:
        _fail(130, "interrupted", run.summary(), as_json)
    summary = run.summary()
    _print(summary, _train_report(summary), as_json)


@app.command(
    epilog="Example: millstream predict runs/quickstart initial=150 left=480 right=200 "
    "bottom=300 top=120"
)
def predict(
    run: Annotated[Path, typer.Argument(help="The directory of a run, runs/NAME.")],
    parameters: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=VALUE...", help="One value of each of the parameters."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The .npz file for field and t [RUN/prediction.npz]; a .png is beside."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Predict the fields at every stored time, as numbers and as a picture."""
    from framework.predict import draw
    from framework.predict import predict as predict_fields

    try:
        with redirect_stdout(sys.stderr):
            prediction = predict_fields(run, _numbers(parameters or []))
    except StudyError as error:
        _fail(2, str(error), {}, as_json)
    numbers = out or run / "prediction.npz"
    picture = numbers.with_suffix(".png")
    try:
        prediction.save(numbers)
        draw(prediction, picture)
    except OSError as error:
        _fail(2, f"cannot write {error.filename}: {error.strerror}", {}, as_json)
    result = {"out": str(numbers), "picture": str(picture), "shape": list(prediction.field.shape)}
    _print(result, f"{numbers}: field {prediction.field.shape} and t\n{picture}", as_json)


@app.command("list", epilog="Example: millstream list solvers")
def list_(
    what: Annotated[str | None, typer.Argument(help="solvers, surrogates or studies.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the solvers and surrogates with their settings, and the studies in configs/."""
    from framework.study import listing

    entries = listing()
    if what is not None:
        if what not in entries:
            _fail(2, f"{what} cannot be listed: it must be {', '.join(entries)}", {}, as_json)
        entries = {what: entries[what]}
    lines = []
    for kind, items in entries.items():
        lines.append(f"{kind}:")
        for item in items:
            lines.append(f"  {item['name']:12} {item['summary']}")
            lines += [f"  {'':12}   {key}: {item[key]}" for key in item if key not in _HEADER]
    _print(entries, "\n".join(lines), as_json)


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


def _train_report(summary: dict[str, Any]) -> str:
    """What came of a training run, in a few lines."""
    simulations, samples = summary["simulations"], summary["samples"]
    training, validation = summary["training"], summary["validation"]
    lines = [
        f"{summary['run_dir']}: {summary['status']} after {summary['seconds']:.0f} s",
        f"  simulations  {simulations['completed']} of {simulations['requested']} completed, "
        f"{simulations['quarantined']} quarantined",
        f"  samples      {samples['unique_trained']} trained on, {samples['untrained']} not, "
        f"{samples['drawn']} drawn",
        f"  training     {training['steps']} steps, {training['steps_while_simulating']} of them "
        f"while simulating, {training['samples_per_second']:.0f} samples/s, "
        f"waited {100 * training['wait_fraction']:.0f} % of the time",
    ]
    if validation:
        errors, trivial = validation["relative_l2"], validation["trivial"]
        lines += [
            f"  validation   relative L2 {100 * errors['mean']:.2f} % over "
            f"{validation['simulations']} held-out simulations "
            f"(90th percentile {100 * errors['p90']:.2f} %, max error {validation['max']:.3g})",
            f"  to compare   mean field {100 * trivial['mean_field']:.1f} %, "
            f"initial field {100 * trivial['initial_field']:.1f} %",
        ]
    return "\n".join(lines)


def _print(result: dict[str, Any], text: str, as_json: bool) -> None:
    print(json.dumps(result) if as_json else text)


def _fail(status: int, message: str, result: dict[str, Any], as_json: bool) -> NoReturn:
    print(f"millstream: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({**result, "error": message}))
    raise typer.Exit(status)
