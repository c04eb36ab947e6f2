"""Small surrogates, and data to train them on."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from buffers import make_buffer

from framework.stream.buffers.buffer import Buffer
from framework.stream.samples import Samples
from framework.stream.statistics import FieldStatistics
from framework.study.sections import BufferConfig
from surrogates.base import Mode, Problem, Surrogate
from surrogates.fno import Fno
from surrogates.message_passing import MessagePassing
from surrogates.mlp import Mlp
from surrogates.unet import UNet

GRID = (3,)  # as that of make_block

KINDS: dict[str, Callable[..., Surrogate]] = {
    "mlp": partial(Mlp, hidden=(8,)),
    "fno": partial(Fno, modes=2, hidden_channels=4, layers=2),
    "unet": partial(UNet, hidden_channels=4, levels=1),
    "message_passing": partial(MessagePassing, hidden=8, layers=2),
}


def make_problem() -> Problem:
    static = np.zeros((0, *GRID), dtype=np.float32)
    return Problem(
        ("a", "b"), (0.0, 0.0), (1.0, 1.0), (False, False), (0, 1), (0.1, 0.2), 2, GRID, static
    )


def make_samples(n: int, window: int = 1, first: int = 0) -> Samples:
    """n samples of simulation 0 from step `first` on, all different."""
    random = np.random.default_rng(first)
    fields = random.normal(3, 2, (n, window, 2, *GRID)).astype(np.float32)
    times = np.cumsum(random.uniform(0.1, 0.2, (n, window)), 1).astype(np.float32)
    parameters = random.uniform(size=(n, 2)).astype(np.float32)
    return Samples(np.zeros(n, dtype=np.int64), first + np.arange(n), parameters, times, fields)


def filled(samples: Samples, kind: str = "fifo", over: bool = True, seed: int = 0) -> Buffer:
    """A buffer with all of the samples, for batches of 5."""
    replay = (1, 100) if kind == "reservoir" else (1, 1)
    config = BufferConfig.model_validate({"kind": kind, "capacity": 50, "replay": replay})
    buffer = make_buffer(config, 5, samples.times.shape[1], 2, (2, *GRID), seed)
    buffer.put(samples)
    if over:
        buffer.end_reception()
    return buffer


def make(kind: str = "mlp", mode: Mode = "direct", seed: int = 0) -> Surrogate:
    torch.manual_seed(seed)
    surrogate: Surrogate = KINDS[kind](make_problem(), mode)
    return surrogate


def statistics_of(samples: Samples) -> FieldStatistics:
    statistics = FieldStatistics(2)
    statistics.add(samples)
    return statistics
