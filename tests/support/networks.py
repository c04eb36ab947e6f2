"""Small problems for surrogates, and what they predict."""

import numpy as np
import torch
from torch import Tensor

from surrogates.base import Mode, Problem, Surrogate

MODES: tuple[Mode, ...] = ("direct", "autoregressive")


def make_problem(
    grid: tuple[int, ...] = (8,),
    channels: int = 1,
    static: int = 0,
    low: tuple[float, ...] = (1.0, 0.1),
    high: tuple[float, ...] = (3.0, 10.0),
    log: tuple[bool, ...] = (False, True),
    times: tuple[float, float] = (0.0, 1.0),
    steps: tuple[float, float] = (0.1, 0.4),
    static_seed: int = 0,
) -> Problem:
    fields = np.random.default_rng(static_seed).normal(5, 2, (static, *grid)).astype(np.float32)
    names = tuple(f"p{number}" for number in range(len(low)))
    return Problem(names, low, high, log, times, steps, channels, grid, fields)


def make_data(problem: Problem, n: int = 3, steps: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Parameters [n, p], times [n, steps] and fields [n, steps, C, *grid], all different."""
    random = np.random.default_rng(1)
    parameters = random.uniform(problem.low, problem.high, (n, len(problem.low)))
    times = np.cumsum(random.integers(6, 20, (n, steps)), axis=1) / 64  # exact differences
    fields = 3 + 2 * random.normal(size=(n, steps, problem.channels, *problem.grid))
    return torch.tensor(parameters).float(), torch.tensor(times).float(), torch.tensor(fields)


@torch.no_grad()
def predict(surrogate: Surrogate, parameters: Tensor, times: Tensor, initial: Tensor) -> Tensor:
    return torch.stack(list(surrogate.rollout(parameters, times, initial)), 1)


def fields_normaliser(fields: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, standard deviation and root mean square change of fields [n, w, C, *grid]."""
    axes = [0, *range(2, fields.ndim - 1)]
    mean = fields.transpose(1, 2).flatten(2).mean((0, 2))
    std = fields.transpose(1, 2).flatten(2).std((0, 2), correction=0)
    change = (fields[:, -1] - fields[:, 0]).square().mean(axes).sqrt()
    return mean.float(), std.float(), change.float()


class Still(Surrogate):
    """In mode `autoregressive`, predicts that nothing changes."""

    def __init__(self, problem: Problem, mode: Mode = "direct") -> None:
        super().__init__(problem, mode)
        self.zero = torch.nn.Parameter(torch.zeros(()))

    def forward(self, conditions: Tensor, state: Tensor) -> Tensor:
        shape = (len(conditions), self.problem.channels, *self.problem.grid)
        return self.zero.expand(shape)
