"""Check that a surrogate can learn three trajectories by heart; if not, it learns no more."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from framework.check.clock import Clock
from framework.check.findings import Finding, failed, passed, skipped
from framework.check.maker import Maker
from framework.check.trial import Data, make_in_mode, rollout
from surrogates.base import Mode, Problem, Surrogate

LEARNED = 3e-3  # the relative L2 error over the rollout that counts as learned
EVALUATIONS = 1000  # of the loss, by L-BFGS, from each start
STARTS = 3  # initial weights tried: the minimiser is stuck from some
_AT_ONCE = 50  # evaluations between two looks at the error
_SIZES = (8, 32, 64)  # the next where a surrogate refuses the first
_LEAST_TIMES = 4


def check_fit(maker: Maker[Surrogate], mode: Mode, clock: Clock) -> Iterator[Finding]:
    """Three waves on a circle, which travel and decay, are learned to a relative error of 0.003."""
    best, evaluated = float("inf"), 0
    for start in range(STARTS):
        try:
            made = _for_waves(maker, mode, start)
        except ValueError as refusal:
            yield skipped(f"not offered: {refusal}")
            return
        data = _trajectories(made.problem.grid[0], _times(made)).like(made)
        done, error = _fit(made, data, clock)
        best, evaluated = min(best, error), evaluated + done
        told = (
            f"relative error {best:.1e} of three trajectories after {evaluated} evaluations of "
            "the loss"
        )
        if best <= LEARNED:
            yield passed(told)
            return
    if clock.left <= 0:
        yield skipped(f"{told}, {clock.limit:g} s: see --limit")
    else:
        yield failed(
            f"{told} from {STARTS} starts, not {LEARNED:g}",
            "Look for an input that the network does not use, an activation at its output, or too "
            f"few weights: these three trajectories are {data.fields.numel()} numbers.",
        )


def _times(surrogate: Surrogate) -> int:
    """Return how many times the trajectories have: enough for one prediction at least."""
    return max(_LEAST_TIMES, _window(surrogate))


def _window(surrogate: Surrogate) -> int:
    """Return how many times a prediction spans, without those of the pushforward."""
    return 1 if surrogate.mode == "direct" else 1 + surrogate.bundle


def _for_waves(maker: Maker[Surrogate], mode: Mode, start: int) -> Surrogate:
    """Make a surrogate for the trajectories. Raises ValueError if it is refused."""
    refused = ValueError()
    for points in _SIZES:
        try:
            first = _made_for(maker, mode, start, points, _LEAST_TIMES)
            return _made_for(maker, mode, start, points, _times(first))
        except ValueError as error:
            refused = error
    raise refused


def _made_for(
    maker: Maker[Surrogate], mode: Mode, start: int, points: int, times: int
) -> Surrogate:
    """Make a surrogate for a grid and a number of times. Raises ValueError if it is refused."""
    step = 1 / (times - 1)
    problem = Problem(
        ("a", "c"),
        (1.0, 0.5),
        (2.0, 2.0),
        (False, False),
        (0.0, 1.0),
        (step, step),
        1,
        (points,),
        np.zeros((0, points), dtype=np.float32),
    )
    return make_in_mode(maker, problem, mode, start)


def _trajectories(points: int, times: int) -> Data:
    """Return the fields a exp(-t / 2) sin(x - c t) for three pairs (a, c)."""
    parameters = torch.tensor([[1.0, 0.5], [2.0, 1.0], [1.5, 2.0]])
    t = torch.linspace(0, 1, times).expand(3, times)
    x = 2 * torch.pi * torch.arange(points) / points
    a, c = parameters[:, :1, None], parameters[:, 1:, None]
    fields = a * torch.exp(-t[:, :, None] / 2) * torch.sin(x - c * t[:, :, None])
    return Data(parameters, t, fields[:, :, None])


def _fit(surrogate: Surrogate, data: Data, clock: Clock) -> tuple[int, float]:
    """Minimise the loss; return how often it was evaluated, and the error of the rollout."""
    starts = range(data.times.shape[1] - _window(surrogate) + 1)
    windows = [slice(start, start + _window(surrogate)) for start in starts]
    batch = (
        data.parameters.repeat(len(windows), 1),
        torch.cat([data.times[:, window] for window in windows]),
        torch.cat([data.fields[:, window] for window in windows]),
    )
    change = (batch[2][:, -1] - batch[2][:, 0]).square().mean().sqrt()
    surrogate.normalise_fields(batch[2].mean()[None], batch[2].std()[None], change[None])
    optimiser = torch.optim.LBFGS(
        surrogate.parameters(),
        max_iter=_AT_ONCE,
        max_eval=_AT_ONCE,
        history_size=200,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    # L-BFGS needs a loss without chance: no dropout, no pushforward.
    surrogate.eval()

    def evaluate() -> float:
        optimiser.zero_grad()
        loss = surrogate.losses(*batch).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    done, error = 0, float("inf")
    while done < EVALUATIONS and error > LEARNED and clock.left > 0:
        optimiser.step(evaluate)  # type: ignore[no-untyped-call]
        done += _AT_ONCE
        error = _error(surrogate, data)
    return done, error


def _error(surrogate: Surrogate, data: Data) -> float:
    """Return the mean relative L2 error of the trajectories."""
    difference: Tensor = rollout(surrogate, data) - data.fields
    relative = difference.flatten(1).norm(dim=1) / data.fields.flatten(1).norm(dim=1)
    return float(relative.mean())
