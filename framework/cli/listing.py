"""The command `list`: what a study can name. Imports no solver and no surrogate."""

from pathlib import Path
from typing import Annotated

import typer

from framework.cli.ending import AsJson, ending
from framework.errors import StudyError

Entries = dict[str, list[dict[str, str]]]


def list_command(
    what: Annotated[str | None, typer.Argument(help="solvers, surrogates or studies.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the solvers and surrogates with their settings, and the studies in configs/."""
    with ending(as_json) as outcome:
        entries = listing()
        if what is not None:
            if what not in entries:
                raise StudyError(f"{what} cannot be listed: it must be {', '.join(entries)}")
            entries = {what: entries[what]}
        outcome.result = lambda: dict(entries)
        outcome.text = lambda: _table(entries)


def listing() -> Entries:
    """Return what a study can name, and the studies in configs/, each with a summary."""
    from framework.study.component import SOLVER, SURROGATE, describe

    studies = []
    for path in sorted(Path("configs").rglob("*.yaml")):
        comment = path.read_text().partition("\n")[0]
        studies.append({"name": str(path), "summary": comment.lstrip("# ")})
    return {
        "solvers": [
            {**describe(name, entry.settings), **entry.facts}
            for name, entry in SOLVER.table.items()
        ],
        "surrogates": [describe(name, entry.settings) for name, entry in SURROGATE.table.items()],
        "studies": studies,
    }


def _table(entries: Entries) -> str:
    """Return the entries as text: name and summary in a line, below it a line for each fact."""
    lines = []
    for kind, items in entries.items():
        lines.append(f"{kind}:")
        width = max(len(item["name"]) for item in items) if items else 0
        for item in items:
            lines.append(f"  {item['name']:{width}}  {item['summary']}")
            facts = (key for key in item if key not in ("name", "summary"))
            lines += [f"  {'':{width}}    {key}: {item[key]}" for key in facts]
    return "\n".join(lines)
