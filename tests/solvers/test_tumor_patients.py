"""What tumour solvers say for inverse questions, and a real glioma in their brain."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from places import REFERENCES
from scipy import ndimage

from framework.errors import StudyError
from framework.inverse.observed.masks import patient_image, read_labels, read_masks, to_patient
from solvers.tumor.fisher_kolmogorov import FisherKolmogorov
from solvers.tumor.growth import TumorGrowth
from solvers.tumor.patients import SRI24_TO_MNI152
from solvers.tumor.two_species import TwoSpecies

GLIOMA = REFERENCES / "glioma"

SOLVERS = [FisherKolmogorov(24), FisherKolmogorov(24, prior="published"), TwoSpecies(24)]
needs_glioma = pytest.mark.skipif(not GLIOMA.exists(), reason=f"{GLIOMA} is not there")


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_threshold_that_a_look_up_tries_is_one_of_the_images(solver: TumorGrowth) -> None:
    fields = np.random.default_rng(0).random((len(solver.fields), 9, 9, 9), dtype=np.float32)
    default = solver.observe(fields)
    for name, thresholds in solver.masks.items():
        assert list(thresholds) == sorted(set(thresholds))
        images = [solver.observe(fields, **{name: value})[name] for value in thresholds]
        assert sum(np.array_equal(image, default[name]) for image in images) == 1
        sizes = [int(image.sum()) for image in images]
        assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("name", "core", "oedema"),
    [
        ("brats2018", (1, 4), (2,)),
        ("brats2021", (1, 4), (2,)),
        ("brats2023", (1, 3), (2,)),
        ("gliodil", (1, 4), (3,)),
    ],
)
def test_conventions(name: str, core: tuple[int, ...], oedema: tuple[int, ...]) -> None:
    convention = SOLVERS[0].conventions[name]
    assert convention.labels == {"core": core, "oedema": oedema}
    assert convention.space == (None if name == "gliodil" else "sri24")


def test_what_a_scan_tells_with_either_prior_is_the_same() -> None:
    """Dw 0.5 mm2/day, rho 0.05 1/day, after 80 of 200 days."""
    days = np.array([[0.005, 0.05, 200, 0.3, 0.5, 0.6]])
    parts = np.array([[10.0, 10.0, 0.3, 0.5, 0.6]])
    one = SOLVERS[1].identifiable(days, np.array([80.0]))
    two = SOLVERS[0].identifiable(parts, np.array([0.4]))
    three = SOLVERS[2].identifiable(
        np.insert(parts, [2], [[1.0, 0.5, 2.0, 0.5]], axis=1), np.array([0.4])
    )
    expected = {"sqrt_DT": np.sqrt(40), "rho_T": 4.0, "width": np.sqrt(10)}
    for quantities in (one, two, three):
        assert list(quantities) == ["sqrt_DT", "rho_T", "width", "x", "y", "z"]
        for name, value in expected.items():
            np.testing.assert_allclose(quantities[name].values, value)
        assert [quantity.units for quantity in quantities.values()] == ["mm", "1", *["mm"] * 4]
    affine = SOLVERS[0].affine
    assert affine is not None
    # Shares of the sides begin at the faces of the grid, indices at the middle of a voxel.
    position = affine @ [0.3 * 24 - 0.5, 0.5 * 24 - 0.5, 0.6 * 24 - 0.5, 1]
    np.testing.assert_allclose([one[name].values[0] for name in "xyz"], position[:3])


@pytest.mark.parametrize("solver", SOLVERS)
def test_at_the_beginning_there_is_nothing_but_a_width(solver: TumorGrowth) -> None:
    points = solver.parameters.from_unit(np.full((2, len(solver.parameters)), 0.5))
    quantities = solver.identifiable(points, np.array([0.0, solver.times(points[1])[-1]]))
    for name in ("sqrt_DT", "rho_T"):
        assert quantities[name].values[0] == 0 < quantities[name].values[1]
    assert quantities["width"].values[0] == quantities["width"].values[1]


def test_the_seed_is_where_the_tumour_grows() -> None:
    solver = FisherKolmogorov(48)
    point = np.array([6.0, 9.0, 0.38, 0.5, 0.52])
    cells = list(solver.solve(point, 0))[3][0]
    place = np.average(np.argwhere(cells > 0), axis=0, weights=cells[cells > 0])
    assert solver.affine is not None
    position = solver.affine[:3, :3] @ place + solver.affine[:3, 3]
    quantities = solver.identifiable(point[None], np.array([1.0]))
    seed = np.array([quantities[name].values[0] for name in "xyz"])
    np.testing.assert_allclose(seed, position, atol=4)


def test_only_of_the_bundled_atlas_it_is_known_where_other_spaces_lie(tmp_path: Path) -> None:
    """Maps of one's own may be in the patient's space: then images are taken as they are."""
    share = np.full((20, 20, 20), 0.5, np.float32)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(share, affine), tmp_path / "share.nii")
    path = str(tmp_path / "share.nii")
    solver = FisherKolmogorov(None, path, path)
    assert solver.spaces == {}
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[6:12, 6:12, 6:12] = 2
    labels[8:10, 8:10, 8:10] = 3
    nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / "labels.nii")
    observation = read_labels(solver, tmp_path / "labels.nii", "brats2023")
    np.testing.assert_array_equal(observation.masks["flair"], labels > 0)
    np.testing.assert_array_equal(observation.masks["t1c"], labels == 3)
    (warning,) = observation.warnings
    assert "brats2023 lie in the space sri24" in warning


def dice(one: NDArray[np.bool_], two: NDArray[np.bool_]) -> float:
    return float(2 * (one & two).sum() / (one.sum() + two.sum()))


def test_a_synthetic_patient_in_sri24_is_found_where_it_grew(tmp_path: Path) -> None:
    """A tumour of the solver's own, drawn into an image like BraTS's, of 1.5 mm, and back again."""
    solver = FisherKolmogorov(64)
    fields = list(solver.solve(np.array([12.0, 8.0, 0.38, 0.5, 0.52]), 0))[-1]
    images = solver.observe(fields)
    brats = np.diag([-1.5, -1.5, 1.5, 1.0])
    brats[1, 3] = 239
    assert solver.affine is not None
    to_grid = np.linalg.inv(solver.affine) @ SRI24_TO_MNI152 @ brats
    labels = np.zeros((160, 160, 104), np.uint8)
    for name, label in (("flair", 2), ("t1c", 4)):
        shown = ndimage.affine_transform(
            images[name].astype(np.uint8), to_grid[:3, :3], to_grid[:3, 3], labels.shape, order=0
        )
        labels[shown > 0] = label
    nibabel.save(nibabel.Nifti1Image(labels, brats), tmp_path / "labels.nii")
    observation = read_labels(solver, tmp_path / "labels.nii", "brats2021")
    for name, mask in observation.masks.items():
        assert dice(mask, images[name].astype(np.bool_)) > 0.97
        back = to_patient(observation, mask.astype(np.float32)) >= 0.5
        assert dice(back, observation.images[name]) > 0.93


@needs_glioma
def test_a_real_glioma_lies_in_the_brain() -> None:
    """On the right, in front, as in the image; volumes are kept, but for the larger brain."""
    solver = FisherKolmogorov(64)
    observation = read_labels(solver, GLIOMA / "TCGA-FG-6692_mav.nii.gz", "brats2018")
    assert observation.warnings == ()
    growth = np.linalg.det(SRI24_TO_MNI152[:3, :3])
    voxel = np.prod(solver.grid.spacing) / 1000
    assert observation.volumes == pytest.approx({"t1c": 9.317, "flair": 30.179})
    for name, volume in observation.volumes.items():
        mask = observation.masks[name]
        assert mask.sum() * voxel / growth == pytest.approx(volume, rel=0.07)
        assert (mask & solver.tissue.mask).sum() > 0.9 * mask.sum()
    assert solver.affine is not None
    middle = solver.affine @ [*np.argwhere(observation.masks["flair"]).mean(0), 1]
    np.testing.assert_allclose(middle[:3], [41, 34, 13], atol=3)
    white = patient_image(observation, to_patient(observation, solver.tissue.white))
    assert nibabel.aff2axcodes(white.affine) == tuple("LPS")
    assert white.shape == (240, 240, 155)


@needs_glioma
def test_a_real_glioma_by_the_wrong_convention_is_refused() -> None:
    """Its label 4 is none of BraTS 2023's."""
    path = GLIOMA / "TCGA-FG-6692_mav.nii.gz"
    with pytest.raises(StudyError, match=r"labels 1, 2, 4, .*brats2023 does not know 4"):
        read_labels(FisherKolmogorov(24), path, "brats2023")
    with pytest.raises(StudyError, match="several values besides 0, 1, 2, 4"):
        read_masks(FisherKolmogorov(24), {"flair": path}, "sri24")


@needs_glioma
def test_without_its_space_a_real_glioma_lies_outside_the_brain() -> None:
    path = GLIOMA / "TCGA-FG-6692_mav.nii.gz"
    with pytest.raises(StudyError, match="does the image lie in another space"):
        read_labels(FisherKolmogorov(24), path, {"core": (1, 4), "oedema": (2,)})
