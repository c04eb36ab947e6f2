"""The command `simulate`."""

from typing import Annotated

import typer

from framework.cli.arguments import Overrides, StudyFile, case_and_ray, load_study
from framework.cli.ending import AsJson, ending
from framework.report.summary import StoreSummary


def simulate_command(
    study: StudyFile,
    overrides: Overrides = None,
    picture: Annotated[
        bool, typer.Option("--picture", help="Draw some of the simulations, beside the store.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the simulations of a study into its store, without training."""
    with ending(as_json, go_on="the same command goes on") as outcome:
        with case_and_ray(load_study(study, overrides), study, 0) as case:
            from framework.run.simulating import Simulating

            simulating = Simulating(case)
            outcome.result = lambda: simulating.summary().to_json()
            simulating.run()
        drawn = str(simulating.draw()) if picture else None
        outcome.result = lambda: {**simulating.summary().to_json(), "picture": drawn}
        outcome.text = lambda: _text(simulating.summary(), drawn)


def _text(summary: StoreSummary, drawn: str | None) -> str:
    """Return a line about what was stored, and the path of the picture."""
    counts = summary.simulations
    text = (
        f"{summary.store}: {counts.completed} of {counts.requested} simulations, "
        f"{counts.quarantined} quarantined, {summary.bytes / 1e6:.1f} MB, {summary.seconds:.0f} s"
    )
    return f"{text}\n{drawn}" if drawn else text
