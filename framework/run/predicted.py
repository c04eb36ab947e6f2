"""Files of predictions: parameters and first fields that are read, fields that are written."""

import csv
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import xarray
from numpy.typing import NDArray

from framework.errors import StudyError, did_you_mean, reason
from framework.files import replacing, replacing_folder
from framework.pictures.fields import Trajectory, draw_trajectories
from framework.pictures.style import STYLE
from framework.run.prediction import Asked, FirstFields, Predictor
from framework.store.layout import what_zarr_says
from solvers.base import Solver

# What predictions are written as, by the file's ending.
FORMATS = (".npz", ".zarr")
# A picture shows as many simulations.
_DRAWN = 3


def read_state(path: Path) -> FirstFields:
    """Read fields to start from. Raises StudyError.

    A numpy .npz file has them as the array `initial` [C, *grid], a .zarr group as one array [*grid]
    for each field, as a prediction at one time has them.
    """
    if path.suffix == ".zarr":
        try:
            with xarray.open_zarr(path, consolidated=False) as group:
                return {str(name): _one_state(group[name]) for name in group.data_vars}
        except (OSError, ValueError) as error:
            raise StudyError(f"{path} cannot be read: {what_zarr_says(error)}") from None
    try:
        with np.load(path) as arrays:
            return np.asarray(arrays["initial"])
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {reason(error)}") from None
    except (KeyError, ValueError, TypeError, IndexError, zipfile.BadZipFile):
        raise StudyError(
            f"{path} is not a numpy .npz file with an array named initial, [field, *grid]"
        ) from None


def _one_state(variable: xarray.DataArray) -> NDArray[Any]:
    """Return a field without its axes of one simulation and one time."""
    single = [name for name in ("simulation", "time") if variable.sizes.get(name) == 1]
    return variable.squeeze(single).values


def read_parameters(path: Path, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Read a CSV file with a column [n] for each parameter that it names; others are left out.

    The first line has the names. Raises StudyError.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            filled = [(lines.line_num, row) for row in lines if any(cell.strip() for cell in row)]
            (_, header), *rows = filled
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StudyError(f"{path} cannot be read: {reason(error)}") from None
    except ValueError:
        raise StudyError(f"{path} is empty: its first line has to name the columns") from None
    header = [name.strip() for name in header]
    columns = {name: header.index(name) for name in names if name in header}
    if not columns or not rows:
        what = f"none of the columns {', '.join(names)}" if rows else "no line but the first"
        near = "".join(did_you_mean(name, names) for name in header[:1] if not columns)
        raise StudyError(f"{path} has {what}: give a column for each parameter{near}")
    for name in columns:
        if header.count(name) > 1:
            raise StudyError(f"{path} has the column {name} twice: leave one of them out")
    return {
        name: np.array([_number(path, name, line, row, at) for line, row in rows])
        for name, at in columns.items()
    }


def _number(path: Path, name: str, line: int, row: Sequence[str], at: int) -> float:
    try:
        return float(row[at])
    except IndexError:
        raise StudyError(f"{path}, line {line}: there is no value of {name}") from None
    except ValueError:
        raise StudyError(
            f"{path}, line {line}: {name} is {row[at]!r}, which is no number"
        ) from None


def check_place(path: Path) -> None:
    """Raise StudyError unless a prediction can be written at `path`."""
    if path.suffix not in FORMATS:
        raise StudyError(f"{path} has to end in {' or '.join(FORMATS)}, which says what it becomes")
    if not path.absolute().parent.is_dir():
        raise StudyError(f"{path} cannot be written: there is no folder {path.absolute().parent}")
    if path.suffix == ".zarr" and path.exists() and not _is_prediction(path):
        raise StudyError(f"{path} is there, and no earlier prediction: name another place")


def _is_prediction(path: Path) -> bool:
    """Return whether an earlier prediction lies there, which a new one may replace."""
    try:
        with xarray.open_zarr(path, consolidated=False) as group:
            return {"study", "surrogate", "mode"} <= {*group.attrs}
    except (OSError, ValueError):
        return False


def write(
    predictor: Predictor, asked: Asked, path: Path, tell: Callable[[int], None]
) -> xarray.Dataset:
    """Predict and write whole or not at all; return the first simulations, to be drawn.

    `tell` is called with the number of simulations done so far. A .zarr is written part by part, so
    the prediction may be larger than the memory. Raises StudyError and WriteError.
    """
    if path.suffix == ".npz":
        prediction = predictor.predict(asked)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **_arrays(prediction))
        tell(len(asked.values))
        return prediction
    first: xarray.Dataset | None = None
    with replacing_folder(path) as temporary:
        for part in predictor.parts(asked):
            prediction = predictor.predict_part(asked, part)
            if first is None:
                first = prediction
                prediction.to_zarr(temporary, mode="w", zarr_format=3, consolidated=False)
            else:
                prediction.to_zarr(temporary, append_dim="simulation", consolidated=False)
            tell(part.stop)
    assert first is not None
    return first


def _arrays(prediction: xarray.Dataset) -> dict[str, Any]:
    """Return a prediction as plain arrays: `field` [T, C, *grid] or [n, T, C, *grid], and more."""
    fields = [variable.values for variable in prediction.data_vars.values()]
    return {
        "field": np.stack(fields, 2 if "simulation" in prediction.dims else 1),
        "t": prediction["t"].values,
        "channels": np.array(list(prediction.data_vars)),
        "parameter_names": prediction["parameter"].values,
        "parameters": prediction["parameters"].values,
        "within_bounds": prediction["within_bounds"].values,
    }


def draw(predictor: Predictor, prediction: xarray.Dataset, path: Path) -> None:
    """Draw the first simulations of a prediction into a PNG. Raises WriteError."""
    many = "simulation" in prediction.dims
    chosen = range(min(prediction.sizes["simulation"], _DRAWN)) if many else [None]
    trajectories = []
    for id in chosen:
        one = prediction if id is None else prediction.isel(simulation=id)
        fields = np.stack([variable.values for variable in one.data_vars.values()], 1)
        name = "Prediction" if id is None else f"Prediction {id}"
        trajectories.append(Trajectory(name, one["parameters"].values, one["t"].values, fields))
    solver = _to_draw(predictor)
    with matplotlib.rc_context(STYLE), replacing(path) as temporary:
        figure = draw_trajectories(trajectories, solver, predictor.trained.solver.parameters)
        figure.savefig(temporary, format="png")


def _to_draw(predictor: Predictor) -> Solver:
    """Return the solver to draw fields of: only itself can tell what a scanner would see."""
    described = predictor.trained.solver
    if described.affine is None:
        return described
    try:
        return predictor.solver
    except StudyError:
        return described  # the picture has no outlines then
