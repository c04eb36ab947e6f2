"""What commands of the command line have alike: arguments, results, errors with an exit status."""

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Protocol, TypeVar

import typer

from framework.errors import RunError, StudyError, tell
from framework.run.folder import RunFolder

if TYPE_CHECKING:
    from framework.study.case import Case

StudyFile = Annotated[Path, typer.Argument(help="A study, such as configs/quickstart.yaml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SECTION.KEY=VALUE]...", help="Settings that replace the study's."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def load_case(path: Path, overrides: list[str] | None) -> "Case":
    """Read a study and make its solver, after a line that says so. Raises StudyError."""
    from framework.study.case import Case
    from framework.study.study import Study

    study = Study.load(path, overrides or [])
    tell(f"checking {path}: solver {study.solver.name}, surrogate {study.surrogate.name}")
    return Case(study, path)


class _Work(Protocol):
    folder: RunFolder


W = TypeVar("W", bound=_Work)


def carry_out(
    make: Callable[[], W],
    run: Callable[[W], None],
    summary: Callable[[W], dict[str, Any]],
    report: Callable[[W], str],
    as_json: bool,
) -> None:
    """Do what leaves a folder that `resume` goes on with, to its end, and say how it ended."""
    work: W | None = None
    try:
        # Standard output is for the result: what Ray or a solver prints goes to standard error.
        with redirect_stdout(sys.stderr):
            work = make()
            run(work)
    except StudyError as error:
        fail(2, str(error), {}, as_json)
    except RunError as error:
        fail(1, str(error), summary(work) if work else {}, as_json)
    except KeyboardInterrupt:
        hint = f": go on with millstream resume {work.folder.path}" if work else ""
        fail(130, f"interrupted{hint}", summary(work) if work else {}, as_json)
    print_result(summary(work), report(work), as_json)


def print_result(result: dict[str, Any], text: str, as_json: bool) -> None:
    """The result of a command on standard output: as JSON, or the text."""
    print(json.dumps(result) if as_json else text)


def fail(status: int, message: str, result: dict[str, Any], as_json: bool) -> NoReturn:
    """End with this status: what went wrong goes to standard error, what there is to the result."""
    print(f"millstream: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({**result, "error": message}))
    raise typer.Exit(status)
