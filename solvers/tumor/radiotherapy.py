"""What to irradiate: the standard margin around what a scan shows, or where cells are expected."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from solvers.tumor.atlas import Tissue

# Around the visible tumour: the guideline of ESTRO and EANO, Niyazi et al., Radiother. Oncol. 184
# (2023), which GliODIL compares with too (Balcerak et al., arXiv 2312.05063).
MARGIN = 15.0  # mm


def plans(
    tissue: Tissue, observed: Mapping[str, NDArray[np.bool_]], cells: NDArray[np.float32]
) -> dict[str, NDArray[np.bool_]]:
    """Two regions of tissue [*grid], of as many voxels each; all arguments on its grid.

    - `standard`: what lies within 15 mm of the core, `t1c` of the masks that were `observed`, or of
      `flair` where that is the only one; from voxel centre to voxel centre, so that a margin is
      right to about half a voxel;
    - `model`: the highest densities of `cells`; where densities tie (far out they are 0), what is
      nearer to the core comes first, then what comes first in the array.
    Raises ValueError if what was observed is neither, or empty.
    """
    target = observed.get("t1c", observed.get("flair"))
    if target is None or not target.any():
        raise ValueError("a margin needs a t1c or a flair mask that is not empty")
    distance = ndimage.distance_transform_edt(~target, sampling=tissue.spacing)
    standard = (distance <= MARGIN) & tissue.mask
    inside = np.flatnonzero(tissue.mask)
    # lexsort is stable, and its last key counts first.
    order = np.lexsort((distance.ravel()[inside], -cells.ravel()[inside]))
    model = np.zeros(tissue.mask.shape, dtype=np.bool_)
    model.ravel()[inside[order[: np.count_nonzero(standard)]]] = True
    return {"standard": standard, "model": model}
