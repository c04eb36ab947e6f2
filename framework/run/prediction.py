"""Fields from a trained surrogate, as numbers and as a picture.

Shapes: T stored times, C fields (channels), `*grid` the grid's axes.
"""

import dataclasses
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from framework.errors import StudyError, reason
from framework.pictures.fields import Trajectory, draw_trajectories
from framework.pictures.style import STYLE
from framework.study.case import Case
from framework.study.component import their_mistakes
from framework.study.declared import as_float32
from framework.tracking.registry import download
from framework.training.model import load_model
from solvers.base import ParameterSpace, Solver
from surrogates.base import Problem, Surrogate


@dataclass(frozen=True)
class Prediction:
    """What a surrogate predicts for one set of parameters."""

    parameters: dict[str, float]
    t: NDArray[np.float64]  # [T]
    field: NDArray[np.float32]  # [T, C, *grid], in the fields' units
    solver: Solver  # whose fields they are
    space: ParameterSpace  # the parameters, in this order
    # The parameters outside the bounds trained within, with these bounds: name -> (low, high).
    # Nothing is known of how wrong the fields are there.
    outside: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)

    def warnings(self) -> list[str]:
        """Return a sentence for each parameter outside the bounds trained within."""
        return [
            f"{name} is {self.parameters[name]:g}: the surrogate was trained within "
            f"[{low:g}, {high:g}] and knows nothing outside, so the fields may be wrong"
            for name, (low, high) in self.outside.items()
        ]

    def save(self, path: Path) -> None:
        """Write `field`, `t`, the fields' names and the parameters as a numpy .npz file."""
        np.savez(
            path,
            field=self.field,
            t=self.t,
            channels=np.array([field.name for field in self.solver.fields]),
            parameter_names=np.array(list(self.parameters)),
            parameters=np.array(list(self.parameters.values())),
        )


def load_surrogate(
    run_or_model: str | Path, overrides: Sequence[str] = ()
) -> tuple[Case, Surrogate]:
    """Load the case and the trained surrogate of a run or a model.

    `run_or_model`: a run's directory, a model's folder, or a model registered in MLflow, such as
    `models:/heat/1` or `models:/heat@best`. `overrides` as in `load_model`. Raises StudyError, and
    RunError if MLflow cannot be reached.
    """
    if str(run_or_model).startswith("models:"):
        with TemporaryDirectory() as directory:
            return load_model(download(str(run_or_model), Path(directory)), overrides)
    path = Path(run_or_model)
    if (path / "model.json").is_file():
        return load_model(path, overrides)
    if not (path / "study.yaml").is_file():
        raise StudyError(
            f"{path} is not the directory of a run, nor the folder of a model: it has neither "
            "study.yaml nor model.json"
        )
    if not (path / "model").is_dir():
        raise StudyError(
            f"{path} holds no trained surrogate: it has no model; go on with the run by "
            f"millstream resume {path}"
        )
    return load_model(path / "model", overrides)


@dataclass(frozen=True)
class Start:
    """What an autoregressive surrogate starts from: fields, or the solver's first ones of a seed.

    Without either they are the solver's, of the study's seed.
    """

    fields: ArrayLike | None = None  # [C, *grid], in the fields' units
    seed: int | None = None


_DEFAULT_START = Start()


def read_state(path: Path) -> NDArray[Any]:
    """Read the array `initial` of a numpy .npz file. Raises StudyError."""
    try:
        with np.load(path) as arrays:
            return np.asarray(arrays["initial"])
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {reason(error)}") from None
    except (KeyError, ValueError, TypeError, IndexError, zipfile.BadZipFile):
        raise StudyError(
            f"{path} is not a numpy .npz file with an array named initial, [field, *grid]"
        ) from None


def predict(
    run_or_model: str | Path,
    parameters: Mapping[str, float],
    overrides: Sequence[str] = (),
    start: Start = _DEFAULT_START,
) -> Prediction:
    """Predict the fields at every stored time for one value of each parameter.

    `overrides`, such as `solver.grid_size=128`, ask for another grid. Raises StudyError as
    `load_surrogate` and `predicted` do, and RunError as `load_surrogate` does.
    """
    case, surrogate = load_surrogate(run_or_model, overrides)
    return predicted(case, surrogate, parameters, bool(overrides), start)


@torch.no_grad()
def predicted(
    case: Case,
    surrogate: Surrogate,
    parameters: Mapping[str, float],
    overridden: bool,
    start: Start = _DEFAULT_START,
) -> Prediction:
    """Predict the fields of a case by its surrogate.

    `overridden`: the case's solver may have other times than those trained on. Outside the bounds
    that the surrogate was trained within it is asked all the same; `Prediction.outside` says so.
    Raises StudyError if a parameter is missing, unknown, not finite or has no meaning, if there is
    nothing to start from, or the surrogate cannot start from it, or if the fields are not finite.
    """
    solver, problem = case.solver, surrogate.problem
    _check(parameters, problem, case.space)
    bounds = zip(problem.names, problem.low, problem.high, strict=True)
    outside = {
        name: (low, high) for name, low, high in bounds if not low <= parameters[name] <= high
    }
    values = np.array([parameters[name] for name in problem.names], dtype=np.float64)
    t = solver.times(values)
    if overridden:
        _check_times(t, surrogate)
    initial = _state(case, surrogate, values, start)
    steps = surrogate.rollout(
        torch.tensor(values[None]),
        torch.tensor(t[None]),
        torch.tensor(initial[None]),
    )
    fields = np.stack([step[0].numpy() for step in steps]).astype(np.float32)
    if not np.isfinite(fields).all():
        why = (
            f"far outside its bounds: {', '.join(outside)}" if outside else "its training diverged"
        )
        raise StudyError(
            f"the surrogate of the study {case.study.name} predicts NaN or infinity: {why}"
        )
    ordered = {name: parameters[name] for name in problem.names}
    return Prediction(ordered, t, fields, solver, case.space, outside)


def draw(prediction: Prediction, path: Path) -> None:
    """Draw the fields, as `draw_store` does those of a simulation."""
    values = np.array(list(prediction.parameters.values()))
    trajectory = Trajectory("Prediction", values, prediction.t, prediction.field)
    with matplotlib.rc_context(STYLE):
        draw_trajectories([trajectory], prediction.solver, prediction.space).savefig(path)


def _state(
    case: Case, surrogate: Surrogate, values: NDArray[np.float64], start: Start
) -> NDArray[np.float32]:
    """Return the fields [C, *grid] to start from; zero where none are needed. Raises StudyError."""
    solver = case.solver
    shape = (len(solver.fields), *solver.grid.shape)
    if start.fields is not None and start.seed is not None:
        raise StudyError("initial fields and a seed are given: a rollout starts from one of them")
    if surrogate.mode == "direct":
        if start.fields is not None or start.seed is not None:
            raise StudyError(
                "a surrogate in mode direct sees parameters and times alone: leave out the initial "
                "fields and the seed"
            )
        return np.zeros(shape, dtype=np.float32)
    if start.seed is not None and not 0 <= start.seed < 2**63:
        raise StudyError(f"seed is {start.seed}: it has to be from 0 to 2^63 - 1")
    if start.fields is None:
        return _initial(solver, values, case.study.seed if start.seed is None else start.seed)
    try:
        fields = as_float32(np.asarray(start.fields))
    except ValueError as error:
        raise StudyError(f"the initial fields cannot be used: {error}") from None
    if fields.shape != shape:
        raise StudyError(
            f"the initial fields have shape {list(fields.shape)}, but the surrogate starts from "
            f"{list(shape)}: the fields {', '.join(field.name for field in solver.fields)} on the "
            "grid"
        )
    if not np.isfinite(fields).all():
        raise StudyError("the initial fields are not all finite")
    return fields


def _initial(solver: Solver, values: NDArray[np.float64], seed: int) -> NDArray[np.float32]:
    """Return the fields [C, *grid] at the first stored time. Raises StudyError."""
    try:
        with their_mistakes("it failed", plain=ValueError):
            return as_float32(next(iter(solver.solve(values, seed))))
    except ValueError as error:
        raise StudyError(f"the solver has no fields to start from: {error}") from None


def _check(parameters: Mapping[str, float], problem: Problem, space: ParameterSpace) -> None:
    """Raise StudyError unless there is one number with a meaning for each parameter."""
    ranges = [
        f"{name} in [{low:g}, {high:g}]"
        for name, low, high in zip(problem.names, problem.low, problem.high, strict=True)
    ]
    for name in parameters:
        if name not in problem.names:
            raise StudyError(f"{name} is not a parameter: there are {', '.join(ranges)}")
    for item, log, trained in zip(space.items, problem.log, ranges, strict=True):
        if item.name not in parameters:
            raise StudyError(f"the parameter {item.name} is missing: give {', '.join(ranges)}")
        value = parameters[item.name]
        if not math.isfinite(value):
            raise StudyError(f"{item.name} is {value:g}: give a number, {trained}")
        if value < item.minimum or (log and value <= 0):
            least = "positive" if log else f"at least {item.minimum:g} {item.units}"
            raise StudyError(f"{item.name} is {value:g}: it has to be {least}; give {trained}")


def _check_times(t: NDArray[np.float64], surrogate: Surrogate) -> None:
    """Raise StudyError if overrides ask for times that were never trained on."""
    problem = surrogate.problem
    asked = {"time": (t.min(), t.max(), *problem.times)}
    if surrogate.mode == "autoregressive":
        steps = np.diff(t)
        asked["time step"] = (steps.min(), steps.max(), *problem.steps)
    for name, (lowest, highest, low, high) in asked.items():
        tolerance = 0.01 * max(abs(low), abs(high))
        if lowest < low - tolerance or highest > high + tolerance:
            raise StudyError(
                f"the {name} is in [{lowest:g}, {highest:g}]: the surrogate was trained within "
                f"[{low:g}, {high:g}] and knows nothing outside"
            )
