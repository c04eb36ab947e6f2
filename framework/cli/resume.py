"""The command `resume`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from framework.cli.arguments import case_and_ray, tell_checking
from framework.cli.compare import compare_to_end
from framework.cli.ending import AsJson, Outcome, ending
from framework.cli.train import train_to_end
from framework.errors import tell
from framework.run.folder import RunFolder

if TYPE_CHECKING:
    from framework.study.study import Study


def resume_command(
    run: Annotated[
        Path, typer.Argument(help="The directory of a run or of a comparison, runs/NAME.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SECTION.KEY=VALUE]...",
            help="Go on with more simulations (design.simulations, and training.stop), or with "
            "another number of processes (training.ranks, ensemble.actors).",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a run or a comparison after any interruption, from its last checkpoint.

    A run that is done goes on if it is given more simulations.
    """
    with ending(as_json) as outcome:
        from framework.study.study import Study

        folder = RunFolder.find(run)
        if overrides:
            from framework.run.extending import extend

            study = extend(folder, overrides)
        else:
            study = Study.load(folder.study)
        tell_checking(study, folder.study)
        if folder.comparison.is_file():
            _resume_comparison(folder, outcome)
        else:
            _resume_run(study, folder, outcome)


def _resume_comparison(folder: RunFolder, outcome: Outcome) -> None:
    from framework.compare.comparing import Comparing

    compare_to_end(Comparing.resumed(folder), outcome)


def _resume_run(study: "Study", folder: RunFolder, outcome: Outcome) -> None:
    """Continue a run; if it is done, report its outcome and send what is left to MLflow."""
    summary = folder.finished()
    if summary is None:
        with case_and_ray(study, folder.study, study.other_cpus) as case:
            from framework.run.run import Run

            train_to_end(Run(case, folder), outcome)
        return
    from framework.report.text import run_text
    from framework.run.run import send_what_is_left
    from framework.study.case import Case

    case = Case(study, folder.study)
    outcome.result = summary.to_json
    outcome.text = lambda: run_text(summary, case)
    tell(f"{folder.path} is done already: there is nothing to resume")
    send_what_is_left(study, folder)
