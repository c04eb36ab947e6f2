"""The two priors: what is drawn lies in tissue, is spread evenly, plausible and resolved."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import qmc

from solvers.base import ParameterSpace
from solvers.tumor.fisher_kolmogorov import FisherKolmogorov
from solvers.tumor.prior import FILTERED, PUBLISHED, SEED, FilteredSpace, SeededSpace
from solvers.tumor.two_species import NUTRIENT


def draw(space: ParameterSpace, count: int = 4096) -> NDArray[np.float64]:
    unit = qmc.Sobol(len(space), rng=np.random.default_rng(0)).random(count)
    return space.from_unit(unit)


def blob(n: int = 20) -> NDArray[np.bool_]:
    """Tissue with a hole and ragged sides."""
    x = (np.arange(n) + 0.5) / n - 0.5
    radius = np.sqrt(x[:, None, None] ** 2 + 2 * x[:, None] ** 2 + x**2)
    ragged = np.random.default_rng(1).random((n, n, n)) < 0.8
    return (radius < 0.45) & (radius > 0.12) & ragged


@pytest.mark.parametrize(
    "space",
    [
        SeededSpace(blob(), *PUBLISHED, *SEED),
        FilteredSpace(blob(), 2.0, *FILTERED, *SEED),
        SeededSpace(blob(), *PUBLISHED, *SEED).with_bounds({"x": (0.31, 0.52), "z": (0.2, 0.21)}),
    ],
)
def test_every_seed_lies_in_tissue_and_within_the_bounds(space: SeededSpace) -> None:
    seeds = draw(space)[:, -3:]
    voxels = np.floor(seeds * space.tissue.shape).astype(int)
    assert space.tissue[tuple(voxels.T)].all()
    assert (seeds >= space.low[-3:] - 1e-12).all()
    assert (seeds <= space.high[-3:] + 1e-12).all()


def test_the_corners_of_the_unit_cube_are_seeds_too() -> None:
    space = SeededSpace(blob(), *PUBLISHED, *SEED)
    corners = np.stack(np.meshgrid(*[[0.0, 1.0]] * 6), -1).reshape(-1, 6)
    voxels = np.floor(space.from_unit(corners)[:, -3:] * 20).astype(int)
    assert space.tissue[tuple(voxels.T)].all()


def test_seeds_are_even_over_the_tissue() -> None:
    """Every voxel of tissue gets its share, where bounds cut it a smaller one."""
    bounds = {"x": (0.25, 0.625), "y": (0.3, 0.7), "z": (0.3, 0.7)}
    space = SeededSpace(blob(8), *PUBLISHED, *SEED).with_bounds(bounds)
    voxels = np.floor(draw(space, 2**16)[:, -3:] * 8).astype(int)
    counts = np.zeros((8, 8, 8))
    np.add.at(counts, tuple(voxels.T), 1)
    edges = np.arange(9) / 8
    inside = [
        np.clip(np.minimum(edges[1:], b) - np.maximum(edges[:-1], a), 0, None)
        for a, b in bounds.values()
    ]
    share = blob(8) * inside[0][:, None, None] * inside[1][:, None] * inside[2]
    np.testing.assert_allclose(counts / 2**16, share / share.sum(), atol=1.5e-3)


def test_seeds_are_monotone_in_each_coordinate_of_the_unit_cube() -> None:
    space = SeededSpace(blob(), *PUBLISHED, *SEED)
    unit = np.full((1000, 6), 0.3)
    unit[:, 3] = np.linspace(0, 1, 1000)
    assert (np.diff(space.from_unit(unit)[:, 3]) >= 0).all()
    unit[:, 3], unit[:, 4] = 0.3, unit[:, 3]
    assert (np.diff(space.from_unit(unit)[:, 4]) >= 0).all()


def test_points_of_any_leading_shape() -> None:
    space = FilteredSpace(blob(), 2.0, *FILTERED, *SEED)
    unit = np.random.default_rng(0).random((3, 4, 5))
    np.testing.assert_array_equal(space.from_unit(unit)[1, 2], space.from_unit(unit[1, 2]))


def test_bounds_without_tissue_are_refused() -> None:
    space = SeededSpace(blob(), *PUBLISHED, *SEED)
    with pytest.raises(ValueError, match=r"no tissue .* x \[0, 0\.02\]"):
        space.with_bounds({"x": (0.0, 0.02)})


def test_the_published_prior_is_uniform_between_the_published_bounds() -> None:
    values = draw(SeededSpace(blob(), *PUBLISHED, *SEED))[:, :3]
    low, high = np.array([0.0002, 0.002, 50]), np.array([0.015, 0.2, 1500])
    quarters = np.quantile((values - low) / (high - low), [0.25, 0.5, 0.75], axis=0)
    np.testing.assert_allclose(quarters, np.tile([[0.25], [0.5], [0.75]], 3), atol=2e-3)


@pytest.mark.parametrize("spacing", [1.0, 1.82, 2.43, 3.64])
def test_every_front_of_the_filtered_prior_is_as_wide_as_the_spacing(spacing: float) -> None:
    space = FilteredSpace(blob(), spacing, *FILTERED, *SEED)
    spread, growth = draw(space)[:, :2].T
    assert (spread / np.sqrt(growth) >= spacing * (1 - 1e-9)).all()
    assert np.quantile(spread, 0.9) > 2 * np.quantile(spread, 0.1)  # there is something to learn


def test_moved_bounds_are_kept_by_the_filtered_prior() -> None:
    space = FilteredSpace(blob(), 1.82, *FILTERED, *SEED)
    bounds = {"sqrt_DT": (6.0, 9.0), "rho_T": (6.0, 8.0)}
    spread, growth = draw(space.with_bounds(bounds))[:, :2].T
    assert spread.min() >= 6 * (1 - 1e-9)
    assert spread.max() <= 9 * (1 + 1e-9)
    assert growth.min() >= 6 * (1 - 1e-9)
    assert growth.max() <= 8 * (1 + 1e-9)


SPACES = [
    SeededSpace(blob(), *PUBLISHED, *SEED),
    SeededSpace(blob(7), *PUBLISHED, *SEED).with_bounds({"x": (0.31, 0.52), "z": (0.4, 0.41)}),
    FilteredSpace(blob(49), 2.0, *FILTERED, *SEED),
    # Of sqrt_DT a third is left: elsewhere no growth between these bounds is allowed.
    FilteredSpace(blob(13), 2.9, *FILTERED, *SEED).with_bounds({"rho_T": (8.0, 9.0)}),
    FilteredSpace(blob(13), 2.0, *FILTERED, *NUTRIENT, *SEED),
]


@pytest.mark.parametrize("space", SPACES)
@given(data=st.data())
def test_to_unit_undoes_from_unit(space: ParameterSpace, data: st.DataObject) -> None:
    unit = data.draw(arrays(np.float64, (2, 3, len(space)), elements=st.floats(0, 1)))
    back = space.to_unit(space.from_unit(unit))
    np.testing.assert_allclose(back, unit, rtol=0, atol=2e-9)


def test_bounds_that_leave_no_plausible_tumour_are_refused() -> None:
    space = FilteredSpace(blob(), 1.82, *FILTERED, *SEED)
    with pytest.raises(ValueError, match="widen the bounds or refine the grid"):
        space.with_bounds({"sqrt_DT": (3.0, 4.0), "rho_T": (70.0, 80.0)})


def test_which_parameters_the_grid_resolves(tmp_path: Path) -> None:
    """A front of sqrt(0.5 mm2/day / 0.05 / day) = 3.16 mm."""
    path = str(tmp_path / "share.nii")
    for spacing, resolved in ((3.0, True), (3.3, False)):
        affine = np.diag([1.0, 1.0, spacing, 1.0])
        nibabel.save(nibabel.Nifti1Image(np.full((8, 8, 8), 0.5, np.float32), affine), path)
        solver = FisherKolmogorov(None, path, path, prior="published")
        assert solver.resolved(np.array([0.005, 0.05, 200, 0.5, 0.5, 0.5])) == resolved
        solver = FisherKolmogorov(None, path, path)
        assert solver.resolved(np.array([10.0, 10.0, 0.5, 0.5, 0.5])) == resolved
