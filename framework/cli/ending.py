"""How every command ends: with an exit status, and a result on standard output.

exit status      0 done, 1 failed, 2 wrong use, 130 interrupted
standard output  the result: a text, or with --json one JSON object and nothing else
standard error   what went wrong, all messages on the way, and what other code writes
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TextIO

import typer

from framework.cli.output import GONE, standard_output
from framework.errors import RunError, StudyError, reason, tell
from framework.run.interrupt import Interrupts

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@dataclass
class Outcome:
    """The outcome of a command, which the command fills in as it goes on."""

    result: Callable[[], dict[str, Any]] = dict  # what --json prints
    text: Callable[[], str] = str  # what is printed without --json
    go_on: str = ""  # how the user can go on after an interrupt


@contextmanager
def ending(as_json: bool, go_on: str = "") -> Iterator[Outcome]:
    """Run the block of this context as a command, print its outcome and exit with its status.

    A StudyError, a RunError and an interrupt (see `Interrupts`) end the command; the outcome is
    printed as it is by then, so that nothing computed is lost. Other errors pass, with their
    tracebacks: they are bugs of Millstream. `go_on`: see `Outcome`.
    """
    outcome = Outcome(go_on=go_on)
    status, message = 0, ""
    with Interrupts(), standard_output() as out:
        try:
            yield outcome
        except StudyError as error:
            status, message = 2, str(error)
        except RunError as error:
            status, message = 1, str(error)
        except KeyboardInterrupt:
            status, message = 130, ": ".join(filter(None, ["interrupted", outcome.go_on]))
        if message:
            tell(message)
        status = _print_result(out, _result_text(outcome, message, as_json)) or status
    if status:
        raise typer.Exit(status)


def _result_text(outcome: Outcome, message: str, as_json: bool) -> str:
    """Return what to print on standard output: JSON has the message, too, if there is one."""
    if as_json:
        return json.dumps({**outcome.result(), **({"error": message} if message else {})})
    return outcome.text()


def _print_result(out: TextIO, text: str) -> int:
    """Print the result, if there is any; return an exit status other than 0 if that fails.

    A reader that has gone away, such as `head -1`, has read all it wanted: that is no failure.
    """
    try:
        if text:
            print(text, file=out, flush=True)
    except OSError as error:
        if error.errno not in GONE:
            tell(f"cannot write the result to standard output: {reason(error)}")
            return 1
    return 0
