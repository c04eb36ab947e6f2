"""How commands end: exit status, standard output and standard error, whatever happens."""

import json
import signal

import pytest
import typer
from typer.testing import CliRunner, Result

from framework.cli.ending import AsJson, ending
from framework.errors import RunError, StudyError

app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def command(what: str, early: bool = False, as_json: AsJson = False) -> None:
    """Computes 1, and ends in some way before or after that."""
    with ending(as_json, go_on="go on") as outcome:
        print("on the way")
        if not early:
            outcome.result = lambda: {"found": 1}
            outcome.text = lambda: "found 1"
        happen(what)


def happen(what: str) -> None:
    match what:
        case "wrong":
            raise StudyError("that is wrong")
        case "failed":
            raise RunError("that failed")
        case "ctrl-c":
            signal.raise_signal(signal.SIGINT)
        case "terminated":
            signal.raise_signal(signal.SIGTERM)
        case "ours":
            raise LookupError("a mistake of ours")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


ENDS = [
    ("done", 0, ""),
    ("failed", 1, "that failed"),
    ("wrong", 2, "that is wrong"),
    ("ctrl-c", 130, "interrupted: go on"),
    ("terminated", 130, "interrupted: go on"),
]


@pytest.mark.parametrize(("what", "status", "message"), ENDS)
def test_what_was_computed_is_printed_however_a_command_ends(
    what: str, status: int, message: str
) -> None:
    ended = run(what)
    assert ended.exit_code == status
    assert ended.stdout == "found 1\n"
    said = ["on the way", *([f"millstream: {message}"] if message else [])]
    assert ended.stderr.splitlines() == said


@pytest.mark.parametrize(("what", "status", "message"), ENDS)
@pytest.mark.parametrize("early", [False, True])
def test_json_is_one_object_and_nothing_else(
    what: str, status: int, message: str, early: bool
) -> None:
    ended = run(what, "--json", *(["--early"] if early else []))
    assert ended.exit_code == status
    expected: dict[str, object] = {} if early else {"found": 1}
    assert json.loads(ended.stdout) == expected | ({"error": message} if message else {})
    assert ended.stdout.count("\n") == 1


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
    assert isinstance(run("ours").exception, LookupError)


def test_the_handlers_of_signals_are_as_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run("terminated")
    after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert after == before
