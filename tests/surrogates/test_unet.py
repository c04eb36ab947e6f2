"""The U-Net: the grids it takes, and periodic ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import make_data, make_problem, predict

from surrogates.base import Mode
from surrogates.unet import UNet

torch.set_num_threads(1)


@settings(max_examples=30)
@given(
    grid=st.lists(st.integers(2, 9), min_size=1, max_size=3).map(tuple),
    levels=st.integers(1, 3),
    periodic=st.booleans(),
    mode=st.sampled_from(["direct", "autoregressive"]),
)
def test_grids_of_any_size_are_taken_or_refused(
    grid: tuple[int, ...], levels: int, periodic: bool, mode: Mode
) -> None:
    problem = make_problem(grid, channels=2, static=1)
    if min(grid) < 2**levels:
        with pytest.raises(ValueError, match=f"levels is {levels}, but a grid of .* at most"):
            UNet(problem, mode, 2, levels, periodic)
        return
    parameters, times, fields = make_data(problem, n=1, steps=2)
    surrogate = UNet(problem, mode, 2, levels, periodic)
    found = predict(surrogate, parameters, times, fields[:, 0].float())
    assert found.shape == fields.shape
    assert found.isfinite().all()


def test_grids_that_no_setting_fits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"grids of 1 to 3 axes, but this one has 4, .*: take"):
        UNet(make_problem((4, 4, 4, 4)))
    with pytest.raises(ValueError, match=r"a grid of \(1,\) can be halved 0 times: take the surr"):
        UNet(make_problem((1,)), levels=1)


@pytest.mark.parametrize("periodic", [True, False])
def test_on_a_periodic_grid_no_place_is_special_but_for_its_coordinates(periodic: bool) -> None:
    torch.manual_seed(0)
    surrogate = UNet(make_problem((8, 12)), "autoregressive", 4, 2, periodic)
    surrogate.x.zero_()
    conditions, state = torch.randn(2, 4), torch.randn(2, 1, 8, 12)
    by = {"shifts": (4, 8), "dims": (2, 3)}  # multiples of 2^levels
    rolled = surrogate(conditions, state.roll(**by))
    assert torch.allclose(rolled, surrogate(conditions, state).roll(**by), atol=1e-5) == periodic
