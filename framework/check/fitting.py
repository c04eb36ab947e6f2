"""Check that a surrogate can learn three trajectories by heart; if not, it learns no more."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from framework.check.clock import Clock
from framework.check.findings import Finding, failed, passed, skipped
from framework.check.maker import Maker
from framework.check.trial import Data, mode_setting, rollout
from framework.study.streams import Stream, derived_seed
from surrogates.base import Mode, Problem, Surrogate

LEARNED = 1e-3  # the relative L2 error over the rollout that counts as learned
EVALUATIONS = 1000  # of the loss, by L-BFGS, from each start
STARTS = 3  # initial weights tried: the minimiser is stuck from some
_AT_ONCE = 50  # evaluations between two looks at the error
_SIZES = (8, 32)  # the second where a surrogate refuses the first
_LEARNED_STEPS = 4


def check_fit(maker: Maker[Surrogate], mode: Mode, clock: Clock) -> Iterator[Finding]:
    """Three waves on a circle, which travel and decay, are learned to an error of a thousandth."""
    best, evaluated = float("inf"), 0
    for start in range(STARTS):
        made = _for_waves(maker, mode, start)
        if isinstance(made, ValueError):
            yield skipped(f"not offered: {made}")
            return
        done, error = _fit(made, _trajectories(made.problem.grid[0]), clock)
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
            "few weights: these three trajectories are 96 numbers.",
        )


def _for_waves(maker: Maker[Surrogate], mode: Mode, start: int) -> Surrogate | ValueError:
    """Make a surrogate for the trajectories; return the error if it is refused."""
    refused = ValueError()
    for points in _SIZES:
        step = 1 / (_LEARNED_STEPS - 1)
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
        torch.manual_seed(derived_seed(start, Stream.CHECK))
        try:
            return maker.make(problem, **mode_setting(maker, mode))
        except ValueError as error:
            refused = error
    return refused


def _trajectories(points: int) -> Data:
    """Return the fields a exp(-t / 2) sin(x - c t) for three pairs (a, c)."""
    parameters = torch.tensor([[1.0, 0.5], [2.0, 1.0], [1.5, 2.0]])
    t = torch.linspace(0, 1, _LEARNED_STEPS).expand(3, _LEARNED_STEPS)
    x = 2 * torch.pi * torch.arange(points) / points
    a, c = parameters[:, :1, None], parameters[:, 1:, None]
    fields = a * torch.exp(-t[:, :, None] / 2) * torch.sin(x - c * t[:, :, None])
    return Data(parameters, t, fields[:, :, None])


def _fit(surrogate: Surrogate, data: Data, clock: Clock) -> tuple[int, float]:
    """Minimise the loss; return how often it was evaluated, and the error of the rollout."""
    windows = [
        slice(start, start + surrogate.window)
        for start in range(_LEARNED_STEPS - surrogate.window + 1)
    ]
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
    surrogate.train()
    return float(relative.mean())
