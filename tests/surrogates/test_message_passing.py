"""Message passing: against a loop over pairs of points, and what reaches whom."""

import itertools

import pytest
import torch
from networks import make_problem
from torch import Tensor
from torch.nn import functional

from surrogates.message_passing import MessagePassing

torch.set_num_threads(1)


def heard_in_a_loop(
    surrogate: MessagePassing, features: Tensor, u: Tensor, conditions: Tensor
) -> Tensor:
    """The mean over neighbours of phi(f_i, f_j, u_i - u_j, x_i - x_j, conditions), in layer 0."""
    layer, grid, r = surrogate.layers[0], surrogate.problem.grid, surrogate.layers[0].neighbours
    hidden = features.shape[-1]
    of_i, of_j = layer.of_point.weight.split(hidden)
    bias_i, bias_j = layer.of_point.bias.split(hidden)
    of_conditions = layer.of_conditions.weight[:hidden] @ conditions[0]
    heard = torch.zeros_like(features)
    for i in itertools.product(*map(range, grid)):
        for axis, (place, offset) in itertools.product(
            range(len(grid)), enumerate(o for o in range(-r, r + 1) if o)
        ):
            j = list(i)
            j[axis] += offset
            at_i, message = (0, *i), of_conditions + layer.of_place[axis, place] + bias_i
            message = message + of_i @ features[at_i]
            if layer.outside is None:
                j[axis] %= grid[axis]
            if 0 <= j[axis] < grid[axis]:
                at_j = (0, *j)
                message = message + of_j @ features[at_j] + bias_j
                message = message + layer.of_state.weight @ (u[at_i] - u[at_j])
            else:
                message = message + layer.of_state.weight @ u[at_i] + layer.outside
            heard[at_i] += functional.silu(message) / (2 * r * len(grid))
    return heard


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("grid", [(6,), (4, 5), (3, 4, 5)])
def test_a_layer_is_that_of_a_loop_over_pairs(grid: tuple[int, ...], periodic: bool) -> None:
    torch.manual_seed(0)
    problem = make_problem(grid, channels=2, static=1)
    surrogate = MessagePassing(
        problem, "autoregressive", neighbours=2, hidden=4, layers=1, periodic=periodic
    ).double()
    layer = surrogate.layers[0]
    features, u = torch.randn(1, *grid, 4).double(), torch.randn(1, *grid, 3).double()
    conditions = torch.randn(1, surrogate.conditions).double()
    everywhere = conditions.view(1, *[1] * len(grid), -1)
    normal = functional.layer_norm(features, (4,))
    heard = heard_in_a_loop(surrogate, normal, u, conditions)
    hidden = layer.update_first(torch.cat([normal, heard], -1))
    hidden = hidden + conditions[0] @ layer.of_conditions.weight[4:].T
    expected = features + layer.update_second(functional.silu(hidden))
    torch.testing.assert_close(layer(features, u, everywhere), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("periodic", [True, False])
def test_a_layer_carries_news_as_far_as_the_neighbours(periodic: bool) -> None:
    torch.manual_seed(0)
    surrogate = MessagePassing(
        make_problem((11,)), "autoregressive", neighbours=2, hidden=4, layers=2, periodic=periodic
    )
    conditions, state = torch.randn(1, 4), torch.randn(1, 1, 11)
    changed = state.clone()
    changed[..., 9] += 1
    moved = (surrogate(conditions, changed) - surrogate(conditions, state))[0, 0] != 0
    near = range(5, 14 if periodic else 11)
    assert moved.nonzero().flatten().tolist() == sorted(place % 11 for place in near)


def test_on_a_periodic_grid_no_place_is_special_but_for_its_coordinates() -> None:
    torch.manual_seed(0)
    surrogate = MessagePassing(make_problem((5, 7)), "autoregressive", hidden=4, periodic=True)
    surrogate.x.zero_()
    conditions, state = torch.randn(2, 4), torch.randn(2, 1, 5, 7)
    by = {"shifts": (2, 3), "dims": (2, 3)}
    rolled = surrogate(conditions, state.roll(**by))
    torch.testing.assert_close(rolled, surrogate(conditions, state).roll(**by))


def test_more_neighbours_than_there_are_points_are_refused() -> None:
    MessagePassing(make_problem((5, 4)), neighbours=3, hidden=2, layers=1)
    with pytest.raises(
        ValueError, match=r"on a grid of \(5, 4\) a point has at most 3 .* lower it"
    ):
        MessagePassing(make_problem((5, 4)), neighbours=4)
    with pytest.raises(ValueError, match="at most 0 on one side: take the surrogate mlp"):
        MessagePassing(make_problem((1,)))
