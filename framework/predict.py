"""Fields from a trained surrogate, as numbers and as a picture.

Shapes: T stored times, C fields (channels), `*grid` the grid's axes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from framework.errors import StudyError
from framework.study import Study
from solvers.base import Field, Grid
from surrogates.base import Surrogate

matplotlib.use("agg")
# How many of the stored times are drawn.
_PANELS = 5


@dataclass(frozen=True)
class Prediction:
    """What a surrogate predicts for one set of parameters."""

    parameters: dict[str, float]
    t: NDArray[np.float64]  # [T]
    field: NDArray[np.float32]  # [T, C, *grid], in the fields' units
    fields: tuple[Field, ...]
    grid: Grid

    def save(self, path: Path) -> None:
        """Write `field`, `t`, the fields' names and the parameters as a numpy .npz file."""
        np.savez(
            path,
            field=self.field,
            t=self.t,
            channels=np.array([field.name for field in self.fields]),
            parameter_names=np.array(list(self.parameters)),
            parameters=np.array(list(self.parameters.values())),
        )


def load_surrogate(run: Path) -> tuple[Study, Surrogate]:
    """The study and the trained surrogate of a run's directory. Raises StudyError."""
    if not (run / "study.yaml").is_file():
        raise StudyError(f"{run} is not the directory of a run: it has no study.yaml")
    if not (run / "model.pt").is_file():
        raise StudyError(f"{run} holds no trained surrogate: it has no model.pt")
    study = Study.load(run / "study.yaml")
    surrogate = study.surrogate_factory()()
    surrogate.load_state_dict(torch.load(run / "model.pt", weights_only=True))
    surrogate.eval()
    return study, surrogate


def predict(run: str | Path, parameters: Mapping[str, float]) -> Prediction:
    """Predict the fields at every stored time for one value of each parameter.

    An autoregressive surrogate starts from the solver's initial state. Raises StudyError if a
    parameter is missing, unknown, or outside the bounds that the surrogate was trained within.
    """
    study, surrogate = load_surrogate(Path(run))
    solver, design = study.solver_factory()(), study.make_design()
    _check(parameters, surrogate)
    values = np.array([parameters[name] for name in design.space.names], dtype=np.float64)
    t = solver.times(values)
    initial = np.zeros((len(solver.fields), *solver.grid.shape), dtype=np.float32)
    if surrogate.mode == "autoregressive":
        initial = next(iter(solver.solve(values, study.seed)))
    steps = surrogate.rollout(
        torch.tensor(values[None]),
        torch.tensor(t[None]),
        torch.tensor(initial[None]),
    )
    field = np.stack([step[0].numpy() for step in steps]).astype(np.float32)
    if not np.isfinite(field).all():
        raise StudyError(f"the surrogate of {run} predicts NaN or infinity: its training diverged")
    return Prediction(dict(parameters), t, field, solver.fields, solver.grid)


def draw(prediction: Prediction, path: Path) -> None:
    """Draw each field at a few of the stored times; of a 3-D field the middle slice."""
    chosen = np.unique(np.linspace(0, len(prediction.t) - 1, _PANELS).round().astype(int))
    rows, columns = len(prediction.fields), len(chosen)
    figure = Figure(figsize=(2.4 * columns + 1, 2.5 * rows + 0.7), layout="constrained", dpi=130)
    axes = figure.subplots(rows, columns, squeeze=False)
    for channel, field in enumerate(prediction.fields):
        values = prediction.field[chosen, channel]
        limits = {"vmin": values.min(), "vmax": values.max()}
        for axis, step, image in zip(axes[channel], chosen, values, strict=True):
            axis.set_title(f"t = {prediction.t[step]:.3g}", fontsize=10)
            if image.ndim == 1:
                axis.plot(image)
                axis.set_ylim(limits["vmin"], limits["vmax"])
                continue
            plane = image if image.ndim == 2 else image[len(image) // 2]
            drawn = axis.imshow(plane, origin="lower", cmap="inferno", **limits)
            axis.set_xticks([])
            axis.set_yticks([])
        if prediction.field.ndim > 3:
            label = f"{field.name} [{field.units}]"
            figure.colorbar(drawn, ax=axes[channel], label=label, shrink=0.9)
    values = ", ".join(f"{name} = {value:g}" for name, value in prediction.parameters.items())
    figure.suptitle(values, fontsize=10)
    figure.savefig(path)


def _check(parameters: Mapping[str, float], surrogate: Surrogate) -> None:
    problem = surrogate.problem
    ranges = [
        f"{name} in [{low:g}, {high:g}]"
        for name, low, high in zip(problem.names, problem.low, problem.high, strict=True)
    ]
    for name in parameters:
        if name not in problem.names:
            raise StudyError(f"{name} is not a parameter: there are {', '.join(ranges)}")
    for name, low, high in zip(problem.names, problem.low, problem.high, strict=True):
        if name not in parameters:
            raise StudyError(f"the parameter {name} is missing: give {', '.join(ranges)}")
        if not low <= parameters[name] <= high:
            raise StudyError(
                f"{name} is {parameters[name]:g}: the surrogate was trained within "
                f"[{low:g}, {high:g}] and knows nothing outside"
            )
