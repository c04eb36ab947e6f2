"""What the tests of the checks share."""

from collections.abc import Sequence

from framework.check.findings import Finding

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
