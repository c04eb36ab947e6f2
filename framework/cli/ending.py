"""How every command ends: with an exit status, and a result on standard output.

exit status      0 done, 1 failed, 2 wrong use, 130 interrupted
standard output  the result: a text, or with --json one JSON object and nothing else
standard error   what went wrong, and all messages on the way
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from framework.errors import RunError, StudyError, tell
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

    A StudyError, a RunError and an interrupt (Ctrl-C or SIGTERM) end the command; the outcome is
    printed as it is by then, so that nothing computed is lost. Other errors pass, with their
    tracebacks: they are bugs of Millstream. `go_on`: see `Outcome`.
    """
    outcome = Outcome(go_on=go_on)
    status, message = 0, ""
    with Interrupts():
        try:
            # Standard output is for the result: output of Ray or a solver goes to standard error.
            with redirect_stdout(sys.stderr):
                yield outcome
        except StudyError as error:
            status, message = 2, str(error)
        except RunError as error:
            status, message = 1, str(error)
        except KeyboardInterrupt:
            status, message = 130, ": ".join(filter(None, ["interrupted", outcome.go_on]))
        _print_outcome(outcome, message, as_json)
    if status:
        raise typer.Exit(status)


def _print_outcome(outcome: Outcome, message: str, as_json: bool) -> None:
    """Print the result on standard output; the message, if there is one, on standard error."""
    if message:
        tell(message)
    if as_json:
        print(json.dumps({**outcome.result(), **({"error": message} if message else {})}))
    elif text := outcome.text():
        print(text)
