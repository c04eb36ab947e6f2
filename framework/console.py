"""What commands of the command line have alike: arguments, results, errors with an exit status."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

StudyFile = Annotated[Path, typer.Argument(help="A study, such as configs/quickstart.yaml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SECTION.KEY=VALUE]...", help="Settings that replace the study's."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def print_result(result: dict[str, Any], text: str, as_json: bool) -> None:
    """The result of a command on standard output: as JSON, or the text."""
    print(json.dumps(result) if as_json else text)


def fail(status: int, message: str, result: dict[str, Any], as_json: bool) -> NoReturn:
    """End with this status: what went wrong goes to standard error, what there is to the result."""
    print(f"millstream: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({**result, "error": message}))
    raise typer.Exit(status)
