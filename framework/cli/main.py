"""The command line, put together from the commands, which have a file each.

A command imports what it needs when it runs, so that `--help` answers at once.
"""

import atexit
import os
import sys
import threading
from functools import partial
from pathlib import Path

import typer

from framework.cli.check import check_command
from framework.cli.compare import compare_command
from framework.cli.export import export_command
from framework.cli.index import index_command
from framework.cli.invert import invert_command
from framework.cli.listing import list_command
from framework.cli.once import Once
from framework.cli.output import own_output
from framework.cli.predict import predict_command
from framework.cli.resume import resume_command
from framework.cli.simulate import simulate_command
from framework.cli.train import train_command

app = typer.Typer(
    help="Train neural surrogates of PDE solvers while the solvers run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_command = partial(app.command, cls=Once)
_command(
    "train",
    epilog="Example: millstream train configs/quickstart.yaml design.simulations=400",
)(train_command)
_command("resume", epilog="Example: millstream resume runs/quickstart")(resume_command)
_command(
    "simulate",
    epilog="Example: millstream simulate configs/quickstart.yaml design.simulations=1000",
)(simulate_command)
_command(
    "compare",
    epilog="Example: millstream compare configs/compare/heat_mlp.yaml --seeds 5",
)(compare_command)
_command(
    "predict",
    epilog="Example: millstream predict runs/quickstart initial=150 left=480 right=200 "
    "bottom=300 top=120",
)(predict_command)
_command("export", epilog="Example: millstream export runs/quickstart --format pt2 --out heat.pt2")(
    export_command
)
_command("index", epilog="Example: millstream index stores/tumor_database.zarr")(index_command)
_command(
    "invert",
    epilog="Example: millstream invert stores/tumor_database.zarr --labels patient.nii.gz "
    "--convention brats2021 --out patient",
)(invert_command)
_command("check", epilog="Example: millstream check my_solver:Wave points=32")(check_command)
_command("list", epilog="Example: millstream list solvers")(list_command)


def main() -> None:
    """Run the `millstream` command."""
    # A study may name a solver of the user's own, in a module beside it: my_wave:Wave.
    sys.path.append(str(Path.cwd()))
    try:
        with own_output():
            app()
    except SystemExit as end:
        # A check was given up, and its thread, if it is in torch, would abort the process.
        if not any(thread.name.startswith("check ") for thread in threading.enumerate()):
            atexit._run_exitfuncs()
        sys.stderr.flush()
        # All is written: Python would free for a second what torch holds, and the user waits.
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))
