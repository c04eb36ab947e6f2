"""Tissue on a grid: the shares of white and grey matter in every voxel.

Axes are those of the maps' files; positions in mm follow from the affine.
"""

import importlib.util
import math
import os
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from solvers.limits import require_memory

if TYPE_CHECKING:
    import nibabel

# A voxel with less white and grey matter than this share is no tissue.
LEAST_TISSUE = 0.1
# About how many arrays of the grid's size, in single precision, a simulation of three fields needs
# at once.
_ARRAYS = 25


@dataclass(frozen=True)
class Tissue:
    """The shares of white and grey matter [*grid], each between 0 and 1."""

    white: NDArray[np.float32]
    grey: NDArray[np.float32]
    spacing: tuple[float, float, float]  # mm
    affine: NDArray[np.float64]  # grid indices to positions in mm [4, 4]

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """The voxels that are tissue [*grid]."""
        return self.white + self.grey >= LEAST_TISSUE


def load_tissue(white: str | None, grey: str | None, grid_size: int | None) -> Tissue:
    """Load the maps in the NIfTI files `white` and `grey`, or MNI152's if both are None.

    They are put in the middle of a cube with the side of their longest axis, which is cut into
    `grid_size` voxels along each axis; each voxel has the mean over its volume. With None for
    `grid_size` the maps stay on their own grid. Raises ValueError if they cannot be used.
    """
    if (white is None) != (grey is None):
        missing = "white" if white is None else "grey"
        raise ValueError(f"{missing} is missing: give maps of both white and grey matter, or none")
    if grid_size is not None:
        _require_memory((grid_size,) * 3)
    maps = tuple((path, _changed(path)) for path in (white, grey) if path is not None)
    return _load(maps, grid_size)


@lru_cache(maxsize=4)
def _load(maps: tuple[tuple[str, int], ...], grid_size: int | None) -> Tissue:
    """Load maps; `maps` has files and times of change, so that equal calls are cached.

    A study makes its solver several times.
    """
    paths = [path for path, _ in maps]
    tissue = _read_maps(*paths) if paths else _mni152()
    if grid_size is not None:
        tissue = resample(tissue, grid_size)
    if not tissue.mask.any():
        raise ValueError(
            f"{' and '.join(paths)} hold no tissue: in no voxel do white and grey matter add up to "
            f"{LEAST_TISSUE} or more"
        )
    return tissue


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError as error:
        raise ValueError(
            f"{path} does not exist: it has to be a tissue map in NIfTI ({error.strerror})"
        ) from None


def _require_memory(shape: tuple[int, ...]) -> None:
    require_memory("grid_size", shape, _ARRAYS * math.prod(shape) // 2)


def resample(tissue: Tissue, grid_size: int) -> Tissue:
    """Return the tissue on `grid_size` voxels along each axis of a cube around its middle.

    Every voxel has the exact mean of the old ones over its volume (0 outside them), so volumes of
    tissue are kept whether the grid becomes coarser or finer.
    """
    lengths = np.multiply(tissue.white.shape, tissue.spacing)
    side = float(lengths.max())
    step = side / grid_size
    before = (side - lengths) / 2  # how much of the cube lies before the maps, mm
    white, grey = tissue.white, tissue.grey
    for axis in range(3):
        old = np.arange(white.shape[axis] + 1) * tissue.spacing[axis]
        new = np.arange(grid_size + 1) * step - before[axis]
        shared = np.minimum(new[1:, None], old[1:]) - np.maximum(new[:-1, None], old[:-1])
        weights = (np.maximum(shared, 0) / step).astype(np.float32)  # [new, old]
        white, grey = (
            np.moveaxis(np.tensordot(weights, part, (1, axis)), 0, axis) for part in (white, grey)
        )
    # Index i of the new grid is the middle of its voxel, as it is in the old one.
    scale = step / np.array(tissue.spacing)
    to_old = np.diag([*scale, 1.0])
    to_old[:3, 3] = (scale - 1) / 2 - before / tissue.spacing
    white, grey = (np.ascontiguousarray(part.clip(0, 1)) for part in (white, grey))
    return Tissue(white, grey, (step, step, step), tissue.affine @ to_old)


def _mni152() -> Tissue:
    """Return MNI152 (2009a, 1 mm) as nilearn bundles it.

    Its files are opened directly: importing nilearn takes seconds, in every solver's process.
    """
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise ValueError("the MNI152 atlas comes with nilearn, which is not installed")
    data = Path(spec.origin).parent / "datasets" / "data"
    name = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
    images = [_open(str(data / name.format(kind))) for kind in ("wm", "gm")]
    white, grey = (np.asarray(image.dataobj, dtype=np.float32) for image in images)
    return Tissue(white / white.max(), grey / grey.max(), (1.0, 1.0, 1.0), images[0].affine)


def _read_maps(white: str, grey: str) -> Tissue:
    images = [_open(white), _open(grey)]
    shapes = [image.shape for image in images]
    if len(shapes[0]) != 3 or shapes[0] != shapes[1]:
        raise ValueError(
            f"{white} has the shape {shapes[0]} and {grey} has {shapes[1]}: both maps have to be "
            "three-dimensional and of the same shape"
        )
    affine = np.asarray(images[0].affine, dtype=np.float64)
    if not np.allclose(affine, images[1].affine, atol=1e-3):
        raise ValueError(
            f"{white} and {grey} have different affines, {affine.tolist()} and "
            f"{images[1].affine.tolist()}: resample one of them to the grid of the other"
        )
    _require_memory(shapes[0])
    units, _ = images[0].header.get_xyzt_units()  # type: ignore[no-untyped-call]
    _check_axes(white, affine, units)
    spacing = tuple(float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))
    shares = []
    for path, image in zip((white, grey), images, strict=True):
        values = _values(path, image)
        if not (values.min() >= -1e-3 and values.max() <= 1 + 1e-3):  # nor with a NaN
            raise ValueError(
                f"{path} has values from {values.min():g} to {values.max():g}: a tissue map has "
                "to hold shares between 0 and 1"
            )
        shares.append(values.clip(0, 1))
    return Tissue(shares[0], shares[1], (spacing[0], spacing[1], spacing[2]), affine)


def _check_axes(path: str, affine: NDArray[np.float64], units: str) -> None:
    """Raise ValueError unless the axes are perpendicular, and their lengths in mm."""
    if units not in ("mm", "unknown"):
        raise ValueError(f"{path} has its positions in {units}: they have to be in mm")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / np.where(lengths > 0, lengths, 1)
    if not (np.isfinite(affine).all() and np.allclose(axes.T @ axes, np.eye(3), atol=1e-3)):
        raise ValueError(
            f"{path} has the affine {affine.tolist()}, whose axes are not perpendicular: resample "
            "the map to a grid whose axes are"
        )


def _values(path: str, image: "nibabel.Nifti1Image") -> NDArray[np.float32]:
    dtype = image.get_data_dtype()  # type: ignore[no-untyped-call]
    if dtype.kind not in "iufb":
        raise ValueError(f"{path} holds {dtype}: a tissue map has to hold numbers")
    try:
        return np.asarray(image.dataobj, dtype=np.float32)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _open(path: str) -> "nibabel.Nifti1Image":
    try:
        import nibabel  # not where solvers run without the rest of Millstream
    except ImportError:
        raise ValueError(f"{path} is NIfTI, and nibabel, which reads it, is not here") from None
    try:
        image = nibabel.load(path)
    except (
        nibabel.filebasedimages.ImageFileError,
        nibabel.spatialimages.HeaderDataError,
        OSError,
        EOFError,
        zlib.error,
    ) as error:
        raise ValueError(f"{path} cannot be read as NIfTI: {error}") from None
    if not isinstance(image, nibabel.Nifti1Image):
        raise ValueError(f"{path} is not NIfTI: a tissue map has to be")
    return image
