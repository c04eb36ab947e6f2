"""The text printed at the end of a training run: facts, advice, warnings, how to continue."""

import textwrap

from framework.report.advice import Advice, advise
from framework.report.amiss import amiss
from framework.report.facts import facts
from framework.report.summary import Summary
from framework.study.case import Case

_TEXT_WIDTH = 100


def run_text(summary: Summary, case: Case) -> str:
    """Return the summary of a run of this case, and conclusions from it, as lines to print."""
    lines = facts(summary)
    if summary.training.steps:
        lines += advice_lines(advise(summary, case))
    for warning in amiss(summary, case):
        lines += _fill(f"Beware: {warning}")
    if summary.status == "interrupted":
        lines.append(f"To go on: millstream resume {summary.run_dir}")
    return "\n".join(lines)


def advice_lines(advice: Advice) -> list[str]:
    """Return what set the pace, and a line or more for each change."""
    lines = _fill(advice.found + (" What to change:" if advice.changes else ""))
    for change in advice.changes:
        lines += _fill(f"  - {change}", indent=4)
    return lines


def _fill(text: str, indent: int = 0) -> list[str]:
    return textwrap.wrap(text, _TEXT_WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)
