"""A trained surrogate as a folder: `weights.npz` and `model.json`, tensors and plain JSON.

Loading a model runs no code but that of the solver and the surrogate that its study names.
"""

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import replace
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
from framework.study.overrides import override, parsed
from framework.study.section import Section
from framework.study.study import Study
from surrogates.base import Problem, Surrogate


class _TrainedFor(Section):
    """A `Problem` without its static fields, which are large and come from the solver."""

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    log: tuple[bool, ...]
    times: tuple[float, float]
    steps: tuple[float, float]
    channels: int
    grid: tuple[int, ...]


class _Description(Section):
    """The contents of model.json."""

    format: int
    millstream: str  # the version that wrote it
    surrogate: dict[str, Any]
    problem: _TrainedFor
    extra: dict[str, Any]
    study: dict[str, Any]


def save_model(surrogate: Surrogate, study: Study, directory: Path, extra: dict[str, Any]) -> None:
    """Write a model's folder, whole or not at all; replace an earlier one.

    `extra`: plain values that describe the model further. Raises WriteError.
    """
    trained_for = {name: getattr(surrogate.problem, name) for name in _TrainedFor.model_fields}
    description = _Description(
        format=versions.MODEL,
        millstream=metadata.version("millstream"),
        surrogate=study.surrogate.model_dump(mode="json"),
        problem=_TrainedFor(**trained_for),
        extra=extra,
        # Whoever is given the model need not learn where its run was tracked.
        study=study.model_dump(mode="json", exclude={"tracking"}),
    )
    arrays: dict[str, Any] = {key: value.numpy() for key, value in surrogate.tensors().items()}
    with replacing_folder(directory) as temporary:
        with (temporary / "weights.npz").open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        (temporary / "model.json").write_text(description.model_dump_json(indent=2) + "\n")


def load_model(directory: Path, overrides: Sequence[str] = ()) -> tuple[Case, Surrogate]:
    """Load a model's folder: the case, and the surrogate, which takes batches of any size.

    `overrides`, such as `solver.grid_size=128`, change the study's solver, and so the grid, if the
    surrogate's weights do not depend on it. Bounds, times and normalisation stay those that the
    surrogate was trained with. Raises StudyError.
    """
    description = _description(directory)
    case = Case(_study(directory, description.study, overrides), directory)
    study, problem = case.study, _problem(case.problem, description.problem)
    if overrides:
        trained = Case(_study(directory, description.study, ()), directory)
        _check_extent(case, trained)
    surrogate = _made(directory, case, problem)
    tensors = _weights(directory / "weights.npz")
    name, grid = study.surrogate.name, description.problem.grid
    if problem.grid != grid and "static" in tensors:
        static = _static(trained.problem.static, problem.static)
        tensors["static"] = static.to(tensors["static"].dtype)
    if _shapes(tensors) != _shapes(surrogate.tensors()):
        if problem.grid != grid:
            raise StudyError(f"the {name} is bound to its grid of {grid}, not {problem.grid}")
        raise StudyError(
            f"{directory / 'weights.npz'} does not fit the {name} that model.json describes: it is "
            "damaged, or the surrogate's code has changed since"
        )
    # Assigned, not copied: a copy into the new surrogate's tensors would lose float64 precision.
    surrogate.load_state_dict(tensors, assign=True)
    surrogate.eval()
    return case, surrogate


def _made(directory: Path, case: Case, problem: Problem) -> Surrogate:
    """Make the surrogate for a problem, before its weights are loaded."""
    try:
        with their_mistakes("making the surrogate failed", plain=ValueError):
            surrogate = factory(case.study.surrogate, SURROGATE, problem)()
    except ValueError as error:
        raise StudyError(f"{directory}: {error}") from None
    assert isinstance(surrogate, Surrogate)
    return surrogate


def _description(directory: Path) -> "_Description":
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
    if content["format"] != versions.MODEL:
        raise StudyError(
            f"{path} has format {content['format']}, but this version of Millstream reads "
            f"{versions.MODEL}: use version {content.get('millstream')}, which wrote it"
        )
    try:
        return _Description.model_validate(content)
    except ValidationError as error:
        raise StudyError(f"{path} is damaged: {explain(error, _Description)}") from None


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


def _check_extent(now: Case, trained: Case) -> None:
    """Raise StudyError if the grid of `now` covers more or less than the one trained on."""
    ours, theirs = now.solver.grid, trained.solver.grid
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


def _problem(now: Problem, trained: "_TrainedFor") -> Problem:
    """Return the problem trained for, with the grid and the static fields of `now`."""
    for name in ("names", "channels"):
        if getattr(trained, name) != getattr(now, name):
            raise StudyError(
                f"the surrogate was trained for a solver with the {name} {getattr(trained, name)}, "
                f"but the solver has {getattr(now, name)}"
            )
    return replace(now, **trained.model_dump(exclude={"grid"}))


def _weights(path: Path) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
        if bad is None:
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        pass
    raise StudyError(f"{path} is damaged or not there: get the model again")


def _static(trained: NDArray[np.float32], now: NDArray[np.float32]) -> Tensor:
    """Return static fields `now` [S, *grid], normalised by mean and spread of `trained`."""
    axes = tuple(range(1, trained.ndim))
    mean = trained.mean(axes, dtype=np.float64)
    spread = trained.std(axes, dtype=np.float64)
    spread = np.where(spread > 1e-7 * abs(mean), spread, np.inf)
    shape = (-1, *[1] * (now.ndim - 1))
    return torch.tensor((now - mean.reshape(shape)) / spread.reshape(shape))


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
