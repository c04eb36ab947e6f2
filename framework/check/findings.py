"""The findings of checks, and how they are printed.

A check is a function that yields findings; `running.py` runs a list of them.
"""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from framework.check.clock import Clock

_WIDTH = 100

KindChecked = Literal["solver", "surrogate", "buffer"]
OUTCOMES = {"ok": "ok", "failed": "FAIL", "skipped": "skipped"}  # as JSON, and as printed


@dataclass(frozen=True)
class Finding:
    """The finding of one check, in words, with the numbers that were measured."""

    outcome: Literal["ok", "failed", "skipped"]
    measured: str
    advice: str = ""  # for a failure: what to do
    check: str = ""  # the name of the check


@dataclass(frozen=True)
class Check:
    """A check by name. It may yield several findings, and takes no longer than its clock says."""

    name: str
    run: Callable[[Clock], Iterator[Finding]]
    needed: bool = False  # where it fails, the checks after it would say nothing


def passed(measured: str) -> Finding:
    """Make the finding that all is well."""
    return Finding("ok", measured)


def failed(measured: str, advice: str) -> Finding:
    """Make the finding that something is wrong, with what to do."""
    return Finding("failed", measured, advice)


def skipped(why: str) -> Finding:
    """Make the finding that nothing could be checked."""
    return Finding("skipped", why)


@dataclass(frozen=True)
class Checked:
    """All findings about one solver, surrogate or buffer."""

    name: str
    kind: KindChecked
    findings: Sequence[Finding]

    @property
    def failures(self) -> list[Finding]:
        """The findings that failed."""
        return [finding for finding in self.findings if finding.outcome == "failed"]

    def to_json(self) -> dict[str, Any]:
        """Return the findings as plain values."""
        return {
            "name": self.name,
            "kind": self.kind,
            "ok": not self.failures,
            "checks": [asdict(finding) for finding in self.findings],
        }

    def text(self) -> str:
        """Return a table with a line for each finding, and below each failure what to do."""
        counts = [
            f"{sum(finding.outcome == outcome for finding in self.findings)} {word}"
            for outcome, word in OUTCOMES.items()
        ]
        return "\n".join([f"{self.kind} {self.name}: {', '.join(counts)}", *_rows(self.findings)])


def _rows(findings: Sequence[Finding]) -> list[str]:
    """Return the lines of the table: check, outcome, and measured values, wrapped if long."""
    width = max((len(finding.check) for finding in findings), default=0)
    words = max(map(len, OUTCOMES.values()))
    margin = " " * (2 + width + 2 + words + 2)
    lines = []
    for finding in findings:
        head = f"  {finding.check:{width}}  {OUTCOMES[finding.outcome]:{words}}  "
        for start, text in ((head, finding.measured), (margin, finding.advice)):
            if text:
                lines += textwrap.wrap(
                    text,
                    max(_WIDTH, len(margin) + 40),
                    initial_indent=start,
                    subsequent_indent=margin,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
    return lines
