"""Anybody's own program as a solver: a command that sends its fields over a local socket."""

import difflib
import hashlib
import math
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, MinLen
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, PlainSerializer

from solvers.base import Field, Grid, Order, Parameter, ParameterSpace, Solver
from solvers.external_program import Guard, Program
from solvers.external_receiver import Receiver
from solvers.external_wire import WireError

# {{name}} stands for the text {name}; other braces are left as they are.
_PLACEHOLDER = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|\{([A-Za-z_]\w*)\}")
_NAME = re.compile(r"[A-Za-z_]\w*")
# The address of a Unix socket has at most 107 bytes, of which ours needs 27 in this directory.
_LONGEST_TEMPORARY_PATH = 80


class ProgramError(Exception):
    """A program that did not do what the study says of it."""


@dataclass(frozen=True)
class Bounds:
    """A parameter of a program; a study can also say `[low, high]`."""

    low: float
    high: float
    units: str = "1"
    prior: Literal["uniform", "log_uniform"] = "uniform"


def _named(bounds: object) -> object:
    """The bounds `[low, high]` by their names."""
    if not isinstance(bounds, list | tuple):
        return bounds
    if len(bounds) != 2:
        raise ValueError(f"it is {bounds}: it has to be [low, high], or {{low: ..., high: ...}}")
    return {"low": bounds[0], "high": bounds[1]}


_Word = str | int | float


def _absolute(command: Sequence[_Word]) -> list[_Word]:
    """The command for a process that is elsewhere: files named from here by their whole path."""
    return [_located(word) if isinstance(word, str) else word for word in command]


def _as_written(command: Sequence[_Word]) -> list[_Word]:
    """A command in the identity of a study, which does not depend on where it was started."""
    here = f"{Path.cwd()}/"
    return [
        f"./{word.removeprefix(here)}" if isinstance(word, str) and word.startswith(here) else word
        for word in command
    ]


def _content(path: Path) -> str:
    """A template in the identity of a study: not where it lies, but what it says."""
    return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


_Bounds = Annotated[Bounds, BeforeValidator(_named)]


def _in_order(settings: Mapping[str, object]) -> list[tuple[str, object]]:
    """A mapping in the identity of a study, where otherwise its order would not count."""
    return list(settings.items())


_Command = Annotated[
    Sequence[_Word], MinLen(1), AfterValidator(_absolute), PlainSerializer(_as_written)
]
_Parameters = Annotated[Mapping[str, _Bounds], MinLen(1), PlainSerializer(_in_order)]
_Fields = Annotated[Mapping[str, str], MinLen(1), PlainSerializer(_in_order)]
_Template = Annotated[Path, AfterValidator(Path.absolute), PlainSerializer(_content)]


class External(Solver):
    """Starts a command for each simulation and takes the fields that it sends (docs/external.md).

    Equation, scheme and order are the program's own. Channels, grid and parameters are what the
    study says. The parameters, and `seed` from 0 to 2^63 - 1, replace `{name}` and `{seed}` in the
    command, the environment and the template; numbers are written so that they read back the same.

    The program runs in a temporary directory of its own, with the template filled in there, without
    a shell. It finds the socket in MILLSTREAM_ADDRESS, and in MILLSTREAM_TOKEN what it has to show
    there; the clients in clients/ see to that. It sends every stored step, the initial state first,
    and then finalizes; it waits in its send while nobody draws. The simulation fails if it does
    anything else or takes too long; then, and whenever nobody wants more of it, its process group
    is ended. See external_wire.py for what is sent.
    """

    order = Order(space=math.nan, time=math.nan)  # not known

    def __init__(
        self,
        command: _Command,
        parameters: _Parameters,
        fields: _Fields,
        grid: Grid,
        stored_steps: Annotated[int, Ge(1)] | None = None,
        final_time: Annotated[float, Gt(0)] | None = None,
        times: Annotated[Sequence[float], MinLen(1)] | None = None,
        time_units: str = "1",
        env: Mapping[str, _Word] | None = None,
        template: _Template | None = None,
        time_limit: Annotated[float, Gt(0)] = 600.0,
    ) -> None:
        """`command`: the program and its arguments; words that begin with ./ or ../ are files,
        relative to where Millstream was started. `fields`: name and units. The stored times are
        `stored_steps` from 0 to `final_time`, or the list `times`. `env` is added to the
        environment. `time_limit`: the seconds that Millstream waits for a step, the first with the
        program's start, and for its end after the last."""
        self.parameters = ParameterSpace(
            *(_parameter(name, bounds) for name, bounds in parameters.items())
        )
        self.fields = tuple(Field(name, units) for name, units in fields.items())
        self.grid = _checked(grid)
        self._times = _stored_times(stored_steps, final_time, times)
        self.stored_steps = len(self._times)
        self.time_units = time_units
        self._program, *words = map(str, _absolute(command))
        self._command = [_executable(self._program), *words]
        self._env = {name: str(value) for name, value in (env or {}).items()}
        self._template = None if template is None else (template.name, _read(template))
        self._time_limit = time_limit
        self._guards: list[Guard] = []  # idle ones
        self._check_names()
        if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_TEMPORARY_PATH:
            raise ValueError(
                f"the directory for temporary files {tempfile.gettempdir()} has too long a name "
                "for a socket: set TMPDIR to a shorter one"
            )

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._times

    def solve(self, parameters: NDArray[np.float64], seed: int) -> Iterator[NDArray[np.float32]]:
        with tempfile.TemporaryDirectory(prefix="millstream-", ignore_cleanup_errors=True) as name:
            directory, token = Path(name), secrets.token_hex(16)
            receiver = Receiver(
                directory / "socket",
                token,
                tuple(field.name for field in self.fields),
                self.grid.shape,
                self.stored_steps,
                self._time_limit,
            )
            guard = self._guards.pop() if self._guards else Guard()
            try:
                program = self._start(directory, token, self._values(parameters, seed))
                try:
                    guard.watch(program.group, directory)
                    receiver.attend(program)
                    for step in range(self.stored_steps):
                        yield receiver.frame(step)
                    receiver.finish()
                except WireError as error:
                    program.end()
                    words = program.last_words()
                    said = f"; its standard error ends: {words}" if words else ""
                    raise ProgramError(f"{self._program} {error}{said}") from None
                finally:
                    program.end()
                    guard.release()
            finally:
                receiver.close()
            self._guards.append(guard)

    def _start(self, directory: Path, token: str, values: Mapping[str, str]) -> Program:
        work = directory / "work"
        work.mkdir()
        if self._template is not None:
            name, text = self._template
            (work / name).write_text(_filled(text, values), encoding="utf-8")
        environment = os.environ | {key: _filled(text, values) for key, text in self._env.items()}
        environment |= {
            "MILLSTREAM_ADDRESS": str(directory / "socket"),
            "MILLSTREAM_TOKEN": token,
        }
        try:
            return Program([_filled(word, values) for word in self._command], environment, work)
        except OSError as error:
            raise ProgramError(f"{self._program} cannot be started: {error.strerror}") from None

    def _values(self, parameters: NDArray[np.float64], seed: int) -> dict[str, str]:
        """What the placeholders stand for."""
        values = (repr(float(value)) for value in parameters)
        # Half the seed, so that it is a number for languages that know signed integers only.
        return dict(zip(self.parameters.names, values, strict=True)) | {"seed": str(seed >> 1)}

    def _check_names(self) -> None:
        """That every placeholder is known, and that the program is told every parameter."""
        known = [*self.parameters.names, "seed"]
        texts = {f"env.{name}": [value] for name, value in self._env.items()}
        texts["command"] = self._command
        if self._template is not None:
            texts[f"the template {self._template[0]}"] = [self._template[1]]
        used = set()
        for place, name in _placeholders(texts):
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {{{near[0]}}}?" if near else f"{{{{{name}}}}} means the text"
                raise ValueError(
                    f"{place} has the placeholder {{{name}}}, but the parameters are "
                    f"{', '.join(known)}; {hint}"
                )
            used.add(name)
        if unused := [name for name in self.parameters.names if name not in used]:
            raise ValueError(
                f"the program is not told the parameter {unused[0]}: {{{unused[0]}}} has to be in "
                "command, env or the template"
            )
        for name in self._env:
            if not name or "=" in name or name.startswith("MILLSTREAM_"):
                raise ValueError(f"env has {name}, which a program's environment cannot be given")
        for place, words in texts.items():
            if any("\0" in word for word in words):
                raise ValueError(f"{place} has a zero byte in it")


def _parameter(name: str, bounds: Bounds) -> Parameter:
    if not _NAME.fullmatch(name) or name == "seed":
        raise ValueError(
            f"a parameter cannot be called {name!r}: letters, digits and _ make a name, and seed "
            "is the simulation's seed"
        )
    return Parameter(name, bounds.low, bounds.high, bounds.units, bounds.prior)


def _checked(grid: Grid) -> Grid:
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


def _stored_times(
    stored_steps: int | None, final_time: float | None, times: Sequence[float] | None
) -> NDArray[np.float64]:
    if times is not None and stored_steps is None and final_time is None:
        stored = np.array(times, dtype=np.float64)
        if not np.isfinite(stored).all() or (np.diff(stored) <= 0).any():
            raise ValueError(f"times are {list(times)}: they have to be finite and to ascend")
        return stored
    if times is not None or stored_steps is None or final_time is None:
        raise ValueError("give either stored_steps and final_time, or times")
    return np.linspace(0.0, final_time, stored_steps)


def _located(word: str) -> str:
    """A word of a command; a file that is named from here becomes an absolute path."""
    if not word.startswith(("./", "../")):
        return word
    path = Path(os.path.abspath(word))
    if not path.exists():
        raise ValueError(f"command names {word}, which does not exist in {Path.cwd()}")
    return str(path)


def _executable(name: str) -> str:
    """Where the program of this name is. Raises ValueError if it is nowhere, or cannot be run."""
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


def _read(template: Path) -> str:
    try:
        return template.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"the template {template} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"the template {template} is not text in UTF-8") from None


def _placeholders(texts: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, str]]:
    """Where each placeholder is, and its name."""
    for place, words in texts.items():
        for word in words:
            for match in _PLACEHOLDER.finditer(word):
                if match[2]:
                    yield place, match[2]


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: f"{{{match[1]}}}" if match[1] else values[match[2]], text)
