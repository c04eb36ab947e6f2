"""The command `compare`, and how `resume` goes on with one."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from framework.cli.ending import AsJson, Overrides, StudyFile, carry_out, load_case

if TYPE_CHECKING:
    from framework.compare.comparing import Comparing

comparison = typer.Typer()


@comparison.command(epilog="Example: millstream compare configs/compare/heat_mlp.yaml --seeds 5")
def compare(
    study: StudyFile,
    overrides: Overrides = None,
    seeds: Annotated[
        int, typer.Option(metavar="N", help="How often every arm is trained, 3 or more.")
    ] = 3,
    equal: Annotated[
        Literal["steps", "seconds", "samples"],
        typer.Option(
            help="What arms have alike: steps, seconds (of training.stop) or samples to learn from."
        ),
    ] = "steps",
    as_json: AsJson = False,
) -> None:
    """Train a study online and offline, and tell which was better, and how sure that is.

    Online through a fifo, a firo and a reservoir; offline from a store with all of the
    simulations, a quarter and a sixteenth of them.
    """
    from framework.compare.comparing import Comparing

    _run(lambda: Comparing(load_case(study, overrides), seeds, equal), as_json)


def resume_comparison(directory: Path, as_json: bool) -> None:
    """Go on with a comparison; with one that is done, tell what came of it."""
    from framework.compare.comparing import Comparing
    from framework.run.folder import RunFolder

    _run(lambda: Comparing.resumed(RunFolder.find(directory)), as_json)


def _run(make: "Callable[[], Comparing]", as_json: bool) -> None:
    from framework.compare.comparing import Comparing
    from framework.compare.report import comparison_text

    carry_out(
        make, Comparing.run, Comparing.result, lambda it: comparison_text(it.result()), as_json
    )
