"""A trained surrogate as a folder: tensors and plain JSON, and nothing that runs code.

model.json              the study, the solver's declarations, the problem, what is told beside
weights.safetensors     weights and normalisation
static.safetensors      the solver's static fields, in their units, if it has any

So a model is used without its solver; only another grid, or a first state that nobody gives, needs
that. Loading runs no code but that of the surrogate that the study names. Folders of format 2, of
before, have `weights.npz` alone and need the solver.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from framework.errors import StudyError
from framework.files import replacing_folder
from framework.study import versions
from framework.study.case import Case
from framework.study.component import (
    SOLVER,
    SURROGATE,
    explain,
    factory,
    find,
    their_mistakes,
)
from framework.study.described import DescribedSolver, SolverDescription, solver_description
from framework.study.overrides import override, parsed
from framework.study.section import Section
from framework.study.study import Study
from framework.training.weights import read_tensors, write_tensors
from solvers.base import Grid, Solver
from surrogates.base import Problem, Surrogate

# Times and steps may lie outside what was trained on by this share.
_BEYOND = 0.01
# The format before this one, without the solver's declarations.
_WITHOUT_SOLVER = 2


class _TrainedFor(Section):
    """A `Problem` without its static fields, which are large."""

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    log: tuple[bool, ...]
    times: tuple[float, float]
    steps: tuple[float, float]
    channels: int
    grid: tuple[int, ...]


class _Contents(Section):
    """The contents of model.json."""

    format: int
    millstream: str  # the version that wrote it
    surrogate: dict[str, Any]
    problem: _TrainedFor
    extra: dict[str, Any]
    study: dict[str, Any]
    solver: SolverDescription | None = None  # None in format 2


@dataclass(frozen=True)
class Trained:
    """A trained surrogate, which takes batches of any size, and what is known of its solver."""

    study: Study
    solver: DescribedSolver
    surrogate: Surrogate
    static: NDArray[np.float32]  # [S, *grid]: the static fields that it was trained with

    def check_times(self, t: NDArray[np.float64]) -> None:
        """Raise StudyError for times [n, T] that the surrogate was not trained for."""
        problem = self.surrogate.problem
        asked = {"time": (float(t.min()), float(t.max()), *problem.times)}
        if self.surrogate.mode == "autoregressive" and t.shape[1] > 1:
            steps = np.diff(t)
            asked["time step"] = (float(steps.min()), float(steps.max()), *problem.steps)
        for name, (lowest, highest, low, high) in asked.items():
            tolerance = _BEYOND * max(abs(low), abs(high))
            if lowest < low - tolerance or highest > high + tolerance:
                raise StudyError(
                    f"the {name} is in [{lowest:g}, {highest:g}]: the surrogate was trained within "
                    f"[{low:g}, {high:g}] and knows nothing outside"
                )

    def described(self) -> dict[str, Any]:
        """Return as plain values what the surrogate maps to what, in which units."""
        solver = self.solver
        return {
            "millstream": metadata.version("millstream"),
            "study": self.study.name,
            "surrogate": self.study.surrogate.name,
            "mode": self.surrogate.mode,
            "parameters": [
                {"name": item.name, "units": item.units, "low": item.low, "high": item.high}
                for item in solver.parameters.items
            ],
            "fields": [{"name": field.name, "units": field.units} for field in solver.fields],
            "grid": {"shape": solver.grid.shape, "spacing": solver.grid.spacing},
            "grid_units": solver.grid.units,
            "time_units": solver.time_units,
            "times": self.surrogate.problem.times,
            "steps": self.surrogate.problem.steps,
            "steps_at_once": self.surrogate.bundle,
        }

    def make_solver(self) -> Solver:
        """Make the solver itself. Raises StudyError if it is not there, or cannot be made."""
        study = self.study
        try:
            make = factory(study.solver, SOLVER)
            with their_mistakes(f"making it{study.solver.given()} failed", plain=ValueError):
                solver = make()
        except ValueError as error:
            raise StudyError(f"the solver {study.solver.name} cannot be used: {error}") from None
        assert isinstance(solver, Solver)
        return solver


def save_model(surrogate: Surrogate, case: Case, directory: Path, extra: dict[str, Any]) -> None:
    """Write a model's folder, whole or not at all; replace an earlier one.

    `extra`: plain values that describe the model further. Raises WriteError.
    """
    study, solver = case.study, case.solver
    trained_for = {name: getattr(surrogate.problem, name) for name in _TrainedFor.model_fields}
    contents = _Contents(
        format=versions.MODEL,
        millstream=metadata.version("millstream"),
        surrogate=study.surrogate.model_dump(mode="json"),
        problem=_TrainedFor(**trained_for),
        extra=extra,
        # Whoever is given the model need not learn where its run was tracked.
        study=study.model_dump(mode="json", exclude={"tracking"}),
        solver=solver_description(case),
    )
    static = {
        name: torch.tensor(np.asarray(values, dtype=np.float32))
        for name, values in solver.static_fields.items()
    }
    with replacing_folder(directory) as temporary:
        write_tensors(surrogate.tensors(), temporary / "weights.safetensors")
        if static:
            write_tensors(static, temporary / "static.safetensors")
        (temporary / "model.json").write_text(contents.model_dump_json(indent=2) + "\n")


def load_model(directory: Path, overrides: Sequence[str] = ()) -> Trained:
    """Load a model's folder.

    `overrides`, such as `solver.grid_size=128`, change the study's solver, and so the grid, if the
    surrogate's weights do not depend on it; they need the solver. Bounds, times and normalisation
    stay those that the surrogate was trained with. Raises StudyError.
    """
    contents = _contents(directory)
    study = _study(directory, contents.study, overrides)
    trained_on = _described(directory, contents)
    solver = trained_on
    if overrides:
        solver = _describe(Case(study, directory))
    problem = _problem(solver, contents.problem)
    if overrides:
        _check_extent(solver.grid, trained_on.grid)
    surrogate = _made(directory, study, problem)
    tensors = read_tensors(directory, "weights")
    static_trained = _static_of(trained_on)
    if overrides and "static" in tensors:
        static = normalised_static(static_trained, problem.static)
        tensors["static"] = static.to(tensors["static"].dtype)
    if _shapes(tensors) != _shapes(surrogate.tensors()):
        if problem.grid != contents.problem.grid:
            raise StudyError(
                f"the {study.surrogate.name} is bound to its grid of {contents.problem.grid}, not "
                f"{problem.grid}"
            )
        raise StudyError(
            f"the weights in {directory} do not fit the {study.surrogate.name} that model.json "
            "describes: they are damaged, or the surrogate's code has changed since"
        )
    # Assigned, not copied: a copy into the new surrogate's tensors would lose float64 precision.
    surrogate.load_state_dict(tensors, assign=True)
    surrogate.eval()
    trained = Trained(study, solver, surrogate, static_trained)
    if overrides and solver.common_times is not None:
        trained.check_times(solver.common_times[None])
    return trained


def normalised_static(trained: NDArray[np.float32], now: NDArray[np.float32]) -> Tensor:
    """Return static fields `now` [S, *grid], normalised by mean and spread of `trained`."""
    axes = tuple(range(1, trained.ndim))
    mean = trained.mean(axes, dtype=np.float64)
    spread = trained.std(axes, dtype=np.float64)
    spread = np.where(spread > 1e-7 * abs(mean), spread, np.inf)
    shape = (-1, *[1] * (now.ndim - 1))
    return torch.tensor((now - mean.reshape(shape)) / spread.reshape(shape))


def _described(directory: Path, contents: _Contents) -> DescribedSolver:
    """Return what the folder says of the solver. Raises StudyError."""
    if contents.solver is None:
        return _describe(Case(_study(directory, contents.study, ()), directory))
    tensors = read_tensors(directory, "static") if contents.solver.static_fields else {}
    static = {name: tensor.numpy() for name, tensor in tensors.items()}
    try:
        return DescribedSolver(contents.solver, static)
    except (ValueError, KeyError) as error:
        raise StudyError(f"{directory / 'model.json'} is damaged: {error}") from None


def _describe(case: Case) -> DescribedSolver:
    """Return what a case's solver declares."""
    return DescribedSolver(solver_description(case), case.solver.static_fields)


def _made(directory: Path, study: Study, problem: Problem) -> Surrogate:
    """Make the surrogate for a problem, before its weights are loaded."""
    try:
        with their_mistakes("making the surrogate failed", plain=ValueError):
            surrogate = factory(study.surrogate, SURROGATE, problem)()
    except ValueError as error:
        raise StudyError(f"{directory}: {error}") from None
    assert isinstance(surrogate, Surrogate)
    return surrogate


def _contents(directory: Path) -> _Contents:
    """Read model.json. Raises StudyError."""
    path = directory / "model.json"
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise StudyError(
            f"{directory} is not the folder of a model: model.json cannot be read "
            f"({error.strerror})"
        ) from None
    except ValueError:
        raise StudyError(f"{path} is damaged: it is not JSON; get the model again") from None
    if not isinstance(content, dict) or "format" not in content:
        raise StudyError(f"{path} does not describe a model of Millstream: it has no format")
    if content["format"] not in (versions.MODEL, _WITHOUT_SOLVER):
        raise StudyError(
            f"{path} has format {content['format']}, but this version of Millstream reads "
            f"{_WITHOUT_SOLVER} and {versions.MODEL}: use version {content.get('millstream')}, "
            "which wrote it"
        )
    try:
        return _Contents.model_validate(content)
    except ValidationError as error:
        raise StudyError(f"{path} is damaged: {explain(error, _Contents)}") from None


def _study(directory: Path, saved: dict[str, Any], overrides: Sequence[str]) -> Study:
    """Return the study of a model, with its grid overridden. Raises StudyError."""
    try:
        study = Study.model_validate(saved)
        # A study without overrides needs no solver yet.
        allowed = find(study.solver, SOLVER).grid_settings if overrides else ()
    except ValidationError as error:
        raise StudyError(f"{directory}: {explain(error, Study)}") from None
    except ValueError as error:
        raise StudyError(f"{directory}: {error}") from None
    for text in overrides:
        path, _ = parsed(text)
        if len(path) != 2 or path[0] != "solver" or path[1] not in allowed:
            can = ", ".join(f"solver.{name}" for name in allowed) or "none"
            raise StudyError(
                f"{'.'.join(path)} cannot be set for a trained surrogate, which has learnt with "
                f"it as it was: only what refines the grid can, which for the solver "
                f"{study.solver.name} is {can}"
            )
    values = {**saved, "solver": dict(saved["solver"])}
    override(values, overrides)
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        raise StudyError(f"{directory}: {explain(error, Study)}") from None


def _check_extent(ours: Grid, theirs: Grid) -> None:
    """Raise StudyError if `ours` covers more or less than `theirs`, the grid trained on."""
    # The outermost points of a grid lie on its ends, or half a spacing within.
    extents = [
        [[(n - off) * h for n, h in zip(grid.shape, grid.spacing, strict=True)] for off in (0, 1)]
        for grid in (ours, theirs)
    ]
    same = len(ours.shape) == len(theirs.shape) and any(
        np.allclose(one, other, rtol=1e-3) for one, other in zip(*extents, strict=True)
    )
    if not same:
        raise StudyError(
            f"the surrogate was trained on a grid of {theirs.shape} points with the spacing "
            f"{theirs.spacing}, and one of {ours.shape} with {ours.spacing} has another extent: "
            "ask for more or fewer points of the same domain"
        )


def _problem(now: DescribedSolver, trained: _TrainedFor) -> Problem:
    """Return the problem trained for, with the grid and the static fields of `now`."""
    has = {"names": now.parameters.names, "channels": len(now.fields)}
    for name, value in has.items():
        if getattr(trained, name) != value:
            raise StudyError(
                f"the surrogate was trained for a solver with the {name} {getattr(trained, name)}, "
                f"but the solver has {value}"
            )
    values = {name: getattr(trained, name) for name in _TrainedFor.model_fields}
    return Problem(**{**values, "grid": now.grid.shape}, static=_static_of(now))


def _static_of(solver: DescribedSolver) -> NDArray[np.float32]:
    """Return the static fields [S, *grid]."""
    fields = list(solver.static_fields.values())
    return np.array(fields, dtype=np.float32).reshape(-1, *solver.grid.shape)


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
