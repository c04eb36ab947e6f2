"""The solvers that a study can name, described without importing them.

Their modules import torch, which takes seconds; messages about mistakes in a study and `millstream
list` have to come at once. tests/solvers/test_solver_table.py compares every line with the solver
itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen

from solvers.base import Grid, Precision
from solvers.external_settings import Command, Fields, Parameters, Template, Unidentified, Word


@dataclass(frozen=True)
class Entry:
    """One solver."""

    path: str  # module:Class
    # A function with the arguments of its constructor, and the first sentence of its documentation.
    settings: Callable[..., None]
    # Fields, grid, stored steps, order and parameters with the default settings.
    facts: Mapping[str, str] = field(default_factory=dict)


def burgers(
    points: Annotated[int, Ge(16)] = 256,
    stored_steps: Annotated[int, Ge(2)] = 51,
    final_time: Annotated[float, Gt(0)] = 1.0,
    substeps: Annotated[int, Ge(1)] = 4,
    precision: Precision = "float32",
) -> None:
    """du/dt + c du/dx + u du/dx = viscosity d2u/dx2 on [0, 1), periodic."""


def darcy(grid_size: Annotated[int, Ge(5)] = 64) -> None:
    """-div(permeability grad p) = 1 on the unit square, p = 0 on its sides."""


def external(
    command: Command,
    parameters: Parameters,
    fields: Fields,
    grid: Grid,
    stored_steps: Annotated[int, Ge(1)] | None = None,
    final_time: Annotated[float, Gt(0)] | None = None,
    times: Annotated[Sequence[float], MinLen(1)] | None = None,
    time_units: str = "1",
    env: Mapping[str, Word] | None = None,
    template: Template | None = None,
    time_limit: Annotated[float, Gt(0)] = 600.0,
    stays: Annotated[bool, Unidentified] = False,
    uses_seed: Annotated[bool, Unidentified] = False,
) -> None:
    """Starts a command for each simulation and takes the fields that it sends
    (docs/how-to/external.md).
    """


def fisher_kolmogorov(
    grid_size: Annotated[int, Ge(8)] | None = 64,
    white: str | None = None,
    grey: str | None = None,
    prior: Literal["filtered", "published"] = "filtered",
    stored_steps: Annotated[int, Ge(2)] = 11,
    step: Annotated[float, Ge(0.001)] = 0.75,
    first_time: Annotated[float, Ge(0), Le(0.99)] = 0.0,
) -> None:
    """dc/dt = div(D grad c) + rho c (1 - c), D = Dw (p_white + p_grey / 10), in brain tissue."""


def gray_scott(
    points: Annotated[int, Ge(32)] = 64,
    length: Annotated[float, Gt(0)] = 0.5,
    stored_steps: Annotated[int, Ge(2)] = 41,
    final_time: Annotated[float, Gt(0)] = 2000.0,
    substeps: Annotated[int, Ge(1)] = 10,
    precision: Precision = "float32",
) -> None:
    """du/dt = 2e-5 laplacian u - u v^2 + feed (1 - u), dv/dt = 1e-5 laplacian v + u v^2 - (feed +
    kill) v on [0, length)^2, periodic.
    """


def heat(
    grid_size: Annotated[int, Ge(3)] = 64,
    stored_steps: Annotated[int, Ge(2)] = 50,
    final_time: Annotated[float, Gt(0)] = 0.1,
    substeps: Annotated[int, Ge(1)] = 4,
    dimensions: Literal[1, 2, 3] = 2,
) -> None:
    """du/dt = laplacian u on the unit line, square or cube, unit diffusivity."""


def kuramoto_sivashinsky(
    points: Annotated[int, Ge(32)] = 128,
    length: Annotated[float, Gt(0)] = 50.0,
    stored_steps: Annotated[int, Ge(2)] = 101,
    final_time: Annotated[float, Gt(0)] = 50.0,
    substeps: Annotated[int, Ge(1)] = 5,
    precision: Precision = "float32",
) -> None:
    """du/dt + u du/dx + d2u/dx2 + hyperviscosity d4u/dx4 = 0 on [0, length), periodic."""


def lorenz(
    stored_steps: Annotated[int, Ge(2)] = 101,
    final_time: Annotated[float, Gt(0)] = 2.0,
    substeps: Annotated[int, Ge(1)] = 4,
) -> None:
    """dx/dt = sigma (y - x), dy/dt = x (rho - z) - y, dz/dt = x y - beta z."""


def navier_stokes(
    points: Annotated[int, Ge(32)] = 64,
    stored_steps: Annotated[int, Ge(2)] = 41,
    final_time: Annotated[float, Gt(0)] = 8.0,
    substeps: Annotated[int, Ge(1)] = 12,
    precision: Precision = "float32",
) -> None:
    """dw/dt + u dw/dx + v dw/dy = viscosity laplacian w - 0.1 w - 4 forcing cos(4 y) on [0, 2
    pi)^2, periodic; w = dv/dx - du/dy, du/dx + dv/dy = 0.
    """


def two_species(
    grid_size: Annotated[int, Ge(8)] | None = 64,
    white: str | None = None,
    grey: str | None = None,
    stored_steps: Annotated[int, Ge(2)] = 11,
    step: Annotated[float, Ge(0.001)] = 0.75,
    first_time: Annotated[float, Ge(0), Le(0.99)] = 0.0,
) -> None:
    """dp/dt = div(D grad p) + rho s p (1 - p - n) - lambda h(s) p, dn/dt = lambda h(s) p."""


TABLE: Mapping[str, Entry] = {
    "burgers": Entry(
        "solvers.burgers:Burgers",
        burgers,
        {
            "fields": "velocity m/s",
            "grid": "256, spacing 0.00391 m",
            "stored": "51 steps, times in s",
            "order": "4 in time",
            "parameters": (
                "viscosity [0.005, 0.05] m2/s log-uniform, advection [-1, 1] m/s, "
                "amplitude [0.2, 0.5] m/s"
            ),
        },
    ),
    "darcy": Entry(
        "solvers.darcy:Darcy",
        darcy,
        {
            "fields": "log_permeability, pressure",
            "grid": "64 x 64, spacing 0.0159 x 0.0159",
            "stored": "2 steps",
            "order": "2 in space",
            "parameters": "correlation_length [0.05, 0.3] log-uniform, contrast [0.2, 1.5]",
        },
    ),
    "external": Entry("solvers.external:External", external),
    "fisher_kolmogorov": Entry(
        "solvers.tumor.fisher_kolmogorov:FisherKolmogorov",
        fisher_kolmogorov,
        {
            "fields": "cells",
            "grid": "64 x 64 x 64, spacing 3.64 x 3.64 x 3.64 mm",
            "stored": "11 steps, times in T",
            "order": "2 in space, 2 in time",
            "parameters": (
                "sqrt_DT [3, 30] mm log-uniform, rho_T [1, 80] log-uniform, x [0.15, 0.7], "
                "y [0.2, 0.8], z [0.15, 0.7]"
            ),
        },
    ),
    "gray_scott": Entry(
        "solvers.gray_scott:GrayScott",
        gray_scott,
        {
            "fields": "substrate, activator",
            "grid": "64 x 64, spacing 0.00781 x 0.00781",
            "stored": "41 steps",
            "order": "4 in time",
            "parameters": "feed [0.025, 0.045], kill [0.055, 0.06]",
        },
    ),
    "heat": Entry(
        "solvers.heat:Heat",
        heat,
        {
            "fields": "temperature K",
            "grid": "64 x 64, spacing 0.0159 x 0.0159",
            "stored": "50 steps",
            "order": "2 in space, 2 in time",
            "parameters": (
                "initial [100, 500] K, left [100, 500] K, right [100, 500] K, bottom [100, "
                "500] K, top [100, 500] K"
            ),
        },
    ),
    "kuramoto_sivashinsky": Entry(
        "solvers.kuramoto_sivashinsky:KuramotoSivashinsky",
        kuramoto_sivashinsky,
        {
            "fields": "u",
            "grid": "128, spacing 0.391",
            "stored": "101 steps",
            "order": "4 in time",
            "parameters": "hyperviscosity [0.7, 2] log-uniform, amplitude [0.1, 1]",
        },
    ),
    "lorenz": Entry(
        "solvers.lorenz:Lorenz",
        lorenz,
        {
            "fields": "x, y, z",
            "grid": "1, spacing 1",
            "stored": "101 steps",
            "order": "4 in time",
            "parameters": "sigma [8, 12], rho [24.8, 40], beta [2, 3]",
        },
    ),
    "navier_stokes": Entry(
        "solvers.navier_stokes:NavierStokes",
        navier_stokes,
        {
            "fields": "vorticity 1/s",
            "grid": "64 x 64, spacing 0.0982 x 0.0982 m",
            "stored": "41 steps, times in s",
            "order": "4 in time",
            "parameters": (
                "viscosity [0.025, 0.1] m2/s log-uniform, forcing [0.5, 1.5] m/s2, "
                "vorticity [1, 4] 1/s"
            ),
        },
    ),
    "two_species": Entry(
        "solvers.tumor.two_species:TwoSpecies",
        two_species,
        {
            "fields": "proliferating, necrotic, nutrient",
            "grid": "64 x 64 x 64, spacing 3.64 x 3.64 x 3.64 mm",
            "stored": "11 steps, times in T",
            "order": "2 in space, 2 in time",
            "parameters": (
                "sqrt_DT [3, 30] mm log-uniform, rho_T [1, 80] log-uniform, death [0.3, "
                "3] log-uniform, hypoxia [0.05, 0.7], supply [0.3, 3] log-uniform, "
                "uptake [0.3, 3] log-uniform, x [0.15, 0.7], y [0.2, 0.8], z [0.15, 0.7]"
            ),
        },
    ),
}
