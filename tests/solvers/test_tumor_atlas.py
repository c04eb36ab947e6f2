"""Tissue on a grid: the bundled atlas, a user's maps, resampling, and what is refused."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from solvers.tumor.atlas import LEAST_TISSUE, Tissue, load_tissue, resample

Shares = NDArray[np.float32]


def save(path: Path, values: Shares, affine: NDArray[np.float64] | None = None) -> str:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return str(path)


def random_shares(shape: tuple[int, ...], seed: int = 0) -> Shares:
    return np.random.default_rng(seed).random(shape, dtype=np.float32) / 2


def test_the_default_is_mni152_as_nilearn_loads_it() -> None:
    datasets = pytest.importorskip("nilearn.datasets", reason="nilearn is not installed")
    tissue = load_tissue(None, None, None)
    grey, white = datasets.load_mni152_gm_template(), datasets.load_mni152_wm_template()
    np.testing.assert_array_equal(tissue.grey, grey.get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(tissue.white, white.get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(tissue.affine, grey.affine)


@pytest.mark.parametrize("grid_size", [32, 64, 100])
def test_resampling_keeps_the_volume_of_both_tissues(grid_size: int) -> None:
    fine, coarse = load_tissue(None, None, None), load_tissue(None, None, grid_size)
    assert coarse.white.shape == coarse.grey.shape == (grid_size,) * 3
    assert coarse.spacing == pytest.approx((233 / grid_size,) * 3)
    for before, after in ((fine.white, coarse.white), (fine.grey, coarse.grey)):
        volume = after.sum(dtype=np.float64) * coarse.spacing[0] ** 3
        assert volume == pytest.approx(before.sum(dtype=np.float64), rel=1e-5)


def test_a_coarser_voxel_has_the_mean_of_what_lies_in_it() -> None:
    white = random_shares((8, 8, 8))
    tissue = resample(Tissue(white, white, (1.0, 1.0, 1.0), np.eye(4)), 4)
    blocks = white.reshape(4, 2, 4, 2, 4, 2).mean((1, 3, 5))
    np.testing.assert_allclose(tissue.white, blocks, rtol=1e-6)


def test_a_finer_voxel_has_the_value_that_was_there() -> None:
    white = random_shares((4, 4, 4))
    tissue = resample(Tissue(white, white, (1.0, 1.0, 1.0), np.eye(4)), 8)
    np.testing.assert_allclose(tissue.white, np.kron(white, np.ones((2, 2, 2))), rtol=1e-6)


@pytest.mark.parametrize("grid_size", [10, 24, 30])
def test_the_affine_leads_to_the_same_place_on_every_grid(grid_size: int) -> None:
    """The middle of mass of a blob, in mm, with anisotropic voxels and axes that are turned."""
    affine = np.array([[0, 2.0, 0, 7], [-1.5, 0, 0, 3], [0, 0, 3.0, -5], [0, 0, 0, 1]])
    white = np.zeros((12, 10, 8), dtype=np.float32)
    white[3:5, 6:9, 2:5] = random_shares((2, 3, 3))
    tissue = Tissue(white, white, (1.5, 2.0, 3.0), affine)

    def middle(tissue: Tissue) -> NDArray[np.float64]:
        where = np.argwhere(tissue.white)
        mean = np.average(where, 0, tissue.white[tuple(where.T)])
        place: NDArray[np.float64] = tissue.affine @ [*mean, 1]
        return place

    coarse = resample(tissue, grid_size)
    assert coarse.spacing == pytest.approx((24 / grid_size,) * 3)
    # Cells count as in the middle of their voxel: small shifts remain, but none of half a voxel.
    np.testing.assert_allclose(middle(coarse), middle(tissue), atol=coarse.spacing[0] / 5)
    center = [((n - 1) / 2, (grid_size - 1) / 2) for n in white.shape]
    before, after = (np.array([*middle, 1]) for middle in zip(*center, strict=True))
    np.testing.assert_allclose(coarse.affine @ after, affine @ before, atol=1e-12)


def test_maps_of_the_user_on_their_own_grid(tmp_path: Path) -> None:
    affine = np.diag([2.0, 1.0, 3.0, 1.0])
    white, grey = random_shares((5, 6, 7), 1), random_shares((5, 6, 7), 2)
    paths = save(tmp_path / "w.nii.gz", white, affine), save(tmp_path / "g.nii", grey, affine)
    tissue = load_tissue(*paths, None)
    np.testing.assert_array_equal(tissue.white, white)
    np.testing.assert_array_equal(tissue.grey, grey)
    np.testing.assert_array_equal(tissue.mask, white + grey >= LEAST_TISSUE)
    assert tissue.spacing == (2.0, 1.0, 3.0)
    assert load_tissue(*paths, 10).white.shape == (10, 10, 10)


def test_maps_of_different_shapes_are_refused(tmp_path: Path) -> None:
    white = save(tmp_path / "w.nii", random_shares((5, 6, 7)))
    grey = save(tmp_path / "g.nii", random_shares((5, 6, 8)))
    with pytest.raises(ValueError, match=r"\(5, 6, 7\).*\(5, 6, 8\)"):
        load_tissue(white, grey, 16)


def test_maps_that_are_not_three_dimensional_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "w.nii", random_shares((5, 6, 7, 2)))
    with pytest.raises(ValueError, match="three-dimensional"):
        load_tissue(path, path, 16)


def test_maps_of_different_affines_are_refused(tmp_path: Path) -> None:
    white = save(tmp_path / "w.nii", random_shares((5, 6, 7)))
    grey = save(tmp_path / "g.nii", random_shares((5, 6, 7)), np.diag([1.0, 1.0, 1.5, 1.0]))
    with pytest.raises(ValueError, match="different affines"):
        load_tissue(white, grey, 16)


def test_maps_without_tissue_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "w.nii", np.full((5, 6, 7), 0.04, dtype=np.float32))
    with pytest.raises(ValueError, match=r"w\.nii.* no tissue"):
        load_tissue(path, path, None)


@pytest.mark.parametrize("value", [255.0, -0.5, np.nan])
def test_maps_that_are_no_shares_are_refused(tmp_path: Path, value: float) -> None:
    shares = random_shares((5, 6, 7))
    shares[2, 3, 4] = value
    path = save(tmp_path / "w.nii", shares)
    with pytest.raises(ValueError, match="between 0 and 1"):
        load_tissue(path, path, None)


def test_a_map_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "w.nii", random_shares((5, 6, 7)))
    with pytest.raises(ValueError, match=r"none\.nii does not exist"):
        load_tissue(path, str(tmp_path / "none.nii"), None)


def test_a_file_that_is_no_nifti_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.nii"
    path.write_text("white matter")
    with pytest.raises(ValueError, match=r"w\.nii cannot be read"):
        load_tissue(str(path), str(path), None)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    for name in ("w.nii", "w.nii.gz"):
        path = tmp_path / name
        save(path, random_shares((20, 20, 20)))
        path.write_bytes(path.read_bytes()[:-4000])
        with pytest.raises(ValueError, match=rf"{name} (is damaged|cannot be read)"):
            load_tissue(str(path), str(path), None)


def test_axes_that_are_not_perpendicular_are_refused(tmp_path: Path) -> None:
    sheared = np.diag([8.0, 8.0, 8.0, 1.0])
    sheared[0, 1] = 4.0
    flat = np.diag([8.0, 8.0, 0.0, 1.0])
    for affine in (sheared, flat):
        path = tmp_path / "w.nii"
        image = nibabel.Nifti1Image(random_shares((5, 6, 7)), None)
        image.header.set_sform(affine, code=1)
        nibabel.save(image, path)
        with pytest.raises(ValueError, match=r"w\.nii has the affine .* not perpendicular"):
            load_tissue(str(path), str(path), None)


def test_a_map_in_micrometres_is_refused(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(random_shares((5, 6, 7)), np.eye(4))
    image.header.set_xyzt_units("micron")
    path = tmp_path / "w.nii"
    nibabel.save(image, path)
    with pytest.raises(ValueError, match=r"w\.nii has its positions in micron"):
        load_tissue(str(path), str(path), None)


def test_one_map_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="grey is missing"):
        load_tissue("white.nii", None, None)


def test_a_grid_too_large_for_memory_is_refused_before_anything_is_made() -> None:
    with pytest.raises(
        ValueError, match=r"20000 x 20000 x 20000 .* 745,\d+\.\d GiB .* smaller grid_size$"
    ):
        load_tissue(None, None, 20000)
