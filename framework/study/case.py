"""A study's solver, parameter space, design and problem: made once per command, and checked.

Making the solver imports the module that the study names and its dependencies, such as torch. That
takes seconds, so tell the user before making a case. T: stored steps.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.errors import StudyError
from framework.study.component import SOLVER, SURROGATE, factory, their_mistakes
from framework.study.declared import require_declarations
from framework.study.design import Design
from framework.study.study import Study
from solvers.base import BatchSolver, ParameterSpace, Solver
from surrogates.problem import Problem

# The ranges of times are taken over this many simulations, the first ones.
_TIMED = 1000
# The largest number of float32.
_MOST = float(np.finfo(np.float32).max)


class Case:
    """A study, with the solver, the space, the design and the problem that it names."""

    study: Study
    make_solver: Callable[[], Solver]  # can be sent to another process
    solver: Solver
    space: ParameterSpace  # within the study's bounds
    design: Design
    problem: Problem

    def __init__(
        self, study: Study, path: Path | None = None, solver_of: "Case | None" = None
    ) -> None:
        """Make the parts and check that they agree; messages about mistakes begin with `path`.

        `solver_of`: a case whose solver is used for this study too, if both name the same. Raises
        StudyError.
        """
        self.study = study
        self._path = path
        try:
            self._make(solver_of)
        except ValueError as error:
            raise self.mistake(str(error)) from None

    def mistake(self, message: str) -> StudyError:
        """Return the error to raise for a mistake in the study."""
        return StudyError(f"{self._path}: {message}" if self._path else message)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is sent to another process, which makes the solver anew."""
        return {key: value for key, value in vars(self).items() if key != "solver"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.solver = self.make_solver()

    @property
    def step_bytes(self) -> int:
        """The size of the fields at one stored step."""
        return 4 * len(self.solver.fields) * math.prod(self.solver.grid.shape)

    @property
    def field_shape(self) -> tuple[int, ...]:
        """The shape of the fields at one stored step, (C, *grid)."""
        return (len(self.solver.fields), *self.solver.grid.shape)

    @cached_property
    def make_surrogate(self) -> Callable[[], Any]:
        """A function that makes the study's surrogate, untrained; can be sent to another process.

        Raises StudyError if the surrogate is not found or a setting is wrong.
        """
        try:
            return factory(self.study.surrogate, SURROGATE, self.problem)
        except ValueError as error:
            raise self.mistake(str(error)) from None

    def _make(self, solver_of: "Case | None") -> None:
        study = self.study
        if solver_of is not None and solver_of.study.solver == study.solver:
            self.make_solver, self.solver = solver_of.make_solver, solver_of.solver
        else:
            self.make_solver = factory(study.solver, SOLVER)
            with (
                _said_of("solver"),
                their_mistakes(f"making it{study.solver.given()} failed", plain=ValueError),
            ):
                self.solver = self.make_solver()
                require_declarations(self.solver)
        with _said_of("design.bounds"):
            self.space = self.solver.parameters.with_bounds(study.design.bounds)
        within = "solver, within design.bounds" if study.design.bounds else "solver"
        with _said_of(within), their_mistakes("checking its bounds failed", plain=ValueError):
            self.solver.check(self.space)
        self._check_range("design.bounds", self.space.low, self.space.high)
        self.design = Design(study.design, self.solver.parameters, study.seed)
        drawing = f"drawing parameters of {study.design.simulations} failed"
        with _said_of("design.simulations"), their_mistakes(drawing):
            points = [self.design.even(id) for id in range(min(study.design.simulations, _TIMED))]
        with _said_of("solver"):
            times, steps = self._times(points)
        self._check_range(f"solver: its stored times{study.solver.given()}", *map(np.array, times))
        self._check_batches()
        self.problem = self._problem(times, steps)

    def _check_batches(self) -> None:
        ensemble, name = self.study.ensemble, self.study.solver.name
        if isinstance(self.solver, BatchSolver):
            return
        if ensemble.group_size > 1:
            raise ValueError(
                f"ensemble.group_size is {ensemble.group_size}, but the solver {name} runs one "
                "simulation at a time: it has to be 1"
            )
        if ensemble.gpus_per_actor:
            raise ValueError(
                f"ensemble.gpus_per_actor is {ensemble.gpus_per_actor:g}, but the solver {name} "
                "has no solve_batch, which could use a GPU: it has to be 0"
            )

    def _check_range(self, what: str, low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
        """Raise ValueError if numbers are too large for float32, in which surrogates see them."""
        most = float(np.max(np.abs([low, high])))
        if most > _MOST:
            raise ValueError(
                f"{what} reach {most:.3g}, but float32 holds up to {_MOST:.3g}: choose other units"
            )

    def _times(
        self, points: list[NDArray[np.float64]]
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the range of the stored times at some parameters, and of the steps between two.

        Raises ValueError.
        """
        times, steps, stored = [], [], self.solver.stored_steps
        for id, parameters in enumerate(points):
            with their_mistakes(f"its times{self.study.solver.given()} failed"):
                t = np.asarray(self.solver.times(parameters), dtype=np.float64)
            if t.shape != (stored,) or not np.isfinite(t).all():
                raise ValueError(
                    f"the stored times of simulation {id} have to be {stored} finite numbers, as "
                    f"many as its stored steps, but they are {t.tolist()}"
                )
            between = np.diff(t) if len(t) > 1 else np.zeros(1)
            if between.min() < 0:
                raise ValueError(f"the stored times of simulation {id} have to ascend")
            times += [float(t[0]), float(t[-1])]
            steps += [float(between.min()), float(between.max())]
        return (min(times), max(times)), (min(steps), max(steps))

    def _problem(self, times: tuple[float, float], steps: tuple[float, float]) -> Problem:
        solver, space = self.solver, self.space
        static = list(solver.static_fields.values())
        return Problem(
            names=space.names,
            low=tuple(space.low.tolist()),
            high=tuple(space.high.tolist()),
            log=tuple(space.log.tolist()),
            times=times,
            steps=steps,
            channels=len(solver.fields),
            grid=solver.grid.shape,
            static=np.array(static, dtype=np.float32).reshape(-1, *solver.grid.shape),
        )


@contextmanager
def _said_of(part: str) -> Iterator[None]:
    """Name the part of the study that a ValueError is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{part}: {error}") from None
