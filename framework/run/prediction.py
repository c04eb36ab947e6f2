"""Fields from a trained surrogate: for many sets of parameters, as xarray.

Shapes: n simulations, p parameters, T times, C fields (channels), `*grid` the grid's axes.
"""

import copy
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any

import numpy as np
import torch
import xarray
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from framework.errors import StudyError
from framework.run import asking
from framework.study.component import their_mistakes
from framework.study.declared import as_float32
from framework.training.model import Trained, normalised_static
from solvers.base import BatchSolver, Solver
from surrogates.base import Surrogate

# How many grid points are predicted at once, to bound the memory: an FNO of 32 channels takes about
# 150 MB for them.
POINTS_TOGETHER = 2**18

FirstFields = ArrayLike | Mapping[str, ArrayLike]


@dataclass(frozen=True)
class Asked:
    """What a surrogate is asked for, checked."""

    values: NDArray[np.float64]  # [n, p]
    single: bool  # one number was given for each parameter: the answer has no axis of simulations
    path: asking.TimePath
    initial: NDArray[np.float32] | None  # [1 or n, C, *grid]
    seed: int | None
    surrogate: Surrogate  # with the static fields asked for
    warnings: list[str]


class Rollout(nn.Module):
    """A trained surrogate as a module: parameters, times and first fields to fields."""

    def __init__(self, surrogate: Surrogate) -> None:
        super().__init__()
        self.surrogate = surrogate

    def forward(self, parameters: Tensor, times: Tensor, initial: Tensor | None = None) -> Tensor:
        """Map parameters [n, p] and times [T] or [n, T] to fields [n, T, C, *grid], in their units.

        An autoregressive surrogate needs the fields `initial` [n, C, *grid] at the first time.
        Gradients flow back to all three. Raises ValueError without the fields that it needs.
        """
        problem, n = self.surrogate.problem, len(parameters)
        if initial is None:
            if self.surrogate.mode == "autoregressive":
                raise ValueError("an autoregressive surrogate needs initial [n, C, *grid]")
            initial = parameters.new_zeros(n, problem.channels, *problem.grid)
        steps = self.surrogate.rollout(parameters, times.expand(n, -1), initial)
        return torch.stack(list(steps), 1)


class Predictor:
    """A trained surrogate that can be asked for fields; holds it on a device."""

    def __init__(self, trained: Trained, device: str = "cpu") -> None:
        """`device`, a torch device name, is where to predict. Raises StudyError."""
        self.trained = trained
        try:
            self.surrogate = trained.surrogate.to(device)
        except (RuntimeError, AssertionError) as error:
            why = str(error).partition("\n")[0]
            raise StudyError(f"device is {device}, which cannot be used: {why}") from None
        self._device = torch.device(device)
        # The grid's axes: positions, from the first point on.
        grid = trained.solver.grid
        units = {"units": grid.units, "long_name": "distance from the first point"}
        self._axes = {
            f"axis_{axis}": ((f"axis_{axis}",), np.arange(points) * spacing, units)
            for axis, (points, spacing) in enumerate(zip(grid.shape, grid.spacing, strict=True))
        }
        self._attributes = {
            "study": trained.study.name,
            "surrogate": trained.study.surrogate.name,
            "mode": trained.surrogate.mode,
            "millstream": metadata.version("millstream"),
        }

    @cached_property
    def solver(self) -> Solver:
        """The solver itself. Raises StudyError if it is not there, or cannot be made."""
        return self.trained.make_solver()

    def ask(
        self,
        parameters: Mapping[str, ArrayLike],
        times: ArrayLike | None = None,
        initial: FirstFields | None = None,
        static: Mapping[str, ArrayLike] | None = None,
        seed: int | None = None,
    ) -> Asked:
        """Check what is asked for; see `Model.predict` of the front door. Raises StudyError."""
        solver, surrogate = self.trained.solver, self.surrogate
        problem = surrogate.problem
        values = asking.parameter_values(parameters, solver.parameters.items, problem)
        rows = values.reshape(-1, values.shape[-1])
        self._check_start(initial, seed)
        state = None
        if initial is not None:
            state = asking.given_state(initial, solver.fields, solver.grid, len(rows))
        stored = self._stored_times(rows, times)
        path = asking.path_through(times, stored, surrogate.mode, given=state is not None)
        if times is not None:
            self.trained.check_times(path.t)
        if static:
            surrogate = self._with_static(asking.given_static(static, solver))
        warnings = asking.outside(rows, problem)
        return Asked(rows, values.ndim == 1, path, state, seed, surrogate, warnings)

    def predict(self, asked: Asked) -> xarray.Dataset:
        """Predict all at once. Raises StudyError, also if the fields do not fit into memory."""
        points = math.prod(self.surrogate.problem.grid) * self.surrogate.problem.channels
        needed = 4 * len(asked.values) * asked.path.t.shape[1] * points
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > there:
            raise StudyError(
                f"the fields of {len(asked.values)} simulations take {needed / 2**30:.1f} GiB, but "
                f"there are {there / 2**30:.1f} GiB of memory: ask for fewer simulations at once, "
                "or fewer times"
            )
        parts = [self._fields(asked, part) for part in self.parts(asked)]
        fields = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return self._dataset(asked, slice(0, len(asked.values)), fields)

    def predict_part(self, asked: Asked, part: slice) -> xarray.Dataset:
        """Predict some of the simulations, one of `parts`. Raises StudyError."""
        return self._dataset(asked, part, self._fields(asked, part))

    def parts(self, asked: Asked) -> Iterator[slice]:
        """Yield the simulations that are predicted together."""
        size = max(1, POINTS_TOGETHER // math.prod(self.surrogate.problem.grid))
        for first in range(0, len(asked.values), size):
            yield slice(first, min(first + size, len(asked.values)))

    def _check_start(self, initial: FirstFields | None, seed: int | None) -> None:
        if initial is not None and seed is not None:
            raise StudyError(
                "initial fields and a seed are given: a rollout starts from one of them"
            )
        if self.surrogate.mode == "direct" and (initial is not None or seed is not None):
            raise StudyError(
                "a surrogate in mode direct sees parameters and times alone: leave out the initial "
                "fields and the seed"
            )
        if seed is not None and not 0 <= seed < 2**63:
            raise StudyError(f"seed is {seed}: it has to be from 0 to 2^63 - 1")

    def _stored_times(
        self, values: NDArray[np.float64], times: ArrayLike | None
    ) -> NDArray[np.float64]:
        """Return the stored times [1 or n, T], by the solver if they depend on the parameters."""
        common = self.trained.solver.common_times
        if common is not None:
            return common[None]
        if times is not None and self.surrogate.mode == "direct":
            return np.empty((0, 0))  # they are not needed
        with self._asking_solver("the stored times", "times can be given"):
            return np.array([self.solver.times(row) for row in values], dtype=np.float64)

    def _with_static(self, static: NDArray[np.float32]) -> Surrogate:
        """Return the surrogate with other static fields [S, *grid]; it shares its weights."""
        trained, own = self.trained.static, self.surrogate.static
        other = copy.copy(self.surrogate)
        other._buffers = {**other._buffers, "static": normalised_static(trained, static).to(own)}
        return other

    def _fields(self, asked: Asked, part: slice) -> NDArray[np.float32]:
        """Return the fields [m, T, C, *grid] of some simulations. Raises StudyError."""
        values = asked.values[part]
        t = np.broadcast_to(_rows_of(asked.path.t, part), (len(values), asked.path.t.shape[1]))
        initial = self._initial(asked, part)
        with torch.no_grad():
            steps = asked.surrogate.rollout(
                torch.tensor(values, device=self._device),
                torch.tensor(t, device=self._device),
                torch.tensor(initial, device=self._device),
            )
            fields = np.stack([step.float().cpu().numpy() for step in steps], 1)
        if not np.isfinite(fields).all():
            bad = np.isfinite(fields).all(tuple(range(1, fields.ndim))).argmin()
            why = asking.outside(values[bad : bad + 1], self.surrogate.problem)
            raise StudyError(
                f"the surrogate of the study {self.trained.study.name} predicts NaN or infinity: "
                + (why[0] if why else "its training diverged")
            )
        asked_for: NDArray[np.float32] = fields[:, asked.path.asked]
        return asked_for

    def _initial(self, asked: Asked, part: slice) -> NDArray[np.float32]:
        """Return the fields [m, C, *grid] to start from; zero where none are needed."""
        values, problem = asked.values[part], self.surrogate.problem
        shape = (len(values), problem.channels, *problem.grid)
        if self.surrogate.mode == "direct":
            return np.zeros(shape, dtype=np.float32)
        if asked.initial is not None:
            return np.broadcast_to(_rows_of(asked.initial, part), shape)
        seed = self.trained.study.seed if asked.seed is None else asked.seed
        with self._asking_solver("the first fields", "other initial fields can be given"):
            return _first_fields(self.solver, values, seed)

    @contextmanager
    def _asking_solver(self, what: str, remedy: str) -> Iterator[None]:
        """Say of an error of the solver's that it was asked for `what`. Raises StudyError."""
        try:
            with their_mistakes("it failed", plain=ValueError):
                yield
        except ValueError as error:
            name = self.trained.study.solver.name
            raise StudyError(f"{what} of the solver {name}: {error}; {remedy}") from None

    def _dataset(self, asked: Asked, part: slice, fields: NDArray[np.float32]) -> xarray.Dataset:
        """Return fields [m, T, C, *grid] with their coordinates and units."""
        solver, values = self.trained.solver, asked.values[part]
        lead: tuple[str, ...] = ("simulation",)
        low, high = self.surrogate.problem.low, self.surrogate.problem.high
        inside: Any = asking.within(values, low, high).all(1)
        t = _rows_of(asked.path.t, part)[:, asked.path.asked]
        coordinates: dict[str, Any] = {
            "parameter": ("parameter", np.array(solver.parameters.names, dtype=object)),
            **self._axes,
        }
        if asked.path.steps is not None:
            coordinates["time"] = ("time", asked.path.steps, {"long_name": "stored step"})
        if asked.single:
            lead, values, fields, inside = (), values[0], fields[0], inside[0]
        else:
            coordinates["simulation"] = ("simulation", np.arange(part.start, part.stop))
        common = len(t) == 1
        coordinates["t"] = (
            ("time",) if common else (*lead, "time"),
            t[0] if common else t,
            {"units": solver.time_units},
        )
        units = {item.name: item.units for item in solver.parameters.items}
        coordinates["parameters"] = ((*lead, "parameter"), values, {"units": units})
        coordinates["within_bounds"] = (lead, inside)
        names = (*lead, "time", *self._axes)
        channel = len(lead) + 1
        variables = {
            field.name: (names, fields.take(index, channel), {"units": field.units})
            for index, field in enumerate(solver.fields)
        }
        attributes = dict(self._attributes)
        if asked.warnings:
            attributes["warnings"] = "; ".join(asked.warnings)
        return xarray.Dataset(variables, coordinates, attributes)


def _rows_of(array: NDArray[Any], part: slice) -> NDArray[Any]:
    """Return some rows of an array that has one for each simulation, or one for all."""
    return array if len(array) == 1 else array[part]


def _first_fields(solver: Solver, values: NDArray[np.float64], seed: int) -> NDArray[np.float32]:
    """Return the fields [m, C, *grid] at the first stored times of parameters [m, p]."""
    if isinstance(solver, BatchSolver):
        seeds = np.full(len(values), seed, dtype=np.uint64)
        return as_float32(next(iter(solver.solve_batch(values, seeds))))
    return np.stack([as_float32(next(iter(solver.solve(row, seed)))) for row in values])
