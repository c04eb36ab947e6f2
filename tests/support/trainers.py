"""Small surrogates, data to train them on, and trainers."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from buffers import make_buffer
from torch import Tensor
from waiting import LIMIT

from framework.stream.buffers.buffer import Buffer
from framework.stream.ledger import Ledger
from framework.stream.samples import Samples
from framework.stream.source import StreamSource
from framework.stream.statistics import FieldStatistics
from framework.study.sections import BufferConfig
from framework.training.trainer import Trainer, TrainerSettings
from surrogates.base import Mode, Problem, Surrogate
from surrogates.fno import Fno
from surrogates.message_passing import MessagePassing
from surrogates.mlp import Mlp
from surrogates.unet import UNet

GRID = (3,)  # as that of make_block
STEPS = 60  # of a simulation

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


def make_trainer(
    surrogate: Surrogate, buffer: Buffer, ledger: Ledger | None = None, **config: Any
) -> Trainer:
    stop = config.pop("stop", "drained")
    settings = TrainerSettings(**config, **({} if stop == "drained" else stop))
    ledger = ledger or Ledger(STEPS, surrogate.window)
    source = StreamSource(buffer, ledger, expected=37)
    return Trainer(surrogate, settings, torch.device("cpu"), source, ledger)


def part_of(samples: Samples, part: slice) -> Samples:
    return Samples(*(array[part] for array in vars(samples).values()))


def train(
    trainer: Trainer, samples: Samples, after_step: Callable[[], None] = lambda: None
) -> dict[str, Tensor]:
    trainer.train(statistics_of(samples), after_step)
    return trainer.surrogate.tensors()


def in_time(function: Callable[[], Any]) -> None:
    """Call what must not wait for ever."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive()
    assert not errors, errors


def tensors(samples: Samples, part: slice) -> list[Tensor]:
    arrays = samples.parameters, samples.times, samples.fields
    return [torch.tensor(array[part]) for array in arrays]


def train_by_hand(
    surrogate: Surrogate,
    optimiser: torch.optim.Optimizer,
    samples: Samples,
    batches: list[list[Tensor]],
) -> tuple[dict[str, Tensor], float]:
    """The textbook's loop over the mean squared error; also the last step's loss."""
    fields = samples.fields.astype(np.float64)
    axes = (0, 1, 3)
    change = np.sqrt(np.square(fields[:, -1] - fields[:, 0]).mean((0, 2)))
    normaliser = fields.mean(axes), fields.std(axes), change
    surrogate.normalise_fields(*(torch.tensor(values).float() for values in normaliser))
    loss = torch.zeros(())
    for batch in batches:
        loss = surrogate.losses(*batch).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return surrogate.tensors(), loss.item()


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=tolerance, atol=tolerance)


OPTIMISERS: dict[str, Any] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
