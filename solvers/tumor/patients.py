"""Names of a tumour's regions in segmentations of patients, and the spaces of these images."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from solvers.base import Convention

# The regions that make up each mask of `imaging.images` that segmentations are compared with.
REGIONS: Mapping[str, tuple[str, ...]] = {"t1c": ("core",), "flair": ("core", "oedema")}
# Core: necrotic, non-enhancing and enhancing. BraTS gives the enhancing part 4, since 2023 3.
_BRATS = Convention({"core": (1, 4), "oedema": (2,)}, "sri24")
CONVENTIONS: Mapping[str, Convention] = {
    "brats2018": _BRATS,
    "brats2021": _BRATS,
    "brats2023": Convention({"core": (1, 3), "oedema": (2,)}, "sri24"),
    "gliodil": Convention({"core": (1, 4), "oedema": (3,)}),
}
# From positions in SRI24 as BraTS has it (240x240x155 voxels of 1 mm, x from -239 to 0 mm, y from 0
# to 239, z from 0 to 154) to those in MNI152, both in mm, RAS. Found by tools/register_sri24.py;
# docs/explanation/patient_spaces.md says how well it fits. Brains become a third larger in volume,
# as MNI152 is large.
SRI24_TO_MNI152: NDArray[np.float64] = np.array(
    [
        [1.086651, 0.008929, 0.006195, 127.807955],
        [0.012687, 1.025077, 0.222689, -143.139316],
        [0.004964, -0.229370, 1.147016, -53.303801],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
