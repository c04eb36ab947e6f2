"""The command `check`."""

from pathlib import Path
from typing import Annotated

import typer

from framework.cli.arguments import load_case, texts_by_name
from framework.cli.ending import AsJson, Outcome, ending
from framework.errors import RunError, tell


def check_command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME_OR_STUDY",
            help="A registered name, module:Class of your own, or the file of a study.",
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Its settings; of a study, those that replace its own."
        ),
    ] = None,
    limit: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="The most time that one check may take.")
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Check a solver, a surrogate, a buffer or a whole study, and measure it.

    Of a study, one call of the solver and some optimiser steps are run; then it says what the run
    will take, what will set its pace, and what to change.
    """
    with ending(as_json) as outcome:
        if _is_study(name):
            _check_study(Path(name), settings or [], outcome)
            return
        from framework.study.overrides import parsed_value

        texts = texts_by_name(settings or [])
        values = {key: parsed_value(text, f"{key}={text}") for key, text in texts.items()}
        tell(f"checking {name}")
        from framework.check.named import check_named

        checked = check_named(name, values, limit)
        outcome.result = checked.to_json
        outcome.text = checked.text
        if checked.failures:
            count = len(checked.failures)
            raise RunError(f"{name}: {count} {'check' if count == 1 else 'checks'} failed")


def _is_study(name: str) -> bool:
    return Path(name).suffix in (".yaml", ".yml") or ("/" in name and Path(name).is_file())


def _check_study(path: Path, overrides: list[str], outcome: Outcome) -> None:
    """Try a study, and foretell its run. Raises StudyError, and RunError if the solver fails."""
    case = load_case(path, overrides)
    from framework.check.forecast import forecast, simulations_to_train
    from framework.check.trying import try_study
    from framework.run.initial import start_from_initial
    from framework.simulation.cluster import check_gpus
    from framework.tracking.uri import check_uri
    from framework.training.surrogate import make_surrogate, tell_unlearnable

    check_uri(case.study.tracking)
    check_gpus(case.study.ensemble)
    surrogate = make_surrogate(case)
    start_from_initial(case, surrogate)
    simulations = simulations_to_train(case)
    tell_unlearnable(case, surrogate)
    tell(f"calling the solver {case.study.solver.name} once, and training on what it yields")
    found = forecast(case, surrogate, simulations, try_study(case, surrogate), str(path))
    outcome.result, outcome.text = found.to_json, found.text
