"""Every surrogate fits a handful of trajectories to a thousandth."""

from functools import partial

import pytest
import torch
from networks import MODES, fields_normaliser, make_problem, predict
from torch import Tensor

from surrogates.base import Mode
from surrogates.fno import Fno
from surrogates.message_passing import MessagePassing
from surrogates.mlp import Mlp
from surrogates.unet import UNet

torch.set_num_threads(1)
POINTS, TIMES = 8, 4
KINDS = {
    "mlp": partial(Mlp, hidden=(64, 64)),
    "fno": partial(Fno, modes=4, hidden_channels=24, layers=2),
    "unet": partial(UNet, hidden_channels=16, levels=1, periodic=True),
    "message_passing": partial(MessagePassing, hidden=32, layers=2, periodic=True),
    "bundle": partial(MessagePassing, bundle=2, hidden=32, layers=2, periodic=True),
}
FITS = [(kind, mode) for kind in KINDS for mode in MODES if (kind, mode) != ("bundle", "direct")]


def trajectories() -> tuple[Tensor, Tensor, Tensor]:
    """a exp(-t / 2) sin(x - c t) of three (a, c): advection and decay on a circle."""
    parameters = torch.tensor([[1.0, 0.5], [2.0, 1.0], [1.5, 2.0]])
    t = torch.linspace(0, 1, TIMES).expand(3, TIMES)
    x = 2 * torch.pi * torch.arange(POINTS) / POINTS
    a, c = parameters[:, :1, None], parameters[:, 1:, None]
    fields = a * torch.exp(-t[:, :, None] / 2) * torch.sin(x - c * t[:, :, None])
    return parameters, t, fields[:, :, None]


@pytest.mark.parametrize(("kind", "mode"), FITS)
def test_a_handful_of_trajectories_is_learned_to_a_thousandth(kind: str, mode: Mode) -> None:
    """In relative L2 over the rollout, within 1,000 evaluations of the loss."""
    parameters, times, fields = trajectories()
    step = 1 / (TIMES - 1)
    problem = make_problem(
        (POINTS,), low=(1.0, 0.5), high=(2.0, 2.0), log=(False, False), steps=(step, step)
    )
    torch.manual_seed(0)
    surrogate = KINDS[kind](problem, mode)
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
        max_iter=50,
        max_eval=50,
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

    def error() -> float:
        difference = predict(surrogate, parameters, times, fields[:, 0]) - fields
        return float((difference.flatten(1).norm(dim=1) / fields.flatten(1).norm(dim=1)).mean())

    for _ in range(20):
        optimiser.step(evaluate)
        if error() < 1e-3:
            break
    assert error() < 1e-3
