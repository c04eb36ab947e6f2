"""Proliferating and necrotic cells of a glioma, and the nutrient that decides between them."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from numpy.typing import NDArray

from solvers.base import Field, Parameter, ParameterSpace, Quantity
from solvers.tumor.fisher_kolmogorov import GREY_MOBILITY
from solvers.tumor.growth import TumorGrowth
from solvers.tumor.imaging import identifiable, images
from solvers.tumor.prior import FILTERED, SEED, FilteredSpace

NUTRIENT = (
    Parameter("death", 0.3, 3.0, "1", "log_uniform", minimum=0.0),
    Parameter("hypoxia", 0.05, 0.7, "1", minimum=0.0),
    Parameter("supply", 0.3, 3.0, "1", "log_uniform", minimum=0.0),
    Parameter("uptake", 0.3, 3.0, "1", "log_uniform", minimum=0.0),
)
# Thresholds of the images: the default, and the range from which TumorGrowthToolkit draws.
THRESHOLDS = {"t1c": (0.4, 0.25, 0.6), "flair": (0.15, 0.12, 0.2), "necrosis": (0.1, 0.05, 0.2)}
# The thresholds that a look-up tries.
TRIED = {"t1c": (0.25, 0.3, 0.4, 0.5, 0.6), "flair": (0.12, 0.15, 0.2)}
# How sharply cells begin to die as the nutrient falls below the threshold.
_SHARPNESS = 50.0


class TwoSpecies(TumorGrowth):
    """dp/dt = div(D grad p) + rho s p (1 - p - n) - lambda h(s) p, dn/dt = lambda h(s) p.

    Channels: proliferating cells p, necrotic cells n, both as shares of the most cells that tissue
    can hold, and the nutrient s, 1 where nobody takes it up. It diffuses within tissue and is taken
    up: ds/dt = D_s div((p_white + p_grey) grad s) - lambda_s s p. Cells die where it falls below
    sigma, h(s) = 1 / (1 + exp(50 (s - sigma))). D = Dw p_white + Dw p_grey / 10; tissue, seed and
    what flows out of tissue (nothing) are as in `FisherKolmogorov`; s is 0 outside tissue.

    Parameters: `sqrt_DT` = sqrt(Dw T) in mm, `rho_T` = rho T and the seed `x`, `y`, `z` as there,
    with the prior of plausible sizes (estimated without death); `death` = lambda / rho, `supply` =
    D_s / Dw and `uptake` = lambda_s / rho, all log-uniform in 0.3-3, and `hypoxia` = sigma in
    0.05-0.7; about half of the draws have necrosis. Times are parts of T. Good values: sqrt_DT 12
    mm, rho_T 10, death 1, hypoxia 0.5, supply 1, uptake 0.5: with rho = 0.1 1/day that is T 100
    days, Dw 1.4 mm2/day, lambda 0.1 1/day, lambda_s 0.05 1/day.
    As the nutrient runs out, growth stops and the middle dies.
    Reference: the model of TumorGrowthToolkit and GliODIL (Balcerak et al., arXiv 2312.05063),
    there with diffusion closed where p + n > 0.9, which we leave open.

    Scheme: as in `TumorGrowth`, p and s diffusing. The reaction is split again, symmetrically, into
    growth, death and uptake, each solved exactly with the others' fields held: second order, no
    density becomes negative, and death keeps p + n.
    """

    parameters: ParameterSpace = ParameterSpace(*FILTERED, *NUTRIENT, *SEED)
    fields = (Field("proliferating"), Field("necrotic"), Field("nutrient"))
    grid_settings = ("grid_size",)
    time_units = "T"
    masks = TRIED
    cells = (0, 1)
    diffusing = (0, 2)
    filling = (2,)

    def __init__(
        self,
        grid_size: Annotated[int, Ge(8)] | None = 64,
        white: str | None = None,
        grey: str | None = None,
        stored_steps: Annotated[int, Ge(2)] = 11,
        step: Annotated[float, Ge(1e-3)] = 0.75,
        first_time: Annotated[float, Ge(0), Le(0.99)] = 0.0,
    ) -> None:
        """Settings as those of `FisherKolmogorov`; `step` limits death and uptake too."""
        super().__init__(grid_size, white, grey, stored_steps, step, first_time)
        spacing = max(self.grid.spacing)
        self.parameters = FilteredSpace(self.tissue.mask, spacing, *FILTERED, *NUTRIENT, *SEED)

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.fractions()

    def resolved(self, parameters: NDArray[np.float64]) -> bool:
        """Return whether the front's width sqrt(Dw / rho) is at least the grid's spacing."""
        return self.resolves_front(parameters[0] ** 2, parameters[1])

    def observe(
        self, fields: NDArray[np.float32], **settings: float
    ) -> Mapping[str, NDArray[np.float32] | NDArray[np.bool_]]:
        """Return masks and a PET image, see `imaging.images`.

        Thresholds: `t1c` 0.4 (0.25-0.6) and `flair` 0.15 (0.12-0.2) of p, `necrosis` 0.1 (0.05-0.2)
        of n.
        """
        return images(fields[0], fields[1], THRESHOLDS, settings)

    def identifiable(
        self, parameters: NDArray[np.float64], t: NDArray[np.float64]
    ) -> Mapping[str, Quantity]:
        """Return sqrt_DT, rho_T, width, and the seed x, y, z in mm, see `imaging.identifiable`.

        Death, hypoxia, supply and uptake hardly show in two masks.
        """
        spread, growth = self.spreads(parameters)[:, 0], parameters[:, 1]
        return identifiable(self.tissue, spread, growth, t, parameters[:, -3:])

    def spreads(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        spread = parameters[:, 0] ** 2
        return np.stack([spread, spread * parameters[:, 4]], 1)

    def growths(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        fastest = np.maximum(1.0, np.maximum(parameters[:, 2], parameters[:, 5]))
        growths: NDArray[np.float64] = parameters[:, 1] * fastest
        return growths

    def mobilities(self) -> Sequence[NDArray[np.float32]]:
        white, grey = self.tissue.white, self.tissue.grey
        return [white + np.float32(GREY_MOBILITY) * grey, white + grey]

    def initial(self, cells: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.stack([cells, np.zeros_like(cells), self.tissue.mask.astype(np.float32)])

    def react(
        self, fields: Sequence[torch.Tensor], parameters: NDArray[np.float64], step: float
    ) -> None:
        """Advance growth, death, uptake, death, growth; `missing` is 1 - s."""
        p, n, missing = fields
        values = torch.tensor(parameters, dtype=p.dtype, device=p.device)[:, :, None]
        _, rho, death, hypoxia, _, uptake, *_ = values.unbind(1)  # [B, 1] each
        p.clamp_(min=0)
        missing.clamp_(min=0)
        rate = rho * step
        _grow(p, n, (1 - missing) * (rate / 2))
        _die(p, n, torch.sigmoid(_SHARPNESS * (missing - 1 + hypoxia)) * (rate * death / 2))
        missing.add_(-torch.expm1(-rate * uptake * p) * (1 - missing))
        _die(p, n, torch.sigmoid(_SHARPNESS * (missing - 1 + hypoxia)) * (rate * death / 2))
        _grow(p, n, (1 - missing) * (rate / 2))


def _grow(p: torch.Tensor, n: torch.Tensor, rate: torch.Tensor) -> None:
    """Advance p' = rate p (1 - p - n) over a time of 1, n held: logistic growth up to 1 - n."""
    most = (1 - n).clamp_(min=0)
    # With e = exp(rate most): p e / (1 + p (e - 1) / most), where most may be 0.
    excess = torch.expm1(rate * most)
    slowed = torch.where(most > 1e-6, excess / most.clamp(min=1e-6), rate).mul_(p).add_(1)
    p.mul_(excess.add_(1)).div_(slowed)


def _die(p: torch.Tensor, n: torch.Tensor, rate: torch.Tensor) -> None:
    """Advance p' = -rate p, n' = rate p over a time of 1."""
    dying = -torch.expm1(-rate) * p
    p.sub_(dying)
    n.add_(dying)
