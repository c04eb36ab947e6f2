"""What the tests of the checks share."""

import re
from collections.abc import Sequence
from typing import Any

from framework.check.findings import Checked, Finding
from framework.check.named import checks_of
from framework.check.running import run_checks

LIMIT = 600.0  # seconds a check may take here, however busy the machine


def found_in(findings: Sequence[Finding], check: str) -> list[Finding]:
    """What a check has found."""
    return [finding for finding in findings if finding.check == check]


def outcomes(findings: Sequence[Finding]) -> dict[str, str]:
    """The outcome of each check: the first that is not ok, if there is one."""
    all_of: dict[str, str] = {}
    for finding in findings:
        if all_of.get(finding.check, "ok") == "ok":
            all_of[finding.check] = finding.outcome
    return all_of


def run_check(found: type[Any], settings: dict[str, Any], check: str) -> Checked:
    """Run one of the checks of a class."""
    kind, checks = checks_of(found, settings)
    chosen = [each for each in checks if each.name == check]
    return Checked(found.__name__, kind, run_checks(chosen, LIMIT))


def assert_told(checked: Checked, check: str, measured: str, advice: str) -> None:
    """The check has failed, once, and its finding says what was measured and what to do."""
    (finding,) = (f for f in found_in(checked.findings, check) if f.outcome == "failed")
    assert re.search(measured, finding.measured), finding
    assert re.search(advice, finding.advice), finding
    text = " ".join(checked.text().split())
    assert finding.measured in text
    assert finding.advice in text
