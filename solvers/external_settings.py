"""The settings of a program in a study, checked before it runs: see `External`."""

import difflib
import hashlib
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import MinLen
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, PlainSerializer

from solvers.base import Grid, Parameter

# {{name}} stands for the text {name}; other braces are left as they are.
_PLACEHOLDER = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|\{([A-Za-z_]\w*)\}")
_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Bounds:
    """A parameter of a program; a study can also say `[low, high]`."""

    low: float
    high: float
    units: str = "1"
    prior: Literal["uniform", "log_uniform"] = "uniform"


def _named(bounds: object) -> object:
    """Return the bounds `[low, high]` by their names."""
    if not isinstance(bounds, list | tuple):
        return bounds
    if len(bounds) != 2:
        raise ValueError(f"it is {bounds}: it has to be [low, high], or {{low: ..., high: ...}}")
    return {"low": bounds[0], "high": bounds[1]}


Word = str | int | float


def absolute(command: Sequence[Word]) -> list[Word]:
    """Return the command with absolute paths, for a process in another directory."""
    first, *others = command
    # A program with a / in its name is a file, too; `executable` checks everything else about it.
    if isinstance(first, str) and os.sep in first and not _PLACEHOLDER.search(first):
        first = first if os.path.isabs(first) else _located(first)
    return [
        first,
        *(
            _located(word) if isinstance(word, str) and word.startswith(("./", "../")) else word
            for word in others
        ),
    ]


def _as_written(command: Sequence[Word]) -> list[Word]:
    """Return a command for the identity of a study, which must not depend on the directory."""
    here = f"{Path.cwd()}/"
    return [
        f"./{word.removeprefix(here)}" if isinstance(word, str) and word.startswith(here) else word
        for word in command
    ]


def _content(path: Path) -> str:
    """Return a template for the identity of a study: its content, not its place."""
    return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


_Bounds = Annotated[Bounds, BeforeValidator(_named)]


def _in_order(settings: Mapping[str, object]) -> list[tuple[str, object]]:
    """Return a mapping as a list for the identity of a study, so that its order counts."""
    return list(settings.items())


Command = Annotated[
    Sequence[Word], MinLen(1), AfterValidator(absolute), PlainSerializer(_as_written)
]
Parameters = Annotated[Mapping[str, _Bounds], MinLen(1), PlainSerializer(_in_order)]
Fields = Annotated[Mapping[str, str], MinLen(1), PlainSerializer(_in_order)]
# Marks what makes no difference to the fields: in the identity of a study it is as if not given, as
# in stores of before there was this setting.
Unidentified = PlainSerializer(lambda _: None)
Template = Annotated[Path, AfterValidator(Path.absolute), PlainSerializer(_content)]


def make_parameter(name: str, bounds: Bounds) -> Parameter:
    """Make the parameter of this name. Raises ValueError if a program cannot be given it."""
    if not _NAME.fullmatch(name) or name == "seed":
        raise ValueError(
            f"a parameter cannot be called {name!r}: letters, digits and _ make a name, and seed "
            "is the simulation's seed"
        )
    return Parameter(name, bounds.low, bounds.high, bounds.units, bounds.prior)


def checked_grid(grid: Grid) -> Grid:
    """Return the grid with tuples. Raises ValueError unless it has one to three valid axes."""
    shape, spacing = tuple(grid.shape), tuple(grid.spacing)
    if not 1 <= len(shape) <= 3 or min(shape) < 1:
        raise ValueError(
            f"grid.shape is {list(shape)}: it has to be one to three numbers from 1 on"
        )
    if len(spacing) != len(shape) or not all(0 < width < math.inf for width in spacing):
        raise ValueError(
            f"grid.spacing is {list(spacing)}: it has to be a positive number for each of the "
            f"{len(shape)} axes"
        )
    return Grid(shape, spacing, grid.units)


def stored_times(
    stored_steps: int | None, final_time: float | None, times: Sequence[float] | None
) -> NDArray[np.float64]:
    """Return the stored times [T], given in one of two ways. Raises ValueError."""
    if times is not None and stored_steps is None and final_time is None:
        stored = np.array(times, dtype=np.float64)
        if not np.isfinite(stored).all() or (np.diff(stored) <= 0).any():
            raise ValueError(f"times are {list(times)}: they have to be finite and to ascend")
        return stored
    if times is not None or stored_steps is None or final_time is None:
        raise ValueError("give either stored_steps and final_time, or times")
    return np.linspace(0.0, final_time, stored_steps)


def _located(word: str) -> str:
    """Return the absolute path of a file, relative to the current directory. Raises ValueError."""
    path = Path(os.path.abspath(word))
    if not path.exists():
        raise ValueError(f"there is no {word} in {Path.cwd()}")
    return str(path)


def executable(name: str) -> str:
    """Return the path of the program of this name. Raises ValueError if it cannot be run."""
    if _PLACEHOLDER.search(name):
        raise ValueError(f"command begins with {name}: the program itself can have no placeholder")
    found = shutil.which(name)
    if found is not None:
        return os.path.abspath(found)
    if os.sep not in name:
        raise ValueError(
            f"command begins with {name}, which is in none of the directories of PATH: "
            f"./{name} is a file in {Path.cwd()}"
        )
    path = Path(name)
    if not path.exists():
        raise ValueError(f"command begins with {name}, which does not exist")
    if path.is_dir():
        raise ValueError(f"command begins with {name}, which is a directory")
    raise ValueError(f"command begins with {name}, which is not executable: chmod +x {name}")


def read_template(template: Path) -> str:
    """Read the text of a template. Raises ValueError if it cannot be read."""
    try:
        return template.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"the template {template} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"the template {template} is not text in UTF-8") from None


def check_texts(
    texts: Mapping[str, Sequence[str]], parameters: Sequence[str], stays: bool
) -> set[str]:
    """Return what the program is told: parameters, and `seed` if it is one of the placeholders.

    `texts`: the texts with placeholders, by the place that they are from. Raises ValueError on an
    unknown placeholder, or a parameter that the program is not told; and on any placeholder for a
    program that `stays`.
    """
    known = [*parameters, "seed"]
    used: set[str] = set()
    for place, text in ((place, text) for place, words in texts.items() for text in words):
        if "\0" in text:
            raise ValueError(f"{place} has a zero byte in it")
        for name in (match[2] for match in _PLACEHOLDER.finditer(text) if match[2]):
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {{{near[0]}}}?" if near else f"{{{{{name}}}}} means the text"
                raise ValueError(
                    f"{place} has the placeholder {{{name}}}, but the parameters are "
                    f"{', '.join(known)}; {hint}"
                )
            if stays:
                raise ValueError(
                    f"{place} has the placeholder {{{name}}}, but stays is true: the program asks "
                    "for the parameters and the seed of each of its simulations"
                )
            used.add(name)
    if stays:
        return used
    if unused := [name for name in parameters if name not in used]:
        raise ValueError(
            f"the program is not told the parameter {unused[0]}: {{{unused[0]}}} has to be in "
            "command, env or the template"
        )
    return used


def check_arguments(words: Sequence[str], template: Path) -> None:
    """Raise ValueError if the command names the template in place of the filled copy."""
    for word in words:
        if os.sep in word and os.path.abspath(word) == os.path.abspath(template):
            raise ValueError(
                f"command has the template {template} itself: write {template.name}, the filled "
                "one lies in the program's directory"
            )


def check_environment(names: Iterable[str]) -> None:
    """Raise ValueError if a variable cannot be given to a program."""
    for name in names:
        if not name or "=" in name or "\0" in name or name.startswith("MILLSTREAM_"):
            raise ValueError(f"env has {name!r}, which a program's environment cannot be given")


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return the text with values in place of the placeholders."""
    return _PLACEHOLDER.sub(lambda match: f"{{{match[1]}}}" if match[1] else values[match[2]], text)
