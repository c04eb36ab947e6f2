"""The command `compare`."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from framework.cli.arguments import Overrides, StudyFile, load_case
from framework.cli.ending import AsJson, Outcome, ending

if TYPE_CHECKING:
    from framework.compare.comparing import Comparing


def compare_command(
    study: StudyFile,
    overrides: Overrides = None,
    seeds: Annotated[
        int, typer.Option(metavar="N", help="How often every arm is trained, 3 or more.")
    ] = 3,
    equal: Annotated[
        Literal["steps", "seconds", "samples"],
        typer.Option(
            help="What is equal in all arms: steps, seconds (training.stop) or samples to train on."
        ),
    ] = "steps",
    as_json: AsJson = False,
) -> None:
    """Train a study online and offline, and tell which was better, and how sure that is.

    Online through a fifo, a firo and a reservoir; offline from a store with all of the
    simulations, a quarter and a sixteenth of them.
    """
    with ending(as_json) as outcome:
        case = load_case(study, overrides)
        from framework.compare.comparing import Comparing

        compare_to_end(Comparing(case, seeds, equal), outcome)


def compare_to_end(comparing: "Comparing", outcome: Outcome) -> None:
    """Train all arms of a comparison, new or resumed. Raises RunError and KeyboardInterrupt."""
    from framework.compare.report import comparison_text

    outcome.result = comparing.result
    outcome.go_on = f"go on with millstream resume {comparing.folder.path}"
    comparing.run()
    outcome.text = lambda: comparison_text(comparing.result())
