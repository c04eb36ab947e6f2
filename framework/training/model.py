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
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from framework.errors import StudyError
from framework.files import replacing_folder
from framework.study import versions
from framework.study.case import Case
from framework.study.component import SURROGATE, explain, factory, their_mistakes
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
    surrogate = _made(directory, case, problem)
    tensors = _weights(directory / "weights.npz")
    name, grid = study.surrogate.name, description.problem.grid
    if problem.grid != grid and "static" in tensors:
        trained = Case(_study(directory, description.study, ()), directory).problem
        static = _static(trained.static, problem.static)
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
    solver = dict(saved.get("solver", {}))
    for override in overrides:
        path, equals, text = override.partition("=")
        section, _, key = path.partition(".")
        if section != "solver" or not key or not equals or key == "name":
            raise StudyError(
                f"{override} cannot be set for a trained surrogate: only settings of its solver "
                "can, as in solver.grid_size=128"
            )
        try:
            solver[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise StudyError(f"the value in {override} is not YAML: put it in quotes") from None
    try:
        return Study.model_validate({**saved, "solver": solver})
    except ValidationError as error:
        raise StudyError(f"{directory}: {explain(error, Study)}") from None


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
