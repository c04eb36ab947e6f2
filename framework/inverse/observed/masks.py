"""Segmentations of a patient in NIfTI, brought to the solver's grid, and back.

The user names what the labels of a segmentation mean and where its space lies; it is never guessed.
*image: the axes of the patient's image; *grid: those of the solver.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from framework.errors import StudyError
from framework.inverse.observed.nifti import (
    Volume,
    image_of,
    labels_of,
    mask_of,
    read_affine,
    read_volume,
)
from framework.inverse.observed.space import Affine, apply, from_grid, inverse, to_grid
from solvers.base import ImagedSolver

# The name of the space of the solver's own positions.
OWN = "own"
# Shares of a mask outside the grid, or outside what static fields cover: above the first there is a
# warning, above the second an error.
_OUTSIDE, _TOO_FAR = 0.1, 0.5

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class MaskObservation:
    """Masks by name on the solver's grid, and the images that they come from."""

    masks: Mapping[str, Mask]  # [*grid]
    images: Mapping[str, Mask]  # the masks as they were given [*image]
    image_affine: Affine  # indices of the image to the patient's positions in mm
    image_code: int  # NIfTI's code for the space of these positions
    affine: Affine  # indices of the grid to the patient's positions in mm
    warnings: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the patient's image."""
        return next(iter(self.images.values())).shape

    @property
    def volumes(self) -> dict[str, float]:
        """The volume of every mask in the patient's image, in ml."""
        voxel = float(abs(np.linalg.det(self.image_affine[:3, :3]))) / 1000
        return {name: int(mask.sum()) * voxel for name, mask in self.images.items()}


def read_masks(
    solver: ImagedSolver,
    files: Mapping[str, Path],
    space: str | None = None,
    affine: Path | None = None,
) -> MaskObservation:
    """Read masks from files, one per mask, by the names of `solver.masks`.

    Positions lie in `space`, one of `solver.spaces`; or the file `affine` maps them to the solver's
    (see `nifti.read_affine`); or, with neither or with `OWN`, they are the solver's. Raises
    StudyError.
    """
    unknown = [name for name in files if name not in solver.masks]
    if unknown or not files:
        raise StudyError(
            f"masks are given for {', '.join(unknown) or 'nothing'}: this solver is compared with "
            f"{', '.join(solver.masks)}"
        )
    volumes = {name: read_volume(files[name]) for name in solver.masks if name in files}
    first, *others = volumes.values()
    for other in others:
        if other.values.shape != first.values.shape or not np.allclose(
            other.affine, first.affine, atol=1e-3
        ):
            raise StudyError(
                f"{other.path} has another grid than {first.path}, {other.values.shape} voxels "
                f"with the affine {other.affine.tolist()} against {first.values.shape} with "
                f"{first.affine.tolist()}: resample one of them to the grid of the other"
            )
    images = {name: mask_of(volume) for name, volume in volumes.items()}
    return _on_grid(solver, first, images, _grid_to_patient(solver, space, affine), ())


def read_labels(
    solver: ImagedSolver,
    file: Path,
    labels: str | Mapping[str, tuple[int, ...]],
    space: str | None = None,
    affine: Path | None = None,
) -> MaskObservation:
    """Read one file of labels; `labels` says what they mean.

    `labels` is the name of a convention, one of `solver.conventions`, or the labels of some regions
    of `solver.regions`. The masks are those whose regions are all known. Positions are as in
    `read_masks`, but with neither `space` nor `affine` they lie in the convention's space. Raises
    StudyError.
    """
    warnings: tuple[str, ...] = ()
    if isinstance(labels, str):
        if labels not in solver.conventions:
            raise StudyError(
                f"{labels} is not a convention of labels that this solver knows, which are "
                f"{', '.join(solver.conventions) or 'none'}"
            )
        convention = solver.conventions[labels]
        named, source = convention.labels, f"the convention {labels}"
        if space is None and affine is None:
            space = convention.space
            if space is not None and space not in solver.spaces:
                warnings = (
                    f"images of {labels} lie in the space {space}, and where that lies in the maps "
                    "of this study is not known: positions were taken as they are",
                )
                space = OWN
    else:
        named, source = _checked_labels(solver, labels), "what was given"
    volume = read_volume(file)
    values = labels_of(volume)
    known = {label for group in named.values() for label in group}
    present = [int(label) for label in np.unique(values) if label != 0]
    strange = [label for label in present if label not in known]
    if strange:
        raise StudyError(
            f"{file} has the labels {_listed(present)}, and {source} does not know "
            f"{_listed(strange)}; it has " + _regions_listed(named)
        )
    images = {}
    for name, regions in solver.regions.items():
        if not set(regions) <= named.keys():
            continue
        images[name] = np.isin(values, [label for region in regions for label in named[region]])
        if not images[name].any():
            raise StudyError(
                f"{file} is empty of {name}: it has the labels {_listed(present) or '0'}, and "
                f"{source} has {_regions_listed(named)}; a mask alone can be given as a file of "
                "its own"
            )
    return _on_grid(solver, volume, images, _grid_to_patient(solver, space, affine), warnings)


def read_region(observation: MaskObservation, file: Path) -> NDArray[np.intp]:
    """Read another mask of the same patient, in the same space.

    Its image may have a grid of its own. Returns the voxels of the patient's image [n, 3] in which
    those of the mask have their middles; some may lie outside the image. Raises StudyError.
    """
    volume = read_volume(file)
    to_image = inverse(observation.image_affine) @ volume.affine
    # Moved just off the boundaries between voxels, or rounding would decide the side of a point.
    voxels = np.rint(apply(to_image, np.argwhere(mask_of(volume))) + 1e-4).astype(np.intp)
    if not _within(voxels, observation.shape).any():
        raise StudyError(f"{file} has no voxel in the patient's image: is it in the same space?")
    return voxels


def covered(plan: Mask, region: NDArray[np.intp]) -> float:
    """Return the share of the voxels of a region [n, 3] that lie in a plan [*image]."""
    inside = region[_within(region, plan.shape)]
    return float(np.count_nonzero(plan[tuple(inside.T)]) / len(region))


def to_patient(observation: MaskObservation, values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return values [*grid] on the grid of the patient's image [*image], see `from_grid`."""
    to_grid = inverse(observation.affine) @ observation.image_affine
    return from_grid(values, to_grid, observation.shape)


def patient_image(observation: MaskObservation, values: NDArray[np.generic]) -> nibabel.Nifti1Image:
    """Make an image for a file of values or a mask [*image]."""
    return image_of(values, observation.image_affine, observation.image_code)


def _within(voxels: NDArray[np.intp], shape: tuple[int, ...]) -> Mask:
    """Return which voxels [n, 3] lie in an image of this shape [n]."""
    return np.asarray(((voxels >= 0) & (voxels < shape)).all(1))


def _checked_labels(
    solver: ImagedSolver, labels: Mapping[str, tuple[int, ...]]
) -> Mapping[str, tuple[int, ...]]:
    """Check the labels of regions that a user gave. Raises StudyError."""
    regions = {region for group in solver.regions.values() for region in group}
    for region, group in labels.items():
        if region not in regions:
            raise StudyError(f"{region} is not a region that this solver knows: {_names(regions)}")
        if not group or min(group) < 1:
            raise StudyError(
                f"{region} is given the labels {_listed(group) or 'none'}: they are positive whole "
                "numbers, as 0 is the background"
            )
        for other, others in labels.items():
            shared = sorted(set(group) & set(others))
            if other != region and shared:
                raise StudyError(f"{_listed(shared)} cannot be both {region} and {other}")
    if not any(set(group) <= labels.keys() for group in solver.regions.values()):
        raise StudyError(
            f"{_names(labels) or 'nothing'} alone makes none of this solver's masks: "
            + ", ".join(f"{name} is {' and '.join(g)}" for name, g in solver.regions.items())
        )
    return labels


def _grid_to_patient(solver: ImagedSolver, space: str | None, file: Path | None) -> Affine:
    """Return the affine from indices of the solver's grid to the patient's positions."""
    if solver.affine is None:
        raise StudyError(
            "this solver's grid does not lie in a scanner's space: it cannot be compared with "
            "segmentations"
        )
    if file is not None:
        if space is not None:
            raise StudyError(f"both the space {space} and the affine {file} are given: give one")
        return inverse(read_affine(file)) @ solver.affine
    if space is None or space == OWN:
        return solver.affine
    if space not in solver.spaces:
        raise StudyError(
            f"{space} is not a space that this solver knows, which are "
            f"{', '.join([*solver.spaces, OWN])}; any other needs an affine"
        )
    return inverse(solver.spaces[space]) @ solver.affine


def _on_grid(
    solver: ImagedSolver,
    volume: Volume,
    images: Mapping[str, Mask],
    affine: Affine,
    warnings: tuple[str, ...],
) -> MaskObservation:
    """Bring masks [*image] of a volume to the solver's grid. Raises StudyError."""
    to_image = inverse(volume.affine) @ affine
    masks = {}
    for name, image in images.items():
        warnings += _outside(solver, name, image, inverse(to_image))
        masks[name] = to_grid(image, to_image, solver.grid.shape)
        if not masks[name].any():
            raise StudyError(
                f"{name} leaves no voxel on the solver's grid, whose spacing is "
                f"{max(solver.grid.spacing):.3g} mm: it is too small"
            )
    warnings += _leaving(solver, images, volume.voxel)
    return MaskObservation(masks, images, volume.affine, volume.code, affine, warnings)


def _outside(solver: ImagedSolver, name: str, image: Mask, to_grid: Affine) -> tuple[str, ...]:
    """Warn if much of a mask lies where nothing is simulated; raise StudyError if most does."""
    shape = solver.grid.shape
    voxels = np.rint(apply(to_grid, np.argwhere(image)))
    inside = np.all((voxels >= 0) & (voxels < shape), axis=1)
    if solver.static_fields:
        covered = np.any([field != 0 for field in solver.static_fields.values()], axis=0)
        inside[inside] = covered[tuple(voxels[inside].astype(np.intp).T)]
    share = 1 - float(inside.mean())
    if share <= _OUTSIDE:
        return ()
    says = f"{share:.0%} of {name} lies outside the solver's grid or what its static fields cover"
    if share > _TOO_FAR:
        raise StudyError(
            f"{says}: does the image lie in another space, or does its affine lead elsewhere?"
        )
    return (says,)


def _leaving(solver: ImagedSolver, images: Mapping[str, Mask], voxel: float) -> tuple[str, ...]:
    """Warn of masks that reach outside a mask that should include them; `voxel` is in ml."""
    warnings = []
    for inner in images:
        for outer in images:
            if set(solver.regions[inner]) < set(solver.regions[outer]):
                count = np.count_nonzero(images[inner] & ~images[outer])
                share = count / np.count_nonzero(images[inner])
                if count:
                    warnings.append(
                        f"{share:.1%} of {inner}, {count * voxel:.2f} ml, lies outside {outer}, "
                        "which it is part of: both are scored as they are"
                    )
    return tuple(warnings)


def _regions_listed(named: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{region} {_listed(group)}" for region, group in named.items())


def _listed(labels: tuple[int, ...] | list[int]) -> str:
    return ", ".join(map(str, labels))


def _names(names: set[str] | Mapping[str, object]) -> str:
    return ", ".join(sorted(names))
