"""Proliferating and necrotic cells with their nutrient: against scipy, and what is conserved."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import scipy.integrate
import torch
from numpy.typing import NDArray

from solvers.tumor.fisher_kolmogorov import FisherKolmogorov
from solvers.tumor.two_species import TwoSpecies

Array = NDArray[np.float64]
# sqrt_DT, rho_T, death, hypoxia, supply, uptake, seed
PARAMETERS = np.array([12.0, 10.0, 1.0, 0.5, 1.0, 0.5, 0.38, 0.5, 0.52])


pytestmark = pytest.mark.usefixtures("one_thread")


def run(solver: TwoSpecies, parameters: Array) -> NDArray[np.float32]:
    """Fields [T, C, *grid]."""
    return np.stack(list(solver.solve(parameters, seed=0)))


def by_scipy(solver: TwoSpecies, fields: Array, parameters: Array) -> Array:
    """The final fields [C, n] on a row of voxels, by a method of order 8."""
    spread, rho, death, sigma, supply, uptake = parameters[:6]
    spread **= 2
    white, grey = (m[:, 0, 0].astype(float) for m in (solver.tissue.white, solver.tissue.grey))
    tissue = solver.tissue.mask[:, 0, 0]

    def diffused(u: Array, mobility: Array) -> Array:
        flux = np.diff(u) * (mobility[1:] + mobility[:-1]) / 2 * (tissue[1:] & tissue[:-1])
        return np.diff(np.concatenate([[0], flux, [0]])) / solver.grid.spacing[0] ** 2

    def slope(_: float, state: Array) -> Array:
        p, n, s = state.reshape(3, -1)
        dying = rho * death * p / (1 + np.exp(50 * (s - sigma)))
        growing = rho * s * p * (1 - p - n)
        return np.concatenate(
            [
                spread * diffused(p, white + grey / 10) + growing - dying,
                dying,
                spread * supply * diffused(s, white + grey) - rho * uptake * s * p,
            ]
        )

    start = (fields * tissue).ravel()
    solution = scipy.integrate.solve_ivp(slope, (0, 1), start, "DOP853", rtol=1e-9, atol=1e-12)
    final: Array = solution.y[:, -1].reshape(3, -1)
    return final


def test_halving_the_step_shows_the_claimed_order_against_scipy(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shares = random.random((2, 40, 1, 1)).astype(np.float32) / 2
    shares[:, 17] = 0  # a gap that nothing crosses
    paths = [str(tmp_path / name) for name in ("white.nii", "grey.nii")]
    for path, share in zip(paths, shares, strict=True):
        nibabel.save(nibabel.Nifti1Image(share, np.diag([3.0, 3.0, 3.0, 1.0])), path)
    solver = TwoSpecies(None, *paths, stored_steps=2)
    solver.precision = torch.float64
    x = np.arange(40)
    cells = np.exp(-(((x - 8) / 4) ** 2)) / 2
    fields = np.stack([cells, cells / 4, 1 - cells / 3])
    parameters = np.array([*PARAMETERS[:6], 0.5, 0.5, 0.5])
    exact = by_scipy(solver, fields, parameters.copy())
    assert exact[1].max() > 0.2  # cells have died
    errors = []
    for step in (0.2, 0.1, 0.05):
        solver.step = step
        start = fields[None, :, :, None, None].astype(np.float32)
        *_, final = solver.grow(start, parameters[None])
        errors.append(float(np.abs(final[0, :, :, 0, 0] - exact).max()))
    observed = np.log2(np.divide(errors[:-1], errors[1:]))
    assert np.abs(observed - solver.order.time).max() < 0.3, (observed, errors)
    assert (final[0, :, 17] == 0).all()


def test_without_growth_death_turns_cells_over_and_loses_none() -> None:
    """Growth a millionth of death, no uptake, and a threshold that no nutrient reaches."""
    solver = TwoSpecies(48)
    parameters = PARAMETERS.copy()
    parameters[[1, 2, 3, 5]] = 1e-6, 2e6, 1.2, 0.0
    p, n, s = run(solver, parameters).sum((2, 3, 4), dtype=np.float64).T
    np.testing.assert_allclose(p + n, p[0], rtol=1e-5)
    np.testing.assert_allclose(p, p[0] * np.exp(-2 * solver.fractions()), rtol=1e-3)
    np.testing.assert_allclose(s, solver.tissue.mask.sum(), rtol=1e-6)


def test_cells_and_nutrient_stay_in_tissue_and_in_range() -> None:
    solver = TwoSpecies(48)
    fields = run(solver, PARAMETERS)
    assert (fields[:, :, ~solver.tissue.mask] == 0).all()
    assert fields.min() >= 0
    assert fields.max() <= 1 + 1e-6
    assert (fields[:, 0] + fields[:, 1]).max() <= 1 + 1e-6
    necrotic, nutrient = fields[:, 1].astype(float), fields[:, 2].sum((1, 2, 3), dtype=float)
    assert (np.diff(necrotic, axis=0) >= 0).all()  # the dead stay where they are
    assert (np.diff(nutrient) < 0).all()
    assert necrotic[-1].max() > 0.2


def test_with_plenty_of_nutrient_it_is_fisher_kolmogorov() -> None:
    parameters = PARAMETERS.copy()
    parameters[[3, 5]] = 0.0, 0.0  # nothing starves, nothing is taken up
    solver = TwoSpecies(32)
    alone = FisherKolmogorov(32)
    cells = np.stack(list(alone.solve(parameters[[0, 1, 6, 7, 8]], seed=0)))
    fields = run(solver, parameters)
    np.testing.assert_allclose(fields[:, 0], cells[:, 0], atol=1e-3)
    np.testing.assert_allclose(fields[:, 2], np.broadcast_to(solver.tissue.mask, (11, 32, 32, 32)))


def test_what_is_imaged_of_it() -> None:
    solver = TwoSpecies(48)
    fields = run(solver, PARAMETERS)[-1]
    images = solver.observe(fields, necrosis=0.2)
    necrosis, core, flair = images["necrosis"], images["t1c"], images["flair"]
    assert 0 < necrosis.sum() < core.sum() < flair.sum()
    assert not (necrosis & ~core).any()
    assert not (core & ~flair).any()
    np.testing.assert_array_equal(necrosis, fields[1] > np.float32(0.2))
    np.testing.assert_array_equal(images["pet"] > 0, flair & ~necrosis & (fields[0] > 0))
    with pytest.raises(ValueError, match=r"flair is 0\.3"):
        solver.observe(fields, flair=0.3)


def test_draws_are_resolved_and_their_seeds_lie_in_tissue() -> None:
    solver = TwoSpecies(64)
    for parameters in solver.parameters.from_unit(np.random.default_rng(0).random((50, 9))):
        assert solver.resolved(parameters)
        voxel = tuple(np.floor(parameters[-3:] * 64).astype(int))
        assert solver.tissue.mask[voxel]
    assert not solver.resolved(np.array([5.0, 10.0, *PARAMETERS[2:]]))
