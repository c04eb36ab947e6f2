"""Several ranks train as one."""

from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import spawn
from trainers import (
    OPTIMISERS,
    STEPS,
    assert_close,
    filled,
    in_time,
    make,
    make_samples,
    make_trainer,
    part_of,
    statistics_of,
    tensors,
    train_by_hand,
)

from framework.stream import collective
from framework.stream.buffers.buffer import Buffer
from framework.stream.ledger import Ledger
from framework.stream.samples import Batch
from surrogates.base import Mode

# Name: surrogate, mode, settings, the number of samples of each of the two ranks, and of steps.
RUNS: dict[str, tuple[str, Mode, dict[str, Any], tuple[int, int], int]] = {
    "mlp": ("mlp", "autoregressive", {"precision": "float64", "optimiser": "adam"}, (25, 12), 5),
    "fno": ("fno", "direct", {"optimiser": "sgd"}, (12, 25), 5),
    "one without samples": ("mlp", "direct", {"precision": "float64"}, (7, 0), 2),
    "stopped": ("mlp", "direct", {"stop": {"samples": 20}}, (25, 10), 2),
    "bfloat16": ("mlp", "direct", {"precision": "bfloat16", "optimiser": "sgd"}, (12, 25), 5),
    "unet": ("unet", "direct", {"precision": "float64"}, (12, 13), 3),
}
TOLERANCES = {"float64": 1e-10, "float32": 1e-4, "bfloat16": 1e-2}


def starve(buffer: Buffer, turns: int) -> None:
    """Let a buffer have no samples for so many turns."""
    get = buffer.get

    def late(seconds: float | None = None) -> Batch | None:
        nonlocal turns
        turns -= 1
        if turns >= 0:
            raise TimeoutError
        return get(seconds)

    buffer.get = late  # type: ignore[method-assign]


def run_rank(rank: int, directory: str) -> None:
    """One process of two; saves what became of each of the runs."""
    torch.set_num_threads(1)
    collective.BUCKET_BYTES = 200  # several messages a step
    dist.init_process_group("gloo", f"file://{directory}/store", rank=rank, world_size=2)
    for name, (kind, mode, config, share, _) in RUNS.items():
        surrogate, ledger = make(kind, mode), Ledger(STEPS, 2 if mode == "autoregressive" else 1)
        samples = make_samples(sum(share), surrogate.window)
        own = part_of(samples, slice(0, share[0]) if rank == 0 else slice(share[0], None))
        buffer = filled(own, over=name != "stopped")
        trainer = make_trainer(surrogate, buffer, ledger, learning_rate=0.01, **config)
        starve(buffer, rank * 3)
        asked: list[int] = []
        calls = count()
        trainer.train(
            statistics_of(own),
            lambda: asked.append(trainer.optimiser_steps) if trainer.asked else None,  # noqa: B023
            lambda: rank == 0 or next(calls) == 4,  # noqa: B023 (in the second step)
        )
        weights = trainer.surrogate.tensors()
        assert asked == [2], asked
        assert trainer.gradients.messages > 2 * trainer.optimiser_steps
        numbers = trainer.optimiser_steps, trainer.drawn, ledger.unique_trained, trainer.loss.item()
        torch.save((weights, numbers), Path(directory, f"{name}-{rank}"))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ranks")
    in_time(lambda: spawn(run_rank, (str(directory),), nprocs=2, daemon=True))
    return directory


@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_train_as_one_on_their_joint_batches(name: str, ranks: Path) -> None:
    kind, mode, config, share, steps = RUNS[name]
    first, second = (torch.load(ranks / f"{name}-{rank}") for rank in (0, 1))
    assert all(torch.equal(tensor, second[0][key]) for key, tensor in first[0].items())
    drawn = 20 if name == "stopped" else sum(share)
    unique = [10, 10] if name == "stopped" else [*share]
    assert [first[1][:3], second[1][:3]] == [(steps, drawn, number) for number in unique]

    surrogate = make(kind, mode)
    if config.get("precision") == "float64":
        surrogate.double()
    samples = make_samples(sum(share), surrogate.window)
    batches = []
    for start in range(0, 5 * steps, 5):
        parts = [
            tensors(samples, slice(min(start, share[0]), min(start + 5, share[0]))),
            tensors(samples, slice(share[0] + start, share[0] + start + 5)),
        ]
        batches.append([torch.cat(both) for both in zip(*parts, strict=True)])
    optimiser = OPTIMISERS[config.get("optimiser", "adam")](surrogate.parameters(), lr=0.01)
    expected, loss = train_by_hand(surrogate, optimiser, samples, batches)
    tolerance = TOLERANCES[config.get("precision", "float32")]
    assert_close(first[0], expected, tolerance)
    assert first[1][3] == second[1][3] == pytest.approx(loss, rel=tolerance)
