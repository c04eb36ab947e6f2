"""The command `compare`, and how `resume` goes on with one."""

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from framework.console import AsJson, Overrides, StudyFile, fail, print_result
from framework.errors import RunError, StudyError

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
    from framework.study import Study

    _run(lambda: Comparing(Study.load(study, overrides or []), seeds, equal), as_json)


def resume_comparison(directory: Path, as_json: bool) -> None:
    """Go on with a comparison; with one that is done, tell what came of it."""
    from framework.compare.comparing import Comparing
    from framework.folder import RunFolder

    _run(lambda: Comparing.resumed(RunFolder.find(directory)), as_json)


def _run(make: "Callable[[], Comparing]", as_json: bool) -> None:
    from framework.compare.report import report

    comparing: Comparing | None = None
    try:
        # Standard output is for the result: what Ray or a solver prints goes to standard error.
        with redirect_stdout(sys.stderr):
            comparing = make()
            comparing.run()
    except StudyError as error:
        fail(2, str(error), {}, as_json)
    except RunError as error:
        fail(1, str(error), comparing.result() if comparing else {}, as_json)
    except KeyboardInterrupt:
        found = comparing.result() if comparing else {}
        hint = f": go on with millstream resume {comparing.folder.path}" if comparing else ""
        fail(130, f"interrupted{hint}", found, as_json)
    found = comparing.result()
    print_result(found, report(found), as_json)
