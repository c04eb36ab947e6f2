"""What a scan would show of a tumour: masks of the cell density, and a PET image."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

# Threshold -> its default, and between which values it is published to lie.
THRESHOLDS = {
    "t1c": (0.6, 0.5, 0.85),
    "flair": (0.2, 0.05, 0.5),
    "necrosis": (0.95, 0.85, 1.0),
}


def thresholds(settings: Mapping[str, float]) -> dict[str, float]:
    """The settings, with defaults for those not named. Raises ValueError if one is not possible."""
    values = {name: default for name, (default, _, _) in THRESHOLDS.items()}
    for name, value in settings.items():
        if name not in THRESHOLDS:
            raise ValueError(
                f"{name} is not a threshold of the imaging model, which has {', '.join(values)}"
            )
        _, low, high = THRESHOLDS[name]
        if not low <= value <= high:
            raise ValueError(f"the threshold {name} is {value:g}: it must be in [{low}, {high}]")
        values[name] = float(value)
    return values


def images(
    cells: NDArray[np.float32], settings: Mapping[str, float]
) -> dict[str, NDArray[np.float32] | NDArray[np.bool_]]:
    """Images of the cell density [*grid], a share of the most that tissue can hold.

    - `t1c`: the core, which takes up contrast agent or is dead: density of at least `t1c` (0.6,
      published 0.5-0.85);
    - `flair`: core and oedema: at least `flair` (0.2, published 0.05-0.5);
    - `necrosis`: dead for want of nutrients: above `necrosis` (0.95);
    - `pet`: uptake by living cells, proportional to the density where it is at least `flair` and
      not dead, else 0.
    """
    limit = thresholds(settings)
    core, flair = cells >= limit["t1c"], cells >= limit["flair"]
    necrosis = cells > limit["necrosis"]
    pet = np.where(flair & ~necrosis, cells, np.float32(0))
    return {"t1c": core, "flair": flair, "necrosis": necrosis, "pet": pet}
