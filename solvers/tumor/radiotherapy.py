"""Plans of radiotherapy: the standard margin around a tumour, and where cells are expected.

n: voxels of tissue.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

# Around the visible tumour: the guideline of ESTRO and EANO, Niyazi et al., Radiother. Oncol. 184
# (2023), which GliODIL compares with too (Balcerak et al., arXiv 2312.05063).
MARGIN = 15.0  # mm


def plans(
    tissue: NDArray[np.bool_],
    observed: Mapping[str, NDArray[np.bool_]],
    cells: NDArray[np.float32],
    affine: NDArray[np.float64],
) -> dict[str, NDArray[np.bool_]]:
    """Make two regions of `tissue` with equally many voxels; all arrays are [*image].

    - `standard`: tissue within 15 mm of the core, the mask `t1c` of those `observed`, or of `flair`
      if that is the only one;
    - `model`: the highest densities of `cells`; where densities tie (far out they are 0), voxels
      nearer to the core come first, then those earlier in the array.

    Distances are those between centres of voxels in the patient's space, where `affine` [4, 4] puts
    the image's indices, so that a margin is right to half a voxel.
    Raises ValueError if neither mask was observed, or the one used is empty.
    """
    target = observed.get("t1c", observed.get("flair"))
    if target is None or not target.any():
        raise ValueError("a margin needs a t1c or a flair mask that is not empty")
    distances = _distances(tissue, target, affine)
    volume = np.count_nonzero(distances <= MARGIN)
    # lexsort is stable, and its last key counts first.
    order = np.lexsort((distances, -cells[tissue]))
    return {
        "standard": _region(tissue, distances <= MARGIN),
        "model": _region(tissue, np.argsort(order) < volume),
    }


def _distances(
    tissue: NDArray[np.bool_], target: NDArray[np.bool_], affine: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distance of every voxel of tissue from the target [n], in mm; 0 within it."""
    surface = target & ~ndimage.binary_erosion(target)
    tree = KDTree(np.argwhere(surface) @ affine[:3, :3].T)
    distances: NDArray[np.float64] = tree.query(np.argwhere(tissue) @ affine[:3, :3].T)[0]
    return np.where(target[tissue], 0.0, distances)


def _region(tissue: NDArray[np.bool_], part: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask [*image] of a part [n] of the tissue."""
    region = np.zeros_like(tissue)
    region[tissue] = part
    return region
