"""What a study can name, for `millstream list`. Imports no solver and no surrogate."""

from pathlib import Path

from framework.study.component import SOLVER, SURROGATE, describe


def listing() -> dict[str, list[dict[str, str]]]:
    """What a study can name, and the studies in configs/: for each its name and what it is."""
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
