"""The studies in configs/ are valid, and their runs do not take each other's names."""

from pathlib import Path

import pytest

from framework.study import Study

STUDIES = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_is_valid_and_has_the_name_of_its_file(path: Path) -> None:
    study = Study.load(path)
    assert study.name == path.stem
    problem = study.problem()
    assert study.surrogate_factory()().problem.grid == problem.grid
