"""The interface of a solver.

Shapes: p parameters, C fields (channels), T stored steps, B simulations in a batch, `*grid` the
grid's axes (one to three). Fields leave a solver as float32, whatever type it computes in.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# The type that a solver computes in, if it can be chosen.
Precision = Literal["float32", "float64"]


@dataclass(frozen=True)
class Parameter:
    """One physical parameter: its bounds, its units and its prior between the bounds.

    `minimum` is the least value with a physical meaning (0 for a temperature in kelvin); a study
    may move the bounds, but not below it.
    """

    name: str
    low: float
    high: float
    units: str = "1"
    prior: Literal["uniform", "log_uniform"] = "uniform"
    minimum: float = -math.inf

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"bounds of {self.name} are [{self.low}, {self.high}]: "
                "they must be two finite numbers, the lower one first"
            )
        if self.low < self.minimum:
            raise ValueError(
                f"lower bound of {self.name} is {self.low} {self.units}: "
                f"it must be at least {self.minimum}"
            )
        if self.prior == "log_uniform" and self.low <= 0:
            raise ValueError(
                f"lower bound of {self.name} is {self.low}: a log-uniform prior needs it positive"
            )


class ParameterSpace:
    """The parameters of a solver, in order, and the map between them and the unit cube."""

    def __init__(self, *parameters: Parameter) -> None:
        self.items = parameters
        self.names = tuple(parameter.name for parameter in parameters)
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"parameter names must differ, these do not: {', '.join(self.names)}")
        self.low = np.array([parameter.low for parameter in parameters])
        self.high = np.array([parameter.high for parameter in parameters])
        self.log = np.array([parameter.prior == "log_uniform" for parameter in parameters])

    def __len__(self) -> int:
        return len(self.items)

    def with_bounds(self, bounds: Mapping[str, tuple[float, float]]) -> "ParameterSpace":
        """Return the same parameters with some bounds replaced.

        Raises ValueError on an unknown name.
        """
        for name in bounds:
            if name not in self.names:
                raise ValueError(
                    f"{name} is not a parameter of this solver, which has {', '.join(self.names)}"
                )
        return self.with_items(
            *(
                replace(item, low=bounds[item.name][0], high=bounds[item.name][1])
                if item.name in bounds
                else item
                for item in self.items
            )
        )

    def with_items(self, *parameters: Parameter) -> "ParameterSpace":
        """Return the same kind of space with these parameters; a subclass keeps its attributes."""
        return ParameterSpace(*parameters)

    def from_unit(self, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map points of the unit cube [..., p] to parameter values [..., p], by the prior."""
        # A log-uniform prior needs positive bounds only where it applies: elsewhere 1 stands in.
        low, high = np.where(self.log, self.low, 1.0), np.where(self.log, self.high, 1.0)
        logarithmic = low * (high / low) ** unit
        return np.where(self.log, logarithmic, self.low + (self.high - self.low) * unit)

    def to_unit(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map parameter values [..., p] to points of the unit cube [..., p]: undo `from_unit`.

        A subclass that overrides one of the two overrides both.
        """
        low, high = np.where(self.log, self.low, 1.0), np.where(self.log, self.high, 1.0)
        ratio = np.where(self.log, high / low, math.e)
        logarithmic = np.log(np.where(self.log, values, 1.0) / low) / np.log(ratio)
        return np.where(self.log, logarithmic, (values - self.low) / (self.high - self.low))


@dataclass(frozen=True)
class Field:
    """One stored field (a channel) and its units."""

    name: str
    units: str = "1"


@dataclass(frozen=True)
class Grid:
    """A regular grid: points and spacing along every axis, in the order of the array's axes."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    units: str = "1"


@dataclass(frozen=True)
class Order:
    """The orders of accuracy that a solver claims, in space and in time."""

    space: float
    time: float


@dataclass(frozen=True)
class Quantity:
    """Values [n] of a quantity, and their units. A `positive` quantity is compared by ratios."""

    values: NDArray[np.float64]
    units: str = "1"
    positive: bool = False


@dataclass(frozen=True)
class Convention:
    """The labels of a segmentation: region -> labels; 0 is the background.

    `space` names the space that such images lie in, one of `ImagedSolver.spaces`; None: any.
    """

    labels: Mapping[str, tuple[int, ...]]
    space: str | None = None


@dataclass(frozen=True)
class OutputPlace:
    """Where a solver that starts programs may keep what they print in a simulation.

    `folder`: an absolute path, shared with other solvers and simulations; it need not exist yet.
    `name`: the simulation's; it can be repeated, by another attempt. `machine`: where the folder
    was thought of: on another machine the path may be another folder.
    """

    folder: Path
    name: str
    machine: str


class Solver(ABC):
    """Runs one simulation at a time. Subclasses set the attributes and write two methods.

    The constructor's arguments are the solver's settings in a study: they are checked against their
    annotations, so `points: Annotated[int, Ge(2)] = 64` refuses a 1. A ValueError from the
    constructor is shown to the user as a mistake in the study.
    """

    parameters: ParameterSpace  #: with bounds and priors
    fields: tuple[Field, ...]  #: the C fields that are stored
    grid: Grid  #: the same for all simulations
    order: Order  #: of accuracy, as claimed
    stored_steps: int  #: T
    time_units: str = "1"  #: of the stored times
    #: Raise it when the same settings, parameters and seed give other results than before: a store
    #: of another version is not continued unnoticed.
    version: int = 1
    #: Whether the fields depend on the seed, too: an initial state that is drawn, for instance. A
    #: direct surrogate sees the parameters alone, so it cannot learn what the seed decides.
    uses_seed: bool = False
    #: The settings that only refine the grid, or the time steps between the stored times: a trained
    #: surrogate can be asked for these alone. The extent, the stored times and the physics stay.
    grid_settings: tuple[str, ...] = ()
    #: Maps grid indices to positions in mm [4, 4], where the grid lies in a scanner's space.
    affine: NDArray[np.float64] | None = None
    #: Fields that are the same in all simulations (a permeability, an atlas): name -> [*grid].
    static_fields: Mapping[str, NDArray[np.float32]] = MappingProxyType({})

    def check(self, parameters: ParameterSpace) -> None:  # noqa: B027 (most solvers need none)
        """Raise ValueError if the settings cannot simulate everything between these bounds.

        A time step may be unstable there, or the grid too coarse. Refuses nothing, unless
        overridden. A study gives its own bounds, which may be wider or narrower than the solver's.
        """

    @abstractmethod
    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the ascending stored times [T] of the simulation with these parameters [p]."""

    @abstractmethod
    def solve(self, parameters: NDArray[np.float64], seed: int) -> Iterator[NDArray[np.float32]]:
        """Yield the fields [C, *grid] at every stored time, the initial state first.

        The same parameters [p] and seed give the same bits on the same machine and number of
        threads. Any exception ends the simulation; it is reported with the parameters.
        """

    def keep_output(self, place: OutputPlace) -> None:  # noqa: B027
        """Be told where to keep what programs print in the next `solve`.

        Does nothing, unless overridden. Solvers are not always told: then nothing is kept.
        """

    def program_files(self) -> Sequence[Path]:
        """Return the files beyond Python code that decide the results, such as a program it runs.

        A store of other contents of these files is not continued unnoticed. None, unless
        overridden.
        """
        return ()

    def observe(
        self, fields: NDArray[np.float32], **settings: float
    ) -> Mapping[str, NDArray[np.float32] | NDArray[np.bool_]]:
        """Return images [*grid] by name, values or masks, as taken of the fields [C, *grid].

        Every point is observed by itself, so a part of the grid gives that part of the images.
        Returns the fields themselves, unless overridden. Raises ValueError on an unknown setting.
        """
        if settings:
            raise ValueError(
                f"{', '.join(settings)}: what is observed of this solver has no setting"
            )
        return {field.name: values for field, values in zip(self.fields, fields, strict=True)}

    def identifiable(
        self, parameters: NDArray[np.float64], t: NDArray[np.float64]
    ) -> Mapping[str, Quantity]:
        """Return the quantities that one observation can tell, for parameters [n, p] and times [n].

        They are the parameters and the time, unless overridden: some only show in combination.
        """
        quantities = {
            item.name: Quantity(parameters[:, i], item.units)
            for i, item in enumerate(self.parameters.items)
        }
        return {**quantities, "time": Quantity(t, self.time_units)}

    def resolved(self, parameters: NDArray[np.float64]) -> bool:
        """Return whether grid and time step are fine enough for these parameters [p].

        True, unless overridden. A simulation that is not resolved runs all the same; the store
        marks it.
        """
        return True


class BatchSolver(Solver):
    """A solver that runs many simulations at once; one simulation is a batch of one."""

    @abstractmethod
    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        """Yield [B, C, *grid] at every stored time, for parameters [B, p] and seeds [B].

        `device`, a torch device name, is where to compute: cuda if a study gives the solver's
        processes GPUs (`ensemble.gpus_per_actor`). Fields are yielded as arrays on the CPU in any
        case.
        """

    def solve(self, parameters: NDArray[np.float64], seed: int) -> Iterator[NDArray[np.float32]]:
        """Run a batch of one simulation."""
        seeds = np.array([seed], dtype=np.uint64)
        for fields in self.solve_batch(np.asarray(parameters)[None], seeds):
            yield fields[0]


class ImagedSolver(Solver):
    """A solver whose fields are segmented in images: its stores can be searched by masks.

    For comparing with images of patients or samples the grid needs an `affine`.
    """

    #: The masks that `observe` makes, each with the ascending values to try of the setting of the
    #: same name. A mask at a higher value lies within the same mask at a lower one.
    masks: Mapping[str, tuple[float, ...]]
    #: The regions of a segmentation that make up each mask.
    regions: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    #: The labels of these regions, by the name of a convention.
    conventions: Mapping[str, Convention] = MappingProxyType({})
    #: The spaces that images may lie in: name -> positions in mm there to those of `affine`
    #: [4, 4].
    spaces: Mapping[str, NDArray[np.float64]] = MappingProxyType({})

    @abstractmethod
    def observe(
        self, fields: NDArray[np.float32], **settings: float
    ) -> Mapping[str, NDArray[np.float32] | NDArray[np.bool_]]:
        """Return images [*grid] as in `Solver`, among them those of `masks`, which are bool."""

    def plans(
        self,
        observed: Mapping[str, NDArray[np.bool_]],
        fields: NDArray[np.float32],
        static_fields: Mapping[str, NDArray[np.float32]],
        affine: NDArray[np.float64],
    ) -> Mapping[str, NDArray[np.bool_]]:
        """Return regions [*image] to treat, of equal volume, by name. None, unless overridden.

        They follow from the masks that were observed [*image], and from the fields [C, *image]
        found for them. These and the solver's `static_fields` [*image] are on the grid of the
        patient's image, whose indices `affine` [4, 4] maps to positions in mm: a patient's voxels
        and lengths are not those of an atlas.
        """
        return {}
