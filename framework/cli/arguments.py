"""Arguments that commands share: a study, settings that replace its own, numbers by name."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from framework.errors import StudyError, tell

if TYPE_CHECKING:
    from framework.study.case import Case
    from framework.study.study import Study

StudyFile = Annotated[Path, typer.Argument(help="A study, such as configs/quickstart.yaml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SECTION.KEY=VALUE]...", help="Settings that replace the study's."),
]


def load_study(path: Path, overrides: Sequence[str] | None) -> "Study":
    """Read a study, check its keys, types and ranges, and tell the user. Raises StudyError."""
    from framework.study.study import Study

    study = Study.load(path, overrides or [])
    tell_checking(study, path)
    return study


def load_case(path: Path, overrides: Sequence[str] | None) -> "Case":
    """Read a study as `load_study` does, and make its case. Raises StudyError."""
    study = load_study(path, overrides)
    from framework.study.case import Case

    return Case(study, path)


@contextmanager
def case_and_ray(study: "Study", path: Path, other_cpus: float) -> "Iterator[Case]":
    """Make the case of a study while Ray starts in the background, for a run in the block.

    `other_cpus`: see `ray_for`. Raises StudyError.
    """
    from framework.simulation.cluster import ray_begun
    from framework.study.case import Case
    from framework.study.component import SOLVER, own_modules

    with ray_begun(study.ensemble, other_cpus, own_modules(study.solver, SOLVER)):
        yield Case(study, path)


def tell_checking(study: "Study", path: Path) -> None:
    """Tell the user what is being checked: importing the solver and surrogate may take seconds."""
    tell(f"checking {path}: solver {study.solver.name}, surrogate {study.surrogate.name}")


def numbers_by_name(arguments: Sequence[str]) -> dict[str, float]:
    """Read `name=value` arguments, each name once. Raises StudyError."""
    numbers: dict[str, float] = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name in numbers:
            raise StudyError(f"{name} is given twice: as {numbers[name]:g} and as {value}")
        try:
            numbers[name] = float(value)
        except ValueError:
            raise StudyError(f"{argument} is not of the form name=number") from None
    return numbers


def listed_numbers(name: str, text: str) -> list[float]:
    """Read numbers with commas between them, the value of `name`. Raises StudyError."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise StudyError(
            f"{name} is {text}: it has to be numbers with commas between, such as 0.5,0.6"
        ) from None


def texts_by_name(arguments: Sequence[str]) -> dict[str, str]:
    """Read `name=value` arguments, each name once. Raises StudyError."""
    texts: dict[str, str] = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if not (name and value):
            raise StudyError(f"{argument} is not of the form name=value")
        if name in texts:
            raise StudyError(f"{name} is given twice: as {texts[name]} and as {value}")
        texts[name] = value
    return texts
