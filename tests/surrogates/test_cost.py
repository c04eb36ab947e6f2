"""What an optimiser step costs, against counts by hand."""

from math import log2

import pytest
import torch
from networks import make_data, make_problem

from surrogates.base import Mode, Surrogate
from surrogates.fno import Fno
from surrogates.message_passing import MessagePassing
from surrogates.mlp import Mlp
from surrogates.unet import UNet

torch.set_num_threads(1)
N = 10  # samples


@pytest.mark.parametrize("mode", ["direct", "autoregressive"])
def test_an_mlp_costs_what_its_matrices_do(mode: Mode) -> None:
    """Forward once, backward twice; the inputs need no gradient."""
    surrogate = Mlp(make_problem((6, 4), channels=2, static=1), mode, hidden=(32, 16))
    inputs = 3 + 24 + (1 + 48) * (mode == "autoregressive")
    weights = [inputs * 32, 32 * 16, 16 * 48]
    cost = surrogate.cost(N)
    assert cost.parameters == sum(weights) + 32 + 16 + 48
    assert cost.flops == 2 * N * (2 * weights[0] + 3 * (weights[1] + weights[2]))
    buffers = sum(buffer.nbytes for buffer in surrogate.buffers())
    # The input, what follows each ReLU, and the output's error.
    kept = 4 * N * (inputs + 32 + 16 + 48)
    assert cost.memory_bytes == 4 * 4 * cost.parameters + buffers + kept


def test_an_fno_costs_what_its_convolutions_and_transforms_do() -> None:
    surrogate = Fno(make_problem((16,)), modes=6, hidden_channels=8, layers=1)
    cost = surrogate.cost(N)
    # Six convolutions with a kernel of one point: in to out, on 16 points. Channels before the
    # first: 3 conditions and the coordinate, which need no gradient.
    pairs = [(4, 16), (16, 8), (8, 8), (8, 4), (4, 8), (8, 16), (16, 1)]
    convolutions = 2 * 16 * N * (3 * sum(i * o for i, o in pairs) - 4 * 16)
    # 4 of the 9 frequencies, a complex matrix each: 8 operations for a product and a sum.
    spectral = 3 * 8 * N * 4 * 8 * 8
    # Forward there and back, real on one side; backward the same, but complex on both the last.
    transforms = N * 8 * 16 * log2(16) * (2.5 + 2.5 + 2.5 + 5)
    assert cost.flops == convolutions + spectral + transforms
    assert cost.parameters == sum(weight.numel() for weight in surrogate.parameters()) + 4 * 8 * 8


def test_a_unet_costs_what_its_convolutions_do() -> None:
    surrogate = UNet(make_problem((8,)), hidden_channels=4, levels=1)
    fine = [(1, 4), (4, 4), (4, 4), (12, 4), (4, 4), (4, 1)]
    coarse = [(4, 8), (8, 8), (8, 8)]
    convolutions = (
        3
        * 2
        * N
        * 3
        * sum(points * i * o for points, pairs in ((8, fine), (4, coarse)) for i, o in pairs)
    )
    convolutions += 3 * 2 * N * 8 * 12 * 4  # the short cut
    convolutions -= 2 * N * 3 * 8 * 4  # the coordinates need no gradient
    embedding = 2 * N * (2 * 3 * 8 + 3 * 8 * 2 * (4 + 8 + 4))
    assert surrogate.cost(N).flops == convolutions + embedding


def test_message_passing_costs_what_its_matrices_do() -> None:
    """The number of neighbours does not matter: what is done for a pair is no matrix."""
    for neighbours in 1, 3:
        settings = {"bundle": 2, "hidden": 8, "layers": 2, "neighbours": neighbours}
        surrogate = MessagePassing(make_problem((12,)), "autoregressive", **settings)
        k = 2 + 1 + 2
        encode = 12 * (2 * (1 + 1 + k) * 8 + 3 * 8 * 8)
        layer = 12 * (3 * 8 * 16 + 2 * 1 * 8 + 3 * 16 * 8 + 3 * 8 * 8) + 2 * k * 16
        decode = 12 * (3 * 8 * 8 + 3 * 8 * 2)
        assert surrogate.cost(N).flops == 2 * N * (encode + 2 * layer + decode)


def test_the_pushforward_costs_half_a_forward_pass() -> None:
    def flops(pushforward: bool) -> int:
        problem = make_problem((12,))
        surrogate = MessagePassing(problem, "autoregressive", 2, pushforward, hidden=8, layers=2)
        return surrogate.cost(N).flops

    k = 5
    forward = 12 * (7 * 8 + 8 * 8 + 2 * (8 * 16 + 8 + 16 * 8 + 8 * 8) + 8 * 8 + 8 * 2) + 2 * k * 16
    assert flops(True) - flops(False) == N * forward


@pytest.mark.parametrize("kind", [Mlp, Fno, UNet, MessagePassing])
def test_counting_changes_nothing(kind: type[Surrogate]) -> None:
    surrogate = kind(make_problem((16,)), "autoregressive")
    before, state = surrogate.tensors(), torch.get_rng_state()
    surrogate.losses(*make_data(surrogate.problem, steps=2)).mean().backward()
    gradients = [
        weight.grad.clone() for weight in surrogate.parameters() if weight.grad is not None
    ]
    assert surrogate.cost(3).flops > surrogate.cost(1).flops > 0
    assert surrogate.training
    assert all(torch.equal(value, before[name]) for name, value in surrogate.tensors().items())
    assert torch.equal(torch.get_rng_state(), state)
    for weight, gradient in zip(surrogate.parameters(), gradients, strict=True):
        assert torch.equal(weight.grad, gradient)
