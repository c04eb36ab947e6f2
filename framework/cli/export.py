"""The command `export`."""

from pathlib import Path
from typing import Annotated

import typer

from framework.cli.ending import AsJson, ending
from framework.errors import StudyError, tell

# What a trained surrogate can become: format -> what it is.
EXPORTS = {"pt2": "a program of torch.export, which runs without Millstream"}


def export_command(
    path: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_MODEL",
            help="The directory of a run, runs/NAME, or a model in MLflow, models:/NAME/VERSION.",
        ),
    ],
    format: Annotated[
        str,
        typer.Option(
            metavar="FORMAT", help="; ".join(f"{name}: {what}" for name, what in EXPORTS.items())
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write it [NAME.FORMAT in this directory]."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a trained surrogate in a format of others."""
    with ending(as_json) as outcome:
        if format not in EXPORTS:
            raise StudyError(f"--format is {format}: it has to be one of {', '.join(EXPORTS)}")
        if (Path(path) / "zarr.json").is_file():
            raise StudyError(
                f"{path} is a store of simulations: {', '.join(EXPORTS)} is a format of trained "
                "surrogates; give a run or a model"
            )
        tell(f"loading the surrogate of {path}")
        from framework.run.loading import load_trained
        from framework.training.export import export_surrogate

        trained = load_trained(path)
        target = out or Path(f"{trained.study.name}.{format}")
        if not target.absolute().parent.is_dir():
            raise StudyError(f"{target} cannot be written: there is no such folder")
        tell(f"tracing it, and trying the program in {target}")
        export_surrogate(trained.surrogate, target, trained.described())
        outcome.result = lambda: {"out": str(target), "format": format, **trained.described()}
        direct = trained.surrogate.mode == "direct"
        maps = "parameters, times" if direct else "parameters, times, fields"
        outcome.text = lambda: f"{target}: maps ({maps}) to fields, for any number of samples"
