"""Files of patients: images in NIfTI, and affines between spaces as text.

*image: the three axes of an image.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from framework.errors import StudyError, reason

# How far from a whole number a label may be: scaled integers are stored inexactly.
_EXACT = 1e-3
# NIfTI's codes for mm, and for an unknown unit.
_MILLIMETRES = (2, 0)


@dataclass(frozen=True)
class Volume:
    """An image of a patient."""

    path: Path
    values: NDArray[Any]  # [*image]
    affine: NDArray[np.float64]  # from its indices to positions in mm, RAS [4, 4]
    code: int  # NIfTI's code for the space of the positions

    @property
    def voxel(self) -> float:
        """The volume of a voxel in ml."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000


def read_volume(path: Path) -> Volume:
    """Read a finite, three-dimensional image with known positions. Raises StudyError."""
    image = _open_image(path)
    shape = image.shape
    if len(shape) < 3 or any(length != 1 for length in shape[3:]):
        raise StudyError(
            f"{path} has {len(shape)} dimensions, {shape}: give a three-dimensional image"
        )
    affine, code = _positions(path, image)
    dtype = image.get_data_dtype()  # type: ignore[no-untyped-call]
    if dtype.kind not in "iufb":
        raise StudyError(f"{path} holds {dtype}: a segmentation has to hold numbers")
    try:
        values = np.asarray(image.dataobj).reshape(shape[:3])
    except (OSError, EOFError, ValueError, OverflowError, MemoryError, zlib.error) as error:
        raise StudyError(
            f"{path} is damaged or cut short, its voxels cannot be read: {reason(error)}"
        ) from None
    wrong = np.count_nonzero(~np.isfinite(values))
    if wrong:
        raise StudyError(f"{path} has {wrong} voxels that are not finite numbers")
    return Volume(path, values, affine, code)


def mask_of(volume: Volume) -> NDArray[np.bool_]:
    """Return the mask [*image] in a volume. Raises StudyError if it is no mask, or empty."""
    # Without np.abs, which leaves the least integer of a type negative.
    mask: NDArray[np.bool_] = (volume.values > _EXACT) | (volume.values < -_EXACT)
    if not mask.any():
        raise StudyError(f"{volume.path} is empty: none of its voxels is inside the mask")
    inside = volume.values[mask]
    if float(inside.max()) - float(inside.min()) > _EXACT:
        some = ", ".join(f"{value:g}" for value in np.unique(inside)[:6])
        raise StudyError(
            f"{volume.path} has several values besides 0, {some}: a mask has one; if these are "
            "labels, give the file as labels and name their convention"
        )
    return mask


def labels_of(volume: Volume) -> NDArray[np.int64]:
    """Return the labels [*image] in a volume. Raises StudyError if they are not whole numbers."""
    with np.errstate(invalid="ignore"):  # values too large are found below
        labels: NDArray[np.int64] = np.rint(volume.values).astype(np.int64)
    off = np.abs(volume.values - labels) > _EXACT
    if off.any():
        raise StudyError(
            f"{volume.path} has the value {volume.values[off][0]:g}, and labels are whole numbers: "
            "was it resampled other than by the nearest neighbour?"
        )
    return labels


def image_of(
    values: NDArray[np.generic], affine: NDArray[np.float64], code: int
) -> nibabel.Nifti1Image:
    """Make an image of values or of a mask [*image], with `affine` and `code` as in `Volume`."""
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    header = nibabel.Nifti1Header()  # type: ignore[no-untyped-call]
    header.set_data_dtype(values.dtype)  # type: ignore[no-untyped-call]
    header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
    image = nibabel.Nifti1Image(values, affine, header)  # type: ignore[no-untyped-call]
    image.set_sform(affine, code)  # type: ignore[no-untyped-call]
    image.set_qform(affine, code)  # type: ignore[no-untyped-call]
    return image


def read_affine(path: Path) -> NDArray[np.float64]:
    """Read the four rows of an affine [4, 4] from a text file. Raises StudyError."""
    try:
        lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
        affine = np.array(lines if {*map(len, lines)} == {4} else [], dtype=np.float64)
    except (OSError, ValueError) as error:
        raise StudyError(f"{path} cannot be read as an affine: {reason(error)}") from None
    right = affine.shape == (4, 4) and np.array_equal(affine[3], [0, 0, 0, 1])
    if not (right and np.isfinite(affine).all() and abs(np.linalg.det(affine)) > 1e-6):
        raise StudyError(
            f"{path} is not an affine: it has to be four rows of four numbers, the last of them "
            "0 0 0 1, that can be inverted"
        )
    return affine


def _open_image(path: Path) -> nibabel.Nifti1Image:
    try:
        image = nibabel.load(path)
    except (
        nibabel.filebasedimages.ImageFileError,
        nibabel.spatialimages.HeaderDataError,
        OSError,
        EOFError,
        ValueError,
        OverflowError,
        zlib.error,
    ) as error:
        raise StudyError(f"{path} cannot be read as NIfTI: {reason(error)}") from None
    if not isinstance(image, nibabel.Nifti1Image):
        raise StudyError(f"{path} is not NIfTI: segmentations have to be .nii or .nii.gz")
    return image


def _positions(path: Path, image: nibabel.Nifti1Image) -> tuple[NDArray[np.float64], int]:
    """Return the affine of an image and its code. Raises StudyError if they are not usable."""
    header = image.header
    code = int(header["sform_code"]) or int(header["qform_code"])
    if not code:
        raise StudyError(
            f"{path} does not say where its voxels lie: its sform and qform have no code"
        )
    units = int(header["xyzt_units"]) & 7  # the other bits are the unit of time
    if units not in _MILLIMETRES:
        name = {1: "metres", 3: "micrometres"}.get(units, f"a unit of the unknown number {units}")
        raise StudyError(f"{path} has its positions in {name}: they have to be in mm")
    affine = np.asarray(image.affine, dtype=np.float64)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / np.where(lengths > 0, lengths, 1)
    if not (np.isfinite(affine).all() and np.allclose(axes.T @ axes, np.eye(3), atol=1e-3)):
        raise StudyError(
            f"{path} has the affine {affine.tolist()}, whose axes are not perpendicular: resample "
            "the image to a grid whose axes are"
        )
    return affine, code
