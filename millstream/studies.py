"""The forms in which a study can be given."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from framework.errors import StudyError
from framework.study.case import Case
from framework.study.study import Study

StudyLike = Study | str | PathLike[str] | Mapping[str, Any]


def case_of(study: StudyLike) -> Case:
    """Make a study's solver, parameter space and design, and check that they agree.

    Args:
        study: A `Study`, the path of a YAML file, or a mapping with the sections of a study.

    Returns:
        The study with its parts.

    Raises:
        StudyError: The study cannot work as it is.
    """
    if isinstance(study, Study):
        return Case(study)
    if isinstance(study, Mapping):
        return Case(Study.of(study))
    if not isinstance(study, (str, PathLike)):
        raise StudyError(f"{study!r} is no study: give a Study, a path, or a mapping")
    path = Path(study)
    return Case(Study.load(path), path)
