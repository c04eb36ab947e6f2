"""What all tumour growth models share: tissue, seed, windows, time steps.

B: simulations, p: parameters, C: fields, n: voxels in a window, T: stored times.
Time runs from 0 to 1 in units of the simulation's duration.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from numpy.typing import NDArray

from solvers.base import BatchSolver, Grid, ImagedSolver, Order
from solvers.tumor.atlas import LEAST_TISSUE, Tissue, load_tissue
from solvers.tumor.diffusion import Diffusion, conductances
from solvers.tumor.patients import CONVENTIONS, REGIONS, SRI24_TO_MNI152
from solvers.tumor.radiotherapy import plans
from solvers.tumor.seed import VARIANCE, seed
from solvers.tumor.window import Windows, windows_around

# The largest growth rho dt in a time step that a study can ask for.
LARGEST_STEP = 1.0
# A time step spreads cells by at most this part of the variance that they have reached.
SPREADING = 0.5
# How far a window has to reach beyond the cells, in standard deviations of the spread in a time
# step.
_REACH = 3.0


class TumorGrowth(BatchSolver, ImagedSolver):
    """Reaction and diffusion of cells in brain tissue, from a small seed.

    Scheme: Strang splitting, second order in time: half a step of reaction, a step of diffusion
    (see `Diffusion`), half a step of reaction. Where cells are few, growth is linear and commutes
    with diffusion: there splitting has no error, and there the speed of a front is decided. The
    time step is limited by how well a step of diffusion follows the front's edge, which grows by
    diffusion as much as by reaction, hence by rho dt (`step`); in the beginning it is limited by
    the width of the seed. No step is unstable: diffusion takes as many stages as it needs.

    Accuracy: with the default step, densities in the brain are within 0.5 % of those of very short
    steps at the end (relative L2), and within some per cent soon after the seed; grids of 64^3 and
    128^3 differ by more, 1-20 % in volume (`benchmarks/tumour_grids.py`).

    Computes in float32, in a window around each tumour beyond which the density is below 1e-6. A
    CPU computes one simulation after the other, as a window fits into its cache, a GPU all at once.
    """

    order = Order(space=2, time=2)
    regions = REGIONS
    conventions = CONVENTIONS
    # The fields of cells, which together are the tumour.
    cells: tuple[int, ...] = (0,)
    # The fields that diffuse; cells come first.
    diffusing: tuple[int, ...] = (0,)
    # The fields that fill the tissue where there is no tumour: 1 minus the field is computed.
    filling: tuple[int, ...] = ()
    # The type to compute in.
    precision = torch.float32

    def __init__(
        self,
        grid_size: Annotated[int, Ge(8)] | None = 64,
        white: str | None = None,
        grey: str | None = None,
        stored_steps: Annotated[int, Ge(2)] = 11,
        step: Annotated[float, Ge(1e-3)] = 0.75,
        first_time: Annotated[float, Ge(0), Le(0.99)] = 0.0,
    ) -> None:
        if step > LARGEST_STEP:
            raise ValueError(
                f"step is {step:g}: it is the growth rho dt in one time step and must be at most "
                f"{LARGEST_STEP:g}, as the front's speed is wrong beyond; smaller is more accurate"
            )
        self.tissue: Tissue = load_tissue(white, grey, grid_size)
        self.grid = Grid(self.tissue.mask.shape, self.tissue.spacing, "mm")
        self.affine = self.tissue.affine
        # It is unknown where a user's own maps lie in an atlas.
        self.spaces = {"sri24": SRI24_TO_MNI152} if white is None else {}
        self.static_fields = {
            "white_matter": self.tissue.white,
            "grey_matter": self.tissue.grey,
        }
        self.stored_steps = stored_steps
        self.step = step
        self.first_time = first_time
        where = np.argwhere(self.tissue.mask)
        self.limits = np.stack([where.min(0), where.max(0) + 1], 1)  # of the tissue [3, 2]
        self.faces = [
            conductances(mobility, self.tissue.mask, self.tissue.spacing)
            for mobility in self.mobilities()
        ]

    @abstractmethod
    def spreads(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return diffusivity times duration in mm2 [B, fields that diffuse]."""

    @abstractmethod
    def growths(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the fastest rate of the reaction times the duration [B]."""

    @abstractmethod
    def mobilities(self) -> Sequence[NDArray[np.float32]]:
        """Return the mobility of each field that diffuses [*grid], as a part of its diffusivity."""

    @abstractmethod
    def react(
        self, fields: Sequence[torch.Tensor], parameters: NDArray[np.float64], step: float
    ) -> None:
        """Advance the reaction of fields [B, n] in place.

        For fields in `filling`, the array is 1 minus the field. All are 0 where there is no tumour
        and outside tissue, and have to stay 0 there.
        """

    @abstractmethod
    def initial(self, cells: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the fields [C, *grid] of a seed of cells [*grid]."""

    def plans(
        self,
        observed: Mapping[str, NDArray[np.bool_]],
        fields: NDArray[np.float32],
        static_fields: Mapping[str, NDArray[np.float32]],
        affine: NDArray[np.float64],
    ) -> Mapping[str, NDArray[np.bool_]]:
        """Make the plans of `radiotherapy.plans`, from all cells."""
        cells = np.asarray(fields[list(self.cells)].sum(0))
        matter = static_fields["white_matter"] + static_fields["grey_matter"]
        return plans(matter >= LEAST_TISSUE, observed, cells, affine)

    def resolves_front(self, spread: float, growth: float) -> bool:
        """Return whether a front's width sqrt(spread / growth) mm spans the grid's spacing."""
        return bool(spread >= growth * max(self.grid.spacing) ** 2 * (1 - 1e-9))

    def fractions(self) -> NDArray[np.float64]:
        """Return the stored times [T] as parts of the duration."""
        return np.linspace(self.first_time, 1.0, self.stored_steps)

    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        # Nothing here is random: the seed is a parameter.
        parameters = np.asarray(parameters, dtype=np.float64)
        fields = [self.initial(seed(self.tissue, row[-3:])) for row in parameters]
        return self.grow(np.stack(fields), parameters, device)

    def grow(
        self, fields: NDArray[np.float32], parameters: NDArray[np.float64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        """Yield as `solve_batch` does, but from any fields [B, C, *grid] in tissue, not seeds."""
        size = 1 if device == "cpu" else len(parameters)
        parts = [
            self._grow(fields[b : b + size], parameters[b : b + size], device)
            for b in range(0, len(parameters), size)
        ]
        for steps in zip(*parts, strict=True):
            yield steps[0] if len(steps) == 1 else np.concatenate(steps)

    def _grow(
        self, fields: NDArray[np.float32], parameters: NDArray[np.float64], device: str
    ) -> Iterator[NDArray[np.float32]]:
        mask = self.tissue.mask.astype(np.float32)
        fields = fields * mask
        if self.first_time == 0:
            yield fields.copy()
        fields[:, self.filling] = mask - fields[:, self.filling]
        state = _State(self, fields, self.spreads(parameters), device)
        times = self.fractions()
        for start, end in pairwise([0.0, *times[times > 0]]):
            steps = self._steps(parameters, start, end)
            # Half steps of reaction that follow each other are done as one.
            reactions = np.convolve(steps, [0.5, 0.5])
            self.react(state.fields, parameters, reactions[0])
            for step, reaction in zip(steps, reactions[1:], strict=True):
                state.diffuse(step)
                self.react(state.fields, parameters, reaction)
            fields = state.whole()
            fields[:, self.filling] = mask - fields[:, self.filling]
            yield fields

    def _steps(
        self, parameters: NDArray[np.float64], start: float, end: float
    ) -> NDArray[np.float64]:
        """Return the time steps from one stored time to the next."""
        spread = self.spreads(parameters)[:, 0].max()
        longest = min(end - start, self.step / max(self.growths(parameters).max(), self.step))
        steps, time = [], start
        while time < end:
            widened = VARIANCE + 2 * spread * time
            steps.append(min(longest, SPREADING * widened / (2 * spread or 1)))
            time += steps[-1]
        return np.array(steps) * ((end - start) / (time - start))


class _State:
    """The fields of a batch in their windows."""

    def __init__(
        self,
        solver: TumorGrowth,
        fields: NDArray[np.float32],
        spreads: NDArray[np.float64],
        device: str,
    ) -> None:
        """`fields` [B, C, *grid] and the `spreads` [B, fields that diffuse] of their diffusion."""
        self._limits, self._shape = solver.limits, fields.shape
        self._spacing, self._diffusing = np.array(solver.grid.spacing), solver.diffusing
        self._spreads = torch.tensor(spreads, dtype=solver.precision, device=device)
        self._fastest = float(spreads.max())
        self._faces = [
            torch.from_numpy(faces).to(device, solver.precision) for faces in solver.faces
        ]
        whole = torch.from_numpy(fields).to(device, solver.precision)
        shape = fields.shape[2:]
        everything = Windows(np.zeros((len(fields), 3), dtype=np.intp), shape)
        parts = [field.reshape(len(fields), -1) for field in whole.unbind(1)]
        ends = everything.occupied(parts)
        self._windows = windows_around(ends, np.zeros(3, dtype=np.intp), self._limits)
        self.fields = [self._windows.cut(field) for field in whole.unbind(1)]
        self._diffusions = self._operators()

    def diffuse(self, step: float) -> None:
        """Advance diffusion by a time step, in windows wide enough for it."""
        reach = _REACH * math.sqrt(2 * self._fastest * step)
        margin = np.ceil(reach / self._spacing).astype(np.intp) + 1
        ends = self._windows.occupied(self.fields)
        if not self._windows.has_room(ends, margin, self._limits):
            windows = windows_around(ends, margin, self._limits)
            self.fields = [self._windows.moved(field, windows) for field in self.fields]
            self._windows = windows
            self._diffusions = self._operators()
        for channel, diffusion in zip(self._diffusing, self._diffusions, strict=True):
            diffusion.advance(self.fields[channel], step)

    def whole(self) -> NDArray[np.float32]:
        """Return the fields [B, C, *grid]."""
        whole = np.zeros(self._shape, dtype=np.float32)
        for channel, field in enumerate(self.fields):
            self._windows.paste(field.clamp(min=0), whole[:, channel])
        return whole

    def _operators(self) -> list[Diffusion]:
        return [
            Diffusion(faces, spread, self._windows)
            for faces, spread in zip(self._faces, self._spreads.unbind(1), strict=True)
        ]
