"""How patients' segmentations name a tumour's regions."""

from collections.abc import Mapping

from solvers.base import Convention

# Which regions make up the masks of `imaging.images` that a segmentation is compared with.
REGIONS: Mapping[str, tuple[str, ...]] = {"t1c": ("core",), "flair": ("core", "oedema")}
# Core: necrotic, non-enhancing and enhancing. BraTS gives the enhancing part 4, since 2023 3.
_BRATS = Convention({"core": (1, 4), "oedema": (2,)}, "sri24")
CONVENTIONS: Mapping[str, Convention] = {
    "brats2018": _BRATS,
    "brats2021": _BRATS,
    "brats2023": Convention({"core": (1, 3), "oedema": (2,)}, "sri24"),
    "gliodil": Convention({"core": (1, 4), "oedema": (3,)}),
}
