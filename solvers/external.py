"""Anybody's own program as a solver: a command that sends its fields over a local socket."""

import math
import os
import secrets
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, MinLen
from numpy.typing import NDArray

from solvers.base import Field, Grid, Order, OutputPlace, ParameterSpace, Solver
from solvers.external_kept import Kept
from solvers.external_program import PATIENCE, Guard, Program
from solvers.external_receiver import Receiver
from solvers.external_settings import (
    Command,
    Fields,
    Parameters,
    Template,
    Unidentified,
    Word,
    absolute,
    check_arguments,
    check_environment,
    check_texts,
    checked_grid,
    executable,
    filled,
    make_parameter,
    read_template,
    stored_times,
)
from solvers.external_wire import WireError

# The address of a Unix socket has at most 107 bytes, of which ours needs 27 in this directory.
_LONGEST_TEMPORARY_PATH = 80


# Programs that start another one, by how their names begin.
_LAUNCHERS = ("mpirun", "mpiexec", "srun", "env", "python", "bash", "sh", "nice", "taskset")


class ProgramError(Exception):
    """A program did not do what the study says."""


@dataclass(frozen=True)
class _Running:
    """A program that runs, and what listens to it."""

    program: Program
    receiver: Receiver
    work: Path  # its directory
    stack: ExitStack  # ends it


class External(Solver):
    """Starts a command for each simulation and takes the fields that it sends
    (docs/how-to/external.md).

    Equation, scheme and order are the program's own. Channels, grid and parameters are given in the
    study. The parameters, and `seed` from 0 to 2^63 - 1, replace `{name}` and `{seed}` in the
    command, the environment and the template; numbers are written so that they read back the same.

    The program runs in a temporary directory of its own, with the template filled in there, without
    a shell. It finds the socket in MILLSTREAM_ADDRESS, and shows the token in MILLSTREAM_TOKEN
    there; the clients in clients/ do that. It sends every stored step, the initial state first, and
    then finalizes; while nobody draws its steps, it waits in its send. The simulation fails if the
    program does anything else or takes too long; then, and whenever no more steps are wanted, its
    process group is ended. external_wire.py describes the format.

    A program that `stays` runs one simulation after the other, and is told their parameters by the
    socket. It is started again when it has failed or ended, and ends with the solver.
    """

    order = Order(space=math.nan, time=math.nan)  # not known

    def __init__(
        self,
        command: Command,
        parameters: Parameters,
        fields: Fields,
        grid: Grid,
        stored_steps: Annotated[int, Ge(1)] | None = None,
        final_time: Annotated[float, Gt(0)] | None = None,
        times: Annotated[Sequence[float], MinLen(1)] | None = None,
        time_units: str = "1",
        env: Mapping[str, Word] | None = None,
        template: Template | None = None,
        time_limit: Annotated[float, Gt(0)] = 600.0,
        stays: Annotated[bool, Unidentified] = False,
        uses_seed: Annotated[bool, Unidentified] = False,
    ) -> None:
        """`command`: the program and its arguments; `fields`: name and units.

        Words of `command` that begin with ./ or ../ are files, relative to where Millstream was
        started, and so is a program with a / in its name. The stored times are `stored_steps` from
        0 to `final_time`, or the list `times`. `env` is added to the environment. `time_limit`: the
        seconds that Millstream waits for a step, the first with the program's start, and for its
        end after the last. `stays`: whether the program asks for several simulations; `uses_seed`:
        whether their seeds then decide the fields, too.
        """
        self.parameters = ParameterSpace(
            *(make_parameter(name, bounds) for name, bounds in parameters.items())
        )
        self.fields = tuple(Field(name, units) for name, units in fields.items())
        self.grid = checked_grid(grid)
        self._times = stored_times(stored_steps, final_time, times)
        self.stored_steps = len(self._times)
        self.time_units = time_units
        self._program, *words = map(str, absolute(command))
        self._command = [executable(self._program), *words]
        self._env = {name: str(value) for name, value in (env or {}).items()}
        self._template = None if template is None else (template.name, read_template(template))
        self._time_limit = time_limit
        self._stays = stays
        self._guards: list[Guard] = []  # idle ones
        self._idle: list[_Running] = []  # programs that wait for their next simulation
        weakref.finalize(self, _end_all, self._idle)
        self._place: OutputPlace | None = None
        check_environment(self._env)
        if template is not None:
            check_arguments(words, template)
        texts = {f"env.{name}": [value] for name, value in self._env.items()}
        texts["command"] = self._command
        if self._template is not None:
            texts[f"the template {self._template[0]}"] = [self._template[1]]
        told = check_texts(texts, self.parameters.names, stays)
        if uses_seed and not stays:
            raise ValueError(
                "uses_seed is true, but stays is not: a program that does not stay uses the seed "
                "where {seed} is one of its placeholders"
            )
        self.uses_seed = uses_seed or "seed" in told
        _check_temporary_path()

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._times

    def keep_output(self, place: OutputPlace) -> None:
        self._place = place

    def solve(self, parameters: NDArray[np.float64], seed: int) -> Iterator[NDArray[np.float32]]:
        kept = Kept(self._place)
        values = self._values(parameters, seed)
        running = self._waiting() or self._start(values)
        with running.stack as stack:
            running.program.output.begin(kept)
            try:
                if self._stays:
                    running.receiver.offer(parameters, _signed(seed))
                for step in range(self.stored_steps):
                    yield running.receiver.frame(step)
                running.receiver.finish()
            except (WireError, GeneratorExit) as error:
                running.program.end()
                where = kept.fail(running.work)
                if isinstance(error, GeneratorExit):  # its fields were refused, or take too long
                    raise
                words = running.program.output.last_words()
                said = f"; its standard error ends: {words}" if words else ""
                raise ProgramError(f"{self._program} {error}{said}{where}") from None
            if self._stays:
                running.program.output.finish()
                self._idle.append(replace(running, stack=stack.pop_all()))
        kept.succeed()

    def program_files(self) -> Sequence[Path]:
        """Return the program and the files among its arguments.

        A program that only starts another, as mpirun and python do, does not count beside files.
        """
        program, *words = map(Path, self._command)
        files = [word for word in words if word.is_absolute() and word.is_file()]
        starts = program.name.startswith(_LAUNCHERS)
        return files if starts and files else [program, *files]

    def _waiting(self) -> _Running | None:
        """Return a program that waits for its next simulation, if there is one."""
        while self._idle:
            running = self._idle.pop()
            if running.program.status() is None:
                return running
            running.stack.close()
        return None

    def _start(self, values: Mapping[str, str]) -> _Running:
        """Start the program with these values of the placeholders. Raises ProgramError."""
        with ExitStack() as starting:
            directory = Path(
                starting.enter_context(
                    tempfile.TemporaryDirectory(prefix="millstream-", ignore_cleanup_errors=True)
                )
            )
            token = secrets.token_hex(16)
            receiver = Receiver(
                directory / "socket",
                token,
                tuple(field.name for field in self.fields),
                self.grid.shape,
                self.stored_steps,
                self._time_limit,
                self._stays,
            )
            starting.callback(receiver.close)
            guard = starting.enter_context(_one_of(self._guards))
            work = directory / "work"
            work.mkdir()
            program = self._program_in(work, directory / "socket", token, values)
            starting.callback(program.end)
            if self._stays:  # told that there are no more simulations, it may end by itself
                starting.callback(program.wait, PATIENCE)
                starting.callback(receiver.close)
            guard.watch(program.group, directory, PATIENCE if self._stays else 0)
            receiver.attend(program)
            stack = starting.pop_all()
        return _Running(program, receiver, work, stack)

    def _program_in(
        self, work: Path, socket: Path, token: str, values: Mapping[str, str]
    ) -> Program:
        """Start the program in its working directory."""
        if self._template is not None:
            name, text = self._template
            (work / name).write_text(filled(text, values), encoding="utf-8")
        environment = os.environ | {key: filled(text, values) for key, text in self._env.items()}
        environment |= {"MILLSTREAM_ADDRESS": str(socket), "MILLSTREAM_TOKEN": token}
        try:
            return Program([filled(word, values) for word in self._command], environment, work)
        except OSError as error:
            raise ProgramError(f"{self._program} cannot be started: {error.strerror}") from None

    def _values(self, parameters: NDArray[np.float64], seed: int) -> dict[str, str]:
        """Return the values of the placeholders."""
        values = (repr(float(value)) for value in parameters)
        return dict(zip(self.parameters.names, values, strict=True)) | {"seed": str(_signed(seed))}


def _check_temporary_path() -> None:
    """Raise ValueError if the directory for temporary files cannot have our sockets in it."""
    if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_TEMPORARY_PATH:
        raise ValueError(
            f"the directory for temporary files {tempfile.gettempdir()} has too long a name "
            "for a socket: set TMPDIR to a shorter one"
        )


def _signed(seed: int) -> int:
    """Return half the seed: it fits a signed 64-bit integer, and some languages have no others."""
    return seed >> 1


@contextmanager
def _one_of(guards: list[Guard]) -> Iterator[Guard]:
    """Yield an idle guard, or a new one; it is idle again afterwards."""
    guard = guards.pop() if guards else Guard()
    try:
        yield guard
    finally:
        guard.release()
        guards.append(guard)


def _end_all(idle: list[_Running]) -> None:
    """End programs that stayed for a solver that is no more."""
    for running in idle:
        running.stack.close()
