"""Fisher-Kolmogorov growth of a glioma in brain tissue."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Le
from numpy.typing import NDArray

from solvers.base import Field, ParameterSpace, Quantity
from solvers.tumor.growth import TumorGrowth
from solvers.tumor.imaging import identifiable, images
from solvers.tumor.prior import FILTERED, PUBLISHED, SEED, FilteredSpace, SeededSpace

# Cells move ten times more slowly in grey matter than in white.
GREY_MOBILITY = 0.1
# Thresholds of the images: the default, and the range, published for t1c and flair.
THRESHOLDS = {"t1c": (0.6, 0.5, 0.85), "flair": (0.2, 0.05, 0.5), "necrosis": (0.95, 0.85, 1.0)}
# The thresholds that a look-up tries.
TRIED = {"t1c": (0.5, 0.6, 0.7, 0.8, 0.85), "flair": (0.05, 0.1, 0.2, 0.35, 0.5)}


class FisherKolmogorov(TumorGrowth):
    """dc/dt = div(D grad c) + rho c (1 - c), D = Dw (p_white + p_grey / 10), in brain tissue.

    Channel: cell density c, the share of the most cells that tissue can hold, from 0 to 1. Tissue
    is where p_white + p_grey >= 0.1, the shares of white and grey matter in a voxel; nothing flows
    out of it, nothing grows outside it. The tumour starts as a small sphere (see `seed.py`).

    Parameters with `prior: published`: diffusivity in white matter `Dw` 0.0002-0.015 cm2/day,
    growth rate `rho` 0.002-0.2 1/day, duration `T` 50-1500 days, and the seed's position `x`, `y`,
    `z` as shares of the grid's sides, all uniform; times are in days. Most of these tumours are too
    small, too large, or have a front sqrt(Dw / rho) that the grid does not resolve, which
    `resolved` says. With `prior: filtered`: `sqrt_DT` = sqrt(Dw T) in mm, `rho_T` = rho T and the
    seed, which is all that one scan can tell; every tumour is of plausible size and resolved
    (see `FilteredSpace`), and times are parts of T. Seeds always lie in tissue, evenly.

    A front moves at 2 sqrt(D rho), slower in the beginning. Good values: Dw 0.005 cm2/day (0.5
    mm2/day), rho 0.05 1/day, T 200 days, which is sqrt_DT 10 mm, rho_T 10. Lengths in mm.
    Reference: Swanson, Alvord and Murray, Cell Prolif. 33 (2000); for the priors and the thresholds
    Ezhov et al., Med. Image Anal. 83 (2023).

    Scheme: finite volumes with the mean of two voxels' diffusivity at their face (second order in
    space); for time and stability see `TumorGrowth`. The reaction is solved exactly.
    """

    parameters: ParameterSpace = ParameterSpace(*FILTERED, *SEED)
    fields = (Field("cells"),)
    grid_settings = ("grid_size",)
    masks = TRIED

    def __init__(
        self,
        grid_size: Annotated[int, Ge(8)] | None = 64,
        white: str | None = None,
        grey: str | None = None,
        prior: Literal["filtered", "published"] = "filtered",
        stored_steps: Annotated[int, Ge(2)] = 11,
        step: Annotated[float, Ge(1e-3)] = 0.75,
        first_time: Annotated[float, Ge(0), Le(0.99)] = 0.0,
    ) -> None:
        """The settings of the grid, the tissue, the prior and the time steps.

        `grid_size` voxels along each side of a cube around the MNI152 atlas, or around the maps of
        `white` and `grey` matter in NIfTI files; with null the maps' own grid. `stored_steps` times
        from `first_time`, a part of T, to T; at 0 there is only the seed. `step` is the largest
        growth rho dt in a time step: with 0.75 a front is about 1 % slower than with very short
        time steps; with 0.25 it is not slower, but the run takes twice the time.
        """
        super().__init__(grid_size, white, grey, stored_steps, step, first_time)
        self._published = prior == "published"
        if self._published:
            self.parameters = SeededSpace(self.tissue.mask, *PUBLISHED, *SEED)
            self.time_units = "day"
        else:
            self.parameters = FilteredSpace(
                self.tissue.mask, max(self.grid.spacing), *FILTERED, *SEED
            )
            self.time_units = "T"

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.fractions() * (parameters[2] if self._published else 1.0)

    def resolved(self, parameters: NDArray[np.float64]) -> bool:
        """Return whether the front's width sqrt(Dw / rho) is at least the grid's spacing."""
        (spread,), (growth,) = self.spreads(parameters[None])[0], self.growths(parameters[None])
        return self.resolves_front(spread, growth)

    def observe(
        self, fields: NDArray[np.float32], **settings: float
    ) -> Mapping[str, NDArray[np.float32] | NDArray[np.bool_]]:
        """Return masks and a PET image, see `imaging.images`.

        Thresholds: `t1c` 0.6 (published 0.5-0.85), `flair` 0.2 (0.05-0.5); cells above `necrosis`
        0.95 count as dead.
        """
        return images(fields[0], fields[0], THRESHOLDS, settings)

    def identifiable(
        self, parameters: NDArray[np.float64], t: NDArray[np.float64]
    ) -> Mapping[str, Quantity]:
        """Return sqrt_DT, rho_T, width, and the seed x, y, z in mm, see `imaging.identifiable`."""
        grown = t / parameters[:, 2] if self._published else t
        spread, growth = self.spreads(parameters)[:, 0], self.growths(parameters)
        return identifiable(self.tissue, spread, growth, grown, parameters[:, -3:])

    def spreads(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._published:
            return (100 * parameters[:, 0] * parameters[:, 2])[:, None]  # cm2 to mm2
        return parameters[:, :1] ** 2

    def growths(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        growths: NDArray[np.float64] = parameters[:, 1]
        return growths * parameters[:, 2] if self._published else growths

    def mobilities(self) -> Sequence[NDArray[np.float32]]:
        return [self.tissue.white + np.float32(GREY_MOBILITY) * self.tissue.grey]

    def initial(self, cells: NDArray[np.float32]) -> NDArray[np.float32]:
        return cells[None]

    def react(
        self, fields: Sequence[torch.Tensor], parameters: NDArray[np.float64], step: float
    ) -> None:
        """Advance c' = rho c (1 - c) exactly: c grows by e = exp(rho dt) over 1 + c (e - 1)."""
        (c,) = fields
        growth = torch.tensor(self.growths(parameters) * step, dtype=c.dtype, device=c.device)
        excess = torch.expm1(growth)[:, None]
        c.clamp_(min=0)
        slowed = torch.addcmul(torch.ones_like(excess), c, excess)
        c.mul_(excess + 1).div_(slowed)
