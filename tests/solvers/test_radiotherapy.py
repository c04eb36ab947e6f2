"""Where to irradiate: the margin in mm of the patient, equal volumes, and what is covered."""

import numpy as np
import pytest
from numpy.typing import NDArray

from framework.inverse.observed.masks import covered
from solvers.tumor.fisher_kolmogorov import FisherKolmogorov
from solvers.tumor.radiotherapy import MARGIN, plans
from solvers.tumor.two_species import TwoSpecies

SHAPE = (40, 30, 20)
SPACING = np.array([1.5, 2.0, 3.0])
AFFINE = np.diag([*SPACING, 1.0])
TISSUE = np.ones(SHAPE, dtype=np.bool_)
TISSUE[:, :9] = False


def distance(centre: tuple[int, int, int], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of all voxels from one [*grid], in mm."""
    away = np.moveaxis(np.indices(SHAPE), 0, -1) - np.array(centre)
    return np.linalg.norm(away @ affine[:3, :3].T, axis=-1)


def core(*centre: int) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, dtype=np.bool_)
    mask[centre] = True
    return mask


CELLS = np.exp(-distance((26, 14, 8), AFFINE) / 9).astype(np.float32)


def test_the_margin_is_15_mm_from_the_core_within_tissue() -> None:
    result = plans(TISSUE, {"t1c": core(20, 15, 10), "flair": TISSUE}, CELLS, AFFINE)
    expected = (distance((20, 15, 10), AFFINE) <= MARGIN) & TISSUE
    np.testing.assert_array_equal(result["standard"], expected)
    # The core is not a point: all around it counts.
    two = core(20, 15, 10) | core(23, 15, 10)
    both = (distance((23, 15, 10), AFFINE) <= MARGIN) & TISSUE | expected
    np.testing.assert_array_equal(plans(TISSUE, {"t1c": two}, CELLS, AFFINE)["standard"], both)


def test_lengths_are_the_patients() -> None:
    """Who is smaller than the atlas, and lies turned in the scanner."""
    affine = np.eye(4)
    affine[:3, :3] = [[0, -1.6, 0.4], [1.2, 0, 0], [0, 0.3, 2.5]]
    result = plans(TISSUE, {"t1c": core(20, 15, 10)}, CELLS, affine)["standard"]
    np.testing.assert_array_equal(result, (distance((20, 15, 10), affine) <= MARGIN) & TISSUE)
    assert result.sum() > plans(TISSUE, {"t1c": core(20, 15, 10)}, CELLS, AFFINE)["standard"].sum()


def test_flair_stands_in_for_a_core_that_was_not_observed() -> None:
    one, other = core(20, 15, 10), core(10, 20, 10)
    alone = plans(TISSUE, {"flair": one}, CELLS, AFFINE)["standard"]
    both = plans(TISSUE, {"flair": other, "t1c": one}, CELLS, AFFINE)["standard"]
    np.testing.assert_array_equal(alone, both)


def test_the_models_plan_is_where_cells_are_densest_and_as_large() -> None:
    result = plans(TISSUE, {"t1c": core(20, 15, 10)}, CELLS, AFFINE)
    standard, model = result["standard"], result["model"]
    assert model.sum() == standard.sum() > 100
    assert not (model & ~TISSUE).any()
    assert CELLS[model].min() >= CELLS[TISSUE & ~model].max()
    assert not np.array_equal(model, standard)


def test_ties_go_to_what_is_nearer_to_the_core() -> None:
    cells = np.zeros(SHAPE, dtype=np.float32)
    cells[30:, 20:, 15:] = 1
    result = plans(TISSUE, {"t1c": core(20, 15, 10)}, cells, AFFINE)
    standard, model = result["standard"], result["model"]
    assert model.sum() == standard.sum()
    assert model[cells > 0].all()
    rest = distance((20, 15, 10), AFFINE)[model & (cells == 0)]
    assert rest.max() <= distance((20, 15, 10), AFFINE)[TISSUE & ~model & (cells == 0)].min()
    again = plans(TISSUE, {"t1c": core(20, 15, 10)}, cells, AFFINE)["model"]
    np.testing.assert_array_equal(model, again)


@pytest.mark.parametrize("observed", [{}, {"pet": core(1, 1, 1)}, {"t1c": core(1, 1, 1) & False}])
def test_a_margin_needs_something_to_be_around(observed: dict[str, NDArray[np.bool_]]) -> None:
    with pytest.raises(ValueError, match="a margin needs a t1c or a flair mask"):
        plans(TISSUE, observed, CELLS, AFFINE)


def test_how_much_of_a_recurrence_is_covered() -> None:
    """Counted in its own voxels; one outside the image is not covered."""
    plan = np.zeros(SHAPE, dtype=np.bool_)
    plan[:20] = True
    recurrence = np.array([[i, 10, 10] for i in (17, 18, 19, 20)])
    assert covered(plan, recurrence) == 0.75
    assert covered(plan, np.array([*recurrence, [-1, 10, 10]])) == 0.6


@pytest.mark.parametrize("solver", [FisherKolmogorov(24), TwoSpecies(24)])
def test_solvers_plan_from_all_their_cells(solver: FisherKolmogorov | TwoSpecies) -> None:
    """In tissue; dead cells are tumour too."""
    point = np.array(
        [10.0, 8.0, *[1.0, 0.5, 1.0, 0.5][: len(solver.parameters) - 5], 0.4, 0.5, 0.5]
    )
    fields = list(solver.solve(point, 0))[-1]
    images = solver.observe(fields)
    observed = {"t1c": images["t1c"].astype(np.bool_)}
    assert solver.affine is not None
    result = solver.plans(observed, fields, solver.static_fields, solver.affine)
    cells = fields[: 1 + isinstance(solver, TwoSpecies)].sum(0)
    tissue = solver.tissue.mask
    assert result["model"].sum() == result["standard"].sum() > observed["t1c"].sum()
    assert cells[result["model"]].min() >= cells[tissue & ~result["model"]].max()
