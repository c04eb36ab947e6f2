"""Run checks one after the other, each for a limited time, whatever code they call."""

import threading
from collections.abc import Sequence
from dataclasses import replace

from framework.check.clock import Clock, TooSlow
from framework.check.findings import Check, Finding, failed, skipped
from framework.errors import raised
from framework.threads import Background

# A check that looks at its clock ends soon after the limit. One that does not is given up after
# this many times the limit.
_PATIENCE = 2.0


def run_checks(checks: Sequence[Check], limit: float) -> list[Finding]:
    """Run the checks in order, each for at most `limit` seconds; return the findings.

    Checks after a needed one that fails are skipped. So are those after the first that is too slow:
    they would be too slow, too.
    """
    findings: list[Finding] = []
    why = ""
    for check in checks:
        found, too_slow = ([skipped(f"not run, as {why}")], False) if why else _run(check, limit)
        findings += [replace(finding, check=check.name) for finding in found]
        if too_slow:
            why = f"this was too slow: {check.name}"
        elif check.needed and any(finding.outcome == "failed" for finding in found):
            why = f"this failed: {check.name}"
    return findings


def _run(check: Check, limit: float) -> tuple[list[Finding], bool]:
    """Return the findings of a check, and whether it was too slow.

    A thread runs it, so that a call that never returns cannot keep the others waiting.
    """
    found: list[Finding] = []
    clock = Clock(limit)

    def run() -> None:
        for finding in check.run(clock):
            found.append(finding)  # one by one: an error later on leaves the earlier ones

    thread = Background(f"check {check.name}", run)
    thread.start()
    if not thread.wait(min(_PATIENCE * limit, threading.TIMEOUT_MAX)):
        return [*found, _never_ended(limit)], True
    if thread.error is None:
        return found, False
    if isinstance(thread.error, TooSlow):
        return [*found, _slow(str(thread.error))], True
    if not isinstance(thread.error, Exception | SystemExit):
        raise thread.error
    return [*found, _raised(thread.error)], False


def _never_ended(limit: float) -> Finding:
    return failed(
        f"still running after {_PATIENCE * limit:g} s",
        "Find the call that never returns or takes so long: a lock that nobody releases, a loop "
        "without an end, or a grid that is too fine for a check. Then give smaller settings or a "
        "longer --limit.",
    )


def _slow(message: str) -> Finding:
    return failed(message, "Give smaller settings, such as a coarser grid, or a longer --limit.")


def _raised(error: BaseException) -> Finding:
    """Make the finding that the code under check has raised an error."""
    return failed(f"raised {raised(error)}", "Mend what raised it; the line is given.")
