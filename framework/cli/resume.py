"""The command `resume`."""

from pathlib import Path
from typing import Annotated

import typer

from framework.cli.arguments import case_of
from framework.cli.compare import compare_to_end
from framework.cli.ending import AsJson, Outcome, ending
from framework.cli.train import train_to_end
from framework.errors import tell
from framework.report.summary import Summary
from framework.run.folder import RunFolder
from framework.study.study import Study


def resume_command(
    run: Annotated[
        Path, typer.Argument(help="The directory of a run or of a comparison, runs/NAME.")
    ],
    as_json: AsJson = False,
) -> None:
    """Go on with a run or a comparison after any interruption, from its last checkpoint."""
    with ending(as_json) as outcome:
        folder = RunFolder.find(run)
        study = Study.load(folder.study)
        if folder.comparison.is_file():
            _resume_comparison(folder, outcome)
        elif summary := folder.finished():
            _tell_again(summary, study, folder, outcome)
        else:
            case = case_of(study, folder.study)
            from framework.run.run import Run

            train_to_end(Run(case, folder), outcome)


def _resume_comparison(folder: RunFolder, outcome: Outcome) -> None:
    tell(f"checking {folder.study}")
    from framework.compare.comparing import Comparing

    compare_to_end(Comparing.resumed(folder), outcome)


def _tell_again(summary: Summary, study: Study, folder: RunFolder, outcome: Outcome) -> None:
    """Tell what came of a run that is done, and send to MLflow what could not be sent before."""
    outcome.result = summary.to_json
    tell(f"{folder.path} is done already: there is nothing to resume")
    case = case_of(study, folder.study)
    from framework.report.text import run_text
    from framework.run.run import send_what_is_left

    send_what_is_left(study, folder)
    outcome.text = lambda: run_text(summary, case)
