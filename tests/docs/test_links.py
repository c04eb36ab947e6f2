"""Links between the pages of the repository lead to a file and, where they name one, a heading."""

import re

import pytest
from places import ROOT

# Folders of a run, not of the repository.
WRITTEN_BY_A_RUN = ("model/", "pictures/")
# The site's builder checks the pages under docs/.
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "changes/README.md",
    "benchmarks/README.md",
]


def anchor(heading: str) -> str:
    """The name that a forge gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("http"):
            continue
        name, _, heading = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert heading in map(anchor, headings), link


def test_the_architecture_names_files_that_there_are() -> None:
    page = (ROOT / "docs/explanation/architecture.md").read_text()
    named = re.findall(r"`([\w/]+\.py|[\w/]+/)`", page)
    places = [ROOT, ROOT / "framework", ROOT / "framework/inverse", ROOT / "solvers"]
    for name in named:
        if name not in WRITTEN_BY_A_RUN:
            assert any((place / name).exists() for place in places), name
