"""What is imaged of a density of cells."""

import numpy as np
import pytest

from solvers.tumor import imaging
from solvers.tumor.fisher_kolmogorov import THRESHOLDS, FisherKolmogorov

CELLS = np.array([[[0.0, 0.1, 0.2, 0.5, 0.6, 0.7, 0.95, 0.96, 1.0]]], dtype=np.float32)


def test_the_images_with_the_default_thresholds() -> None:
    images = imaging.images(CELLS, CELLS, THRESHOLDS, {})
    assert set(images) == {"t1c", "flair", "necrosis", "pet"}
    assert {image.shape for image in images.values()} == {CELLS.shape}
    assert images["flair"].ravel().tolist() == [False] * 2 + [True] * 7
    assert images["t1c"].ravel().tolist() == [False] * 4 + [True] * 5
    assert images["necrosis"].ravel().tolist() == [False] * 7 + [True] * 2
    assert [images[name].dtype for name in ("t1c", "flair", "necrosis")] == [np.bool_] * 3
    assert images["pet"].dtype == np.float32
    pet = [0, 0, 0.2, 0.5, 0.6, 0.7, 0.95, 0, 0]
    np.testing.assert_array_equal(images["pet"].ravel(), np.float32(pet))


def test_thresholds_move_the_masks() -> None:
    images = imaging.images(CELLS, CELLS, THRESHOLDS, {"t1c": 0.7, "flair": 0.1, "necrosis": 0.97})
    assert [int(images[name].sum()) for name in ("flair", "t1c", "necrosis")] == [8, 4, 1]


@pytest.mark.parametrize(
    ("name", "value"), [("t1c", 0.49), ("t1c", 0.86), ("flair", 0.51), ("necrosis", np.nan)]
)
def test_a_threshold_out_of_its_published_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"threshold {name} is .*must be in \["):
        imaging.images(CELLS, CELLS, THRESHOLDS, {name: value})


def test_an_unknown_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="t1w is not a threshold"):
        imaging.images(CELLS, CELLS, THRESHOLDS, {"t1w": 0.5})


def test_a_solver_observes_its_cells() -> None:
    solver = FisherKolmogorov(24)
    fields = list(solver.solve(np.array([12.0, 8.0, 0.4, 0.5, 0.5]), 0))[-1]
    images = solver.observe(fields, t1c=0.5)
    np.testing.assert_array_equal(images["t1c"], fields[0] >= 0.5)
    np.testing.assert_array_equal(images["flair"], fields[0] >= np.float32(0.2))
