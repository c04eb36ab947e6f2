"""A solver by what it declares, without its code: what a trained surrogate's folder says of it.

Shapes: p parameters, T stored times, S static fields, `*grid` the grid's axes.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from framework.errors import StudyError
from framework.study.case import Case
from framework.study.section import Section
from solvers.base import Field, Grid, Order, Parameter, ParameterSpace, Solver

# Stored times are taken to be the same for all parameters if they are for so many simulations.
_COMPARED = 100


class _Parameter(Section):
    name: str
    low: float
    high: float
    units: str
    prior: Literal["uniform", "log_uniform"]
    minimum: float | None  # None: any number has a meaning


class _Field(Section):
    name: str
    units: str


class _Grid(Section):
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    units: str


class SolverDescription(Section):
    """A solver's declarations as plain values; static fields by name alone."""

    parameters: tuple[_Parameter, ...]  # within the study's bounds
    fields: tuple[_Field, ...]
    grid: _Grid
    stored_steps: int
    times: tuple[float, ...] | None  # [T]; None: they depend on the parameters
    time_units: str
    static_fields: tuple[str, ...]
    uses_seed: bool
    affine: tuple[tuple[float, ...], ...] | None  # [4, 4]


def solver_description(case: Case) -> SolverDescription:
    """Describe the solver of a study, with its parameters in the study's bounds."""
    solver, grid = case.solver, case.solver.grid
    return SolverDescription(
        parameters=tuple(
            _Parameter(
                name=item.name,
                low=item.low,
                high=item.high,
                units=item.units,
                prior=item.prior,
                minimum=item.minimum if np.isfinite(item.minimum) else None,
            )
            for item in case.space.items
        ),
        fields=tuple(_Field(name=field.name, units=field.units) for field in solver.fields),
        grid=_Grid(shape=grid.shape, spacing=grid.spacing, units=grid.units),
        stored_steps=solver.stored_steps,
        times=_common_times(case),
        time_units=solver.time_units,
        static_fields=tuple(solver.static_fields),
        uses_seed=solver.uses_seed,
        affine=None if solver.affine is None else tuple(map(tuple, solver.affine.tolist())),
    )


def _common_times(case: Case) -> tuple[float, ...] | None:
    """Return the stored times [T] if they are the same for all parameters."""
    points = map(case.design.even, range(min(case.study.design.simulations, _COMPARED)))
    first, *others = (np.asarray(case.solver.times(point), dtype=np.float64) for point in points)
    return tuple(first.tolist()) if all(np.array_equal(first, t) for t in others) else None


class DescribedSolver(Solver):
    """A solver that declares what another one did, and cannot simulate.

    `common_times` [T] are the stored times, or None if they depend on the parameters.
    """

    order = Order(space=float("nan"), time=float("nan"))  # not known

    def __init__(
        self, description: SolverDescription, static_fields: Mapping[str, NDArray[np.float32]]
    ) -> None:
        """Raises ValueError if the description contradicts itself."""
        self.parameters = ParameterSpace(
            *(
                Parameter(
                    item.name,
                    item.low,
                    item.high,
                    item.units,
                    item.prior,
                    -np.inf if item.minimum is None else item.minimum,
                )
                for item in description.parameters
            )
        )
        self.fields = tuple(Field(field.name, field.units) for field in description.fields)
        grid = description.grid
        self.grid = Grid(grid.shape, grid.spacing, grid.units)
        self.stored_steps = description.stored_steps
        self.time_units = description.time_units
        self.uses_seed = description.uses_seed
        self.affine = None if description.affine is None else np.array(description.affine)
        self.static_fields = {name: static_fields[name] for name in description.static_fields}
        times = description.times
        self.common_times = None if times is None else np.array(times, dtype=np.float64)

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the stored times [T]. Raises StudyError if they depend on the parameters."""
        if self.common_times is None:
            raise StudyError(
                "the stored times depend on the parameters: only the solver knows them"
            )
        return self.common_times

    def solve(self, parameters: NDArray[np.float64], seed: int) -> Iterator[NDArray[np.float32]]:
        """Raise StudyError: there is nothing to simulate with."""
        raise StudyError("only the solver itself can simulate")
