"""Gradients of predictions, against finite differences."""

from functools import partial

import pytest
import torch
from networks import MODES, make_data, make_problem
from torch import Tensor

from surrogates.base import Mode, Surrogate
from surrogates.fno import Fno
from surrogates.message_passing import MessagePassing
from surrogates.mlp import Mlp
from surrogates.unet import UNet

KINDS = {
    "mlp": partial(Mlp, hidden=(16,)),
    "fno": partial(Fno, modes=4, hidden_channels=4, layers=2),
    "unet": partial(UNet, hidden_channels=4, levels=1),
    "message_passing": partial(MessagePassing, hidden=8, layers=2),
    "bundle": partial(MessagePassing, hidden=8, layers=2, bundle=2, pushforward=True),
}


def make(kind: str, mode: Mode) -> Surrogate:
    """A surrogate in double precision, if it has that."""
    torch.manual_seed(0)
    surrogate: Surrogate = KINDS[kind](make_problem((8, 6), channels=2, static=1), mode)
    change = torch.tensor([[0.4, 0.3]]).expand(surrogate.bundle, -1)
    surrogate.normalise_fields(torch.tensor([3.0, 2.0]), torch.tensor([2.0, 1.5]), change)
    return surrogate.double() if "float64" in surrogate.precisions else surrogate


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_rollout_has_gradients_of_parameters_and_initial_fields(kind: str, mode: Mode) -> None:
    surrogate = make(kind, mode)
    double = "float64" in surrogate.precisions
    parameters, times, fields = make_data(surrogate.problem, n=2, steps=6)
    given = [parameters.double(), fields[:, 0].double()]
    weights = torch.randn(2, 6, 2, 8, 6, dtype=torch.float64)

    def value(parameters: Tensor, initial: Tensor) -> Tensor:
        predicted = torch.stack([*surrogate.rollout(parameters, times, initial)], 1)
        return (predicted * weights).sum()

    for tensor in given:
        tensor.requires_grad_()
    gradients = torch.autograd.grad(value(*given), given, materialize_grads=True)
    assert bool(gradients[1].any()) == (mode == "autoregressive")
    step, tolerance = (1e-6, 1e-6) if double else (3e-3, 3e-3)
    for place, gradient in enumerate(gradients):
        along = torch.randn_like(gradient) / gradient.numel() ** 0.5
        values = []
        for sign in (1, -1):
            moved = list(given)
            moved[place] = given[place] + sign * step * along
            values.append(value(*moved).detach())
        found, difference = (gradient * along).sum(), (values[0] - values[1]) / (2 * step)
        torch.testing.assert_close(found, difference, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_advance_is_the_next_bundle_of_a_rollout_with_its_gradients(kind: str) -> None:
    surrogate = make(kind, "autoregressive")
    parameters, times, fields = make_data(surrogate.problem, steps=surrogate.bundle + 1)
    initial = fields[:, 0].requires_grad_()
    predicted = torch.stack([*surrogate.rollout(parameters, times, initial)][1:], 1)
    advanced = surrogate.advance(parameters, times, initial)
    assert advanced.shape == (3, surrogate.bundle, 2, 8, 6)
    torch.testing.assert_close(advanced, predicted, rtol=1e-5, atol=1e-5)
    of_rollout, of_step = (
        torch.autograd.grad(found.square().sum(), initial)[0] for found in (predicted, advanced)
    )
    torch.testing.assert_close(of_step, of_rollout, rtol=1e-4, atol=1e-4)
