"""A small problem to try a surrogate on, and data for it.

Shapes: n samples, p parameters, C fields, S static fields, T stored times, `*grid` the grid's axes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from framework.check.maker import Maker
from framework.study.streams import Stream, derived_seed, generator
from surrogates.base import Mode, Problem, Surrogate

MODES: tuple[Mode, ...] = ("direct", "autoregressive")
# The grids of one, two and three axes: the next where a surrogate refuses the first.
GRIDS = (
    ((8,), (32,), (64,)),
    ((8, 6), (24, 20), (32, 32)),
    ((4, 6, 5), (20, 18, 16), (16, 16, 16)),
)
_CHANNELS, _STATIC, _TIMES = 2, 1, 6


@dataclass(frozen=True)
class Data:
    """Random parameters [n, p], times [n, T] and fields [n, T, C, *grid]."""

    parameters: Tensor
    times: Tensor
    fields: Tensor

    def like(self, surrogate: Surrogate) -> "Data":
        """Return the same in the surrogate's precision."""
        dtype = surrogate.field_mean.dtype
        return Data(self.parameters.to(dtype), self.times.to(dtype), self.fields.to(dtype))

    def first(self, n: int) -> "Data":
        """Return the first n samples."""
        return Data(self.parameters[:n], self.times[:n], self.fields[:n])

    def window(self, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return arguments for `Surrogate.losses`: samples of `steps` consecutive steps."""
        return self.parameters, self.times[:, :steps], self.fields[:, :steps]


@dataclass(frozen=True)
class Trial:
    """A surrogate's maker, a mode, and a problem that the constructor accepts."""

    maker: Maker[Surrogate]
    mode: Mode
    problem: Problem

    def fresh(self, seed: int) -> Surrogate:
        """Make a new surrogate, with its initial normalisation."""
        return make_in_mode(self.maker, self.problem, self.mode, seed)

    def surrogate(self, seed: int = 0) -> Surrogate:
        """Make a new surrogate, with a normalisation unlike the initial one."""
        surrogate = self.fresh(seed)
        mean, std = torch.full((_CHANNELS,), 3.0), torch.full((_CHANNELS,), 2.0)
        surrogate.normalise_fields(mean, std, torch.full((_CHANNELS,), 0.5))
        return surrogate

    def data(self, surrogate: Surrogate, n: int = 5, seed: int = 0) -> Data:
        """Return n random samples within the problem's bounds."""
        random, problem = generator(seed, Stream.CHECK, 2), self.problem
        parameters = random.uniform(problem.low, problem.high, (n, len(problem.low)))
        steps = random.uniform(*problem.steps, (n, max(_TIMES, surrogate.window)))
        fields = 3 + 2 * random.normal(size=(*steps.shape, problem.channels, *problem.grid))
        arrays = (parameters, np.cumsum(steps, 1), fields)
        return Data(*map(torch.from_numpy, arrays)).like(surrogate)


@torch.no_grad()
def rollout(surrogate: Surrogate, data: Data) -> Tensor:
    """Return the rollout [n, T, C, *grid] from the first of the fields."""
    surrogate.eval()
    times = surrogate.rollout(data.parameters, data.times, data.fields[:, 0])
    return torch.stack(list(times), 1)


def make_in_mode(maker: Maker[Surrogate], problem: Problem, mode: Mode, seed: int) -> Surrogate:
    """Make a surrogate, in double precision if single is not offered. Raises ValueError."""
    torch.manual_seed(derived_seed(seed, Stream.CHECK))
    surrogate = maker.make(problem, **({"mode": mode} if "mode" in maker.settings else {}))
    if surrogate.mode != mode:
        raise ValueError(f"its mode is {surrogate.mode}")
    return surrogate if "float32" in surrogate.precisions else surrogate.double()


def find_trial(maker: Maker[Surrogate], axes: int, mode: Mode) -> Trial:
    """Return a trial on a grid of `axes` axes. Raises ValueError if the constructor refuses all."""
    refused = ValueError()
    for grid in GRIDS[axes - 1]:
        trial = Trial(maker, mode, random_problem(grid))
        try:
            trial.surrogate()
        except ValueError as error:
            refused = error
        else:
            return trial
    raise refused


def random_problem(grid: tuple[int, ...]) -> Problem:
    """Return a problem of two parameters, two fields and a static field."""
    static = generator(0, Stream.CHECK, 3).normal(5, 2, (_STATIC, *grid)).astype(np.float32)
    low, high, log = (1.0, 0.1), (3.0, 10.0), (False, True)
    return Problem(("a", "b"), low, high, log, (0.0, 3.0), (0.1, 0.4), _CHANNELS, grid, static)
