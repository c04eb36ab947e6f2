"""A study: one YAML file that says what to simulate, and what to learn from it.

The sections' models live beside the code they set; here they are put together, checked against each
other, and turned into solvers and surrogates. Everything is checked before Ray starts.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator

import solvers.base
import surrogates.base
from framework.errors import StudyError
from framework.files import write_text
from framework.study.component import Component, explain, factory, find, their_mistakes
from framework.study.design import Design
from framework.study.section import Section
from framework.study.sections import (
    BufferConfig,
    CheckpointConfig,
    DesignConfig,
    EnsembleConfig,
    StoreConfig,
    TrackingConfig,
    TrainingConfig,
    ValidationConfig,
)
from solvers.base import BatchSolver, Solver
from surrogates.base import Problem, Surrogate


class Study(Section):
    """A whole study. Raises pydantic's ValidationError, or StudyError when read from a file."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    solver: Component
    design: DesignConfig
    ensemble: EnsembleConfig = EnsembleConfig()
    buffer: BufferConfig
    surrogate: Component
    training: TrainingConfig = TrainingConfig()
    validation: ValidationConfig = ValidationConfig()
    store: StoreConfig = StoreConfig()
    tracking: TrackingConfig = TrackingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    # Two runs, or one that was interrupted, train alike to the bit: with one solver actor.
    deterministic: bool = False

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Read a YAML file; `overrides` are of the form `section.key=value`. Raises StudyError."""
        values = _read_mapping(Path(path))
        for override in overrides:
            _override(values, override)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise StudyError(f"{path}: {explain(error, cls)}") from None

    def save(self, path: Path) -> None:
        """Write the study with every default filled in. Raises WriteError."""
        write_text(path, yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))

    def hash(self) -> str:
        """Of all that decides what is trained, but for how and where it runs and is recorded."""
        how = {"ensemble", "store", "tracking", "checkpoint"}
        text = json.dumps(self.model_dump(mode="json", exclude=how), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def solver_factory(self) -> Callable[[], Solver]:
        """Makes the study's solver; can be sent to another process."""
        return factory(self.solver, "solver", solvers.base.REGISTERED, Solver)

    def surrogate_factory(self) -> Callable[[], Surrogate]:
        """Makes the study's surrogate, untrained; can be sent to another process."""
        registered = surrogates.base.REGISTERED
        return factory(self.surrogate, "surrogate", registered, Surrogate, self.problem())

    def samples_per_simulation(self) -> int:
        """How many windows of the surrogate's length the stored steps of a simulation have."""
        return self.solver_factory()().stored_steps - self.surrogate_factory()().window + 1

    def make_design(self) -> Design:
        """The study's design of experiments, within its bounds."""
        return Design(self.design, self.solver_factory()().parameters, self.seed)

    def problem(self) -> Problem:
        """What the surrogate has to know before the first simulation has run."""
        solver, design = self.solver_factory()(), self.make_design()
        times, steps = self._times(solver, design)
        static = list(solver.static_fields.values())
        return Problem(
            names=design.space.names,
            low=tuple(design.space.low.tolist()),
            high=tuple(design.space.high.tolist()),
            log=tuple(design.space.log.tolist()),
            times=times,
            steps=steps,
            channels=len(solver.fields),
            grid=solver.grid.shape,
            static=np.array(static, dtype=np.float32).reshape(-1, *solver.grid.shape),
        )

    def _times(self, solver: Solver, design: Design) -> tuple[tuple[float, float], ...]:
        """The range of the stored times, and of the steps between two. Raises ValueError.

        Times may depend on the parameters: the ranges are those of the first simulations.
        """
        times, steps = [], []
        for id in range(min(self.design.simulations, 1000)):
            t = np.asarray(solver.times(design.even(id)))
            if t.shape != (solver.stored_steps,) or not np.isfinite(t).all():
                raise ValueError(
                    f"the stored times of simulation {id} have to be {solver.stored_steps} finite "
                    f"numbers, as many as its stored steps, but they are {t.tolist()}"
                )
            between = np.diff(t) if len(t) > 1 else np.zeros(1)
            if between.min() < 0:
                raise ValueError(f"the stored times of simulation {id} have to ascend")
            times += [float(t[0]), float(t[-1])]
            steps += [float(between.min()), float(between.max())]
        return (min(times), max(times)), (min(steps), max(steps))

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        make_solver = self.solver_factory()
        with _said_of("solver"), their_mistakes("making it failed", plain=ValueError):
            solver = make_solver()
        with _said_of("design.bounds"):
            space = solver.parameters.with_bounds(self.design.bounds)
        within = "solver, within design.bounds" if self.design.bounds else "solver"
        with _said_of(within), their_mistakes("checking its bounds failed", plain=ValueError):
            solver.check(space)
        with _said_of("solver"), their_mistakes("its times failed", plain=ValueError):
            self._times(solver, self.make_design())
        if self.ensemble.group_size > 1 and not isinstance(solver, BatchSolver):
            raise ValueError(
                f"ensemble.group_size is {self.ensemble.group_size}, but the solver "
                f"{self.solver.name} runs one simulation at a time: it has to be 1"
            )
        if self.ensemble.gpus_per_actor and not isinstance(solver, BatchSolver):
            raise ValueError(
                f"ensemble.gpus_per_actor is {self.ensemble.gpus_per_actor:g}, but the solver "
                f"{self.solver.name} has no solve_batch, which could use a GPU: it has to be 0"
            )
        if self.deterministic and self.ensemble.actors > 1:
            raise ValueError(
                f"deterministic is true, but ensemble.actors is {self.ensemble.actors}: samples "
                "come in a fixed order from 1 only"
            )
        if self.design.sampler == "breed" and self.deterministic:
            raise ValueError(
                "deterministic is true, but design.sampler is breed: what it decides depends on "
                "how far training is when a simulation starts; choose another sampler"
            )
        if self.design.sampler == "breed" and self.training.source:
            raise ValueError(
                "design.sampler is breed, but training.source names a store: there are no "
                "simulations to steer; choose another sampler, or train on the stream"
            )
        if self.deterministic and self.training.stop.seconds:
            raise ValueError(
                "deterministic is true, but training.stop.seconds depends on the machine's speed: "
                "stop after steps or samples, or when drained"
            )
        surrogate = find(self.surrogate.name, "surrogate", surrogates.base.REGISTERED, Surrogate)
        if self.training.precision not in surrogate.precisions:
            raise ValueError(
                f"training.precision is {self.training.precision}: the surrogate "
                f"{self.surrogate.name} can be trained in {', '.join(surrogate.precisions)}"
            )
        make_surrogate = self.surrogate_factory()
        with _said_of("surrogate"), their_mistakes("making it failed", plain=ValueError):
            made = make_surrogate()
        if solver.stored_steps < made.window:
            raise ValueError(
                f"the solver {self.solver.name} stores {solver.stored_steps} steps, but the "
                f"surrogate {self.surrogate.name} learns from {made.window} consecutive ones: let "
                f"the solver store more, or {_shorten(made)}"
            )
        return self


def _shorten(surrogate: Surrogate) -> str:
    """How its window becomes shorter."""
    ways = []
    if surrogate.bundle > 1:
        ways.append(f"lower surrogate.bundle, which is {surrogate.bundle}")
    if surrogate.pushforward:
        ways.append(
            "set surrogate.pushforward to false, which learns from one bundle instead of two"
        )
    return ", or ".join(ways) or "set surrogate.mode to direct"


@contextmanager
def _said_of(part: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{part}: {error}") from None


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise StudyError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise StudyError(f"{path} is not a study: it has to hold sections such as `solver:`")
    return values


def _override(values: dict[str, Any], override: str) -> None:
    """Set one `section.key=value` in the nested mapping; the value is read as YAML."""
    path, equals, text = override.partition("=")
    *sections, key = path.split(".")
    if not equals or not all((*sections, key)):
        raise StudyError(f"{override} is not of the form section.key=value")
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    try:
        values[key] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise StudyError(f"the value in {override} is not YAML: put it in quotes") from None
