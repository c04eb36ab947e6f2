"""The command `train`."""

from typing import TYPE_CHECKING

from framework.cli.arguments import Overrides, StudyFile, case_and_ray, load_study
from framework.cli.ending import AsJson, Outcome, ending

if TYPE_CHECKING:
    from framework.run.run import Run


def train_command(study: StudyFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Simulate, stream, and train a surrogate at the same time, as a study says."""
    with ending(as_json) as outcome:
        read = load_study(study, overrides)
        with case_and_ray(read, study, read.other_cpus) as case:
            from framework.run.run import Run

            train_to_end(Run(case), outcome)


def train_to_end(run: "Run", outcome: Outcome) -> None:
    """Train to the end of a run, new or resumed. Raises RunError and KeyboardInterrupt."""
    from framework.report.text import run_text

    outcome.result = lambda: run.summary().to_json()
    outcome.go_on = f"go on with millstream resume {run.folder.path}"
    run.train()
    outcome.text = lambda: run_text(run.summary(), run.case)
