"""The command `check`."""

from typing import Annotated

import typer

from framework.cli.arguments import texts_by_name
from framework.cli.ending import AsJson, ending
from framework.errors import RunError, StudyError, tell


def check_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A registered name, or module:Class of your own.")
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Its settings.")
    ] = None,
    limit: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="The most time that one check may take.")
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Check that a solver, a surrogate or a buffer keeps its contract; measure what it claims."""
    with ending(as_json) as outcome:
        texts = texts_by_name(settings or [])
        values = {key: _value(text) for key, text in texts.items()}
        tell(f"checking {name}")
        from framework.check.named import check_named

        checked = check_named(name, values, limit)
        outcome.result = checked.to_json
        outcome.text = checked.text
        if checked.failures:
            count = len(checked.failures)
            raise RunError(f"{name}: {count} {'check' if count == 1 else 'checks'} failed")


def _value(text: str) -> object:
    """Read a value of YAML. Raises StudyError."""
    from framework.study.study import read_value

    try:
        return read_value(text)
    except ValueError:
        raise StudyError(f"the value {text} is not YAML: put it in quotes") from None
