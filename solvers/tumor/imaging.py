"""Images of a tumour as a scan takes them, and the quantities that they can tell.

n: tumours.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from solvers.base import Quantity
from solvers.tumor.atlas import Tissue

# Threshold -> its default, its least and its largest value.
Thresholds = Mapping[str, tuple[float, float, float]]


def images(
    living: NDArray[np.float32],
    dead: NDArray[np.float32],
    thresholds: Thresholds,
    settings: Mapping[str, float],
) -> dict[str, NDArray[np.float32] | NDArray[np.bool_]]:
    """Return images of the densities of cells [*grid], as shares of the most that tissue holds.

    `thresholds` are those of three masks; `settings` replace their defaults. The images are:

    - `necrosis`: dead cells above `necrosis`;
    - `t1c`, the core, which takes up contrast agent or is dead: living cells of at least `t1c`, and
      necrosis;
    - `flair`: the core and its oedema, living cells of at least `flair`;
    - `pet`: uptake, proportional to living cells within `flair` but not in `necrosis`, else 0.
    Raises ValueError on an unknown threshold, or one out of its range.
    """
    limit = _limits(thresholds, settings)
    necrosis = dead > limit["necrosis"]
    core = (living >= limit["t1c"]) | necrosis
    flair = (living >= limit["flair"]) | core
    pet = np.where(flair & ~necrosis, living, np.float32(0))
    return {"t1c": core, "flair": flair, "necrosis": necrosis, "pet": pet}


def identifiable(
    tissue: Tissue,
    spread: NDArray[np.float64],
    growth: NDArray[np.float64],
    grown: NDArray[np.float64],
    seeds: NDArray[np.float64],
) -> dict[str, Quantity]:
    """Return the quantities that one scan can tell of diffusivity, growth rate, time and seed.

    `spread` is Dw T in mm2 and `growth` rho T [n], over the whole duration, of which the part
    `grown` [n] is over; `seeds` [n, 3] are shares of the grid's sides. A growing tumour looks the
    same at half the rates after twice the time, so a scan shows sqrt(Dw t), rho t and the
    infiltration length sqrt(Dw / rho), which does not depend on the time. The seed is in the
    scanner's axes: x, y, z in mm, to the right, to the front and up where these are RAS, as in
    NIfTI.
    """
    voxels = seeds * tissue.white.shape - 0.5
    positions = voxels @ tissue.affine[:3, :3].T + tissue.affine[:3, 3]
    return {
        "sqrt_DT": Quantity(np.sqrt(spread * grown), "mm", positive=True),
        "rho_T": Quantity(growth * grown, positive=True),
        "width": Quantity(np.sqrt(spread / growth), "mm", positive=True),
        **{name: Quantity(place, "mm") for name, place in zip("xyz", positions.T, strict=True)},
    }


def _limits(thresholds: Thresholds, settings: Mapping[str, float]) -> dict[str, np.float32]:
    """Return the thresholds in the type of the fields, so that an equal density reaches them."""
    limits = {name: np.float32(default) for name, (default, _, _) in thresholds.items()}
    for name, value in settings.items():
        if name not in thresholds:
            raise ValueError(
                f"{name} is not a threshold of the imaging model, which has {', '.join(limits)}"
            )
        _, low, high = thresholds[name]
        if not low <= value <= high:
            raise ValueError(f"the threshold {name} is {value:g}: it must be in [{low}, {high}]")
        limits[name] = np.float32(value)
    return limits
