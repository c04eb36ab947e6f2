"""Every surrogate fits a handful of trajectories to a thousandth."""

from functools import partial

import pytest
import torch
from test_surrogates import fields_normaliser, make_problem, predict
from torch import Tensor

from surrogates.base import Mode
from surrogates.fno import Fno
from surrogates.message_passing import MessagePassing
from surrogates.mlp import Mlp
from surrogates.unet import UNet

torch.set_num_threads(1)
POINTS, TIMES = 8, 4
# Name: the surrogate, and how often its loss is evaluated.
FITS = {
    "mlp": (partial(Mlp, hidden=(64, 64)), 300),
    "fno": (partial(Fno, modes=4, hidden_channels=24, layers=2), 500),
    "unet": (partial(UNet, hidden_channels=16, levels=1, periodic=True), 400),
    "message_passing": (partial(MessagePassing, hidden=32, layers=2, periodic=True), 700),
    "bundle": (partial(MessagePassing, bundle=2, hidden=32, layers=2, periodic=True), 400),
}


def trajectories() -> tuple[Tensor, Tensor, Tensor]:
    """a exp(-t / 2) sin(x - c t) of three (a, c): advection and decay on a circle."""
    parameters = torch.tensor([[1.0, 0.5], [2.0, 1.0], [1.5, 2.0]])
    t = torch.linspace(0, 1, TIMES).expand(3, TIMES)
    x = 2 * torch.pi * torch.arange(POINTS) / POINTS
    a, c = parameters[:, :1, None], parameters[:, 1:, None]
    fields = a * torch.exp(-t[:, :, None] / 2) * torch.sin(x - c * t[:, :, None])
    return parameters, t, fields[:, :, None]


@pytest.mark.parametrize("mode", ["direct", "autoregressive"])
@pytest.mark.parametrize("name", FITS)
def test_a_handful_of_trajectories_is_learned_to_a_thousandth(name: str, mode: Mode) -> None:
    if (name, mode) == ("bundle", "direct"):
        pytest.skip("in mode direct there is no bundle")
    parameters, times, fields = trajectories()
    step = 1 / (TIMES - 1)
    problem = make_problem(
        (POINTS,), low=(1.0, 0.5), high=(2.0, 2.0), log=(False, False), steps=(step, step)
    )
    make, evaluations = FITS[name]
    torch.manual_seed(0)
    surrogate = make(problem, mode)
    starts = range(TIMES - surrogate.window + 1)
    windows = [slice(start, start + surrogate.window) for start in starts]
    batch = (
        parameters.repeat(len(windows), 1),
        torch.cat([times[:, window] for window in windows]),
        torch.cat([fields[:, window] for window in windows]),
    )
    surrogate.normalise_fields(*fields_normaliser(batch[2]))
    optimiser = torch.optim.LBFGS(
        surrogate.parameters(),
        max_iter=evaluations,
        max_eval=evaluations,
        history_size=200,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def evaluate() -> Tensor:
        optimiser.zero_grad()
        loss = surrogate.losses(*batch).mean()
        loss.backward()
        return loss

    optimiser.step(evaluate)
    error = (predict(surrogate, parameters, times, fields[:, 0]) - fields).flatten(1).norm(dim=1)
    assert (error / fields.flatten(1).norm(dim=1)).mean() < 1e-3
