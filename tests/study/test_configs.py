"""The studies in configs/ are valid, and their runs do not take each other's names."""

from pathlib import Path

import pytest
from places import CONFIGS

from framework.compare.arms import Plan
from framework.study.case import Case
from framework.study.study import Study
from framework.training.surrogate import make_surrogate

# Those of programs need them compiled: see test_external_studies.py.
STUDIES = sorted(path for path in CONFIGS.glob("*.yaml") if "external" not in path.name)
TO_COMPARE = sorted(CONFIGS.glob("compare/*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_is_valid_and_has_the_name_of_its_file(path: Path) -> None:
    study = Study.load(path)
    assert study.name == path.stem
    case = Case(study)
    assert make_surrogate(case).problem.grid == case.problem.grid


@pytest.mark.parametrize("path", TO_COMPARE, ids=lambda path: path.stem)
def test_a_study_to_compare_can_be_and_has_a_larger_one_beside_it(path: Path) -> None:
    for file, suffix in ((path, ""), (path.parent / "gpu" / path.name, "_gpu")):
        study = Study.load(file)
        assert study.name == path.stem + suffix
        Plan(Case(study), "steps")
