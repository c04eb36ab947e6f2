"""The training loop of one rank."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trainers import (
    GRID,
    KINDS,
    OPTIMISERS,
    STEPS,
    assert_close,
    filled,
    in_time,
    make,
    make_problem,
    make_samples,
    make_trainer,
    tensors,
    train,
    train_by_hand,
)

from framework.stream.buffers.buffer import Closed
from framework.stream.ledger import Ledger
from surrogates.base import Mode, Surrogate

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("stop", "steps", "drawn"),
    [
        ("drained", 8, 37),
        ({"steps": 3}, 3, 15),
        ({"steps": 100}, 8, 37),
        ({"samples": 11}, 3, 15),
        ({"samples": 37}, 8, 37),
        ({"seconds": 1000.0}, 8, 37),
    ],
)
def test_training_ends_at_its_stop_or_when_drained(stop: Any, steps: int, drawn: int) -> None:
    samples = make_samples(37)
    ledger = Ledger(STEPS, 1)
    trainer = make_trainer(make(), filled(samples), ledger, stop=stop)
    counted: list[tuple[int, ...]] = []
    train(
        trainer,
        samples,
        lambda: counted.append((trainer.optimiser_steps, trainer.drawn, ledger.unique_trained)),
    )
    assert counted == [(n, min(5 * n, 37), min(5 * n, 37)) for n in range(1, steps + 1)]
    assert (trainer.optimiser_steps, trainer.drawn) == (steps, drawn)


@pytest.mark.parametrize("stop", [{"steps": 2}, {"samples": 8}, {"seconds": 0.2}])
def test_a_stop_is_kept_though_no_further_sample_comes(stop: Any) -> None:
    samples = make_samples(10)
    buffer = filled(samples, over=False)
    trainer = make_trainer(make(), buffer, stop=stop)
    in_time(lambda: train(trainer, samples))
    assert (trainer.optimiser_steps, trainer.drawn) == (2, 10)
    assert trainer.seconds >= stop.get("seconds", 0)
    with pytest.raises(Closed):
        buffer.put(samples)


@pytest.mark.parametrize("stop", ["drained", {"steps": 2}, {"samples": 8}, {"seconds": 1000.0}])
def test_a_run_that_receives_nothing_ends_untrained(stop: Any) -> None:
    trainer = make_trainer(make(), filled(make_samples(0)), stop=stop)
    weights = train(trainer, make_samples(0))
    assert (trainer.optimiser_steps, trainer.drawn, float(trainer.loss)) == (0, 0, 0)
    assert all(torch.equal(tensor, make().tensors()[name]) for name, tensor in weights.items())


def test_training_ends_when_its_buffer_is_closed() -> None:
    samples = make_samples(30)
    buffer = filled(samples, over=False)
    trainer = make_trainer(make(), buffer)
    train(trainer, samples, lambda: buffer.close() if trainer.optimiser_steps == 2 else None)
    assert trainer.optimiser_steps == 2


def test_a_sample_drawn_again_is_not_a_new_one() -> None:
    samples, ledger = make_samples(6), Ledger(STEPS, 1)
    buffer = filled(samples, "reservoir", over=False)
    trainer = make_trainer(make(), buffer, ledger, stop={"steps": 6})
    train(trainer, samples)
    assert (trainer.drawn, ledger.unique_trained) == (30, 6)


class Offset(Surrogate):
    """Predicts one number, its only weight, which begins at 1."""

    def __init__(self) -> None:
        super().__init__(make_problem(), "direct")
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, conditions: Tensor, state: Tensor) -> Tensor:
        return self.weight.expand(len(conditions), 2, *GRID)


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize(
    ("stop", "progress"),
    [
        ({"steps": 6}, [n / 6 for n in range(6)]),
        ({"samples": 22}, [5 * n / 22 for n in range(5)]),
        ("drained", [5 * n / 37 for n in range(8)]),
    ],
)
def test_learning_rates_are_those_of_the_schedule(
    stop: Any, progress: list[float], schedule: str, warmup: int
) -> None:
    """Fields that never vary are 0 in normalised units, so the weight w has the gradient 2 w and
    every step of gradient descent multiplies it by 1 - 2 * rate."""
    samples = make_samples(37)
    samples.fields[:] = 300
    surrogate = Offset()
    config = {"schedule": schedule, "warmup_steps": warmup, "stop": stop, "precision": "float64"}
    trainer = make_trainer(surrogate, filled(samples), optimiser="sgd", learning_rate=0.1, **config)
    weights = [1.0]
    train(trainer, samples, lambda: weights.append(surrogate.weight.item()))
    found = [(1 - after / before) / 2 for before, after in pairwise(weights)]
    expected = [
        0.1 * (step + 1) / warmup
        if step < warmup
        else 0.05 * (1 + math.cos(math.pi * part))
        if schedule == "cosine"
        else 0.1
        for step, part in enumerate(progress)
    ]
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("mode", ["direct", "autoregressive"])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_steps_are_those_of_the_optimiser_on_the_mean_loss(optimiser: str, mode: Mode) -> None:
    """The last batch, of 2 samples, counts as much as the others, of 5."""
    surrogate = make(mode=mode)
    samples = make_samples(12, surrogate.window)
    config = {"optimiser": optimiser, "learning_rate": 0.01, "weight_decay": 0.1}
    trainer = make_trainer(surrogate, filled(samples), precision="float64", **config)
    found = train(trainer, samples)
    by_hand = make(mode=mode).double()
    expected, loss = train_by_hand(
        by_hand,
        OPTIMISERS[optimiser](by_hand.parameters(), lr=0.01, weight_decay=0.1),
        samples,
        [tensors(samples, slice(*edges)) for edges in ((0, 5), (5, 10), (10, 12))],
    )
    assert_close(found, expected, 1e-12)
    assert trainer.loss.dtype == torch.float64
    assert trainer.loss.item() == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_samples_in_the_same_order_give_the_same_bits(kind: str) -> None:
    samples = make_samples(37)

    def run(seed: int) -> dict[str, Tensor]:
        return train(make_trainer(make(kind), filled(samples, "firo", seed=seed)), samples)

    first, again, other = run(0), run(0), run(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("kind", "precision"),
    [(kind, name) for kind in KINDS for name in make(kind).precisions],
)
def test_a_surrogate_learns_in_every_precision_it_declares(kind: str, precision: str) -> None:
    samples = make_samples(50)
    samples.fields[:] = samples.parameters[:, 0, None, None, None]
    surrogate = make(kind)
    losses: list[float] = []
    for _ in range(10):
        config = {"precision": precision, "learning_rate": 0.01}
        trainer = make_trainer(surrogate, filled(samples), **config)
        train(trainer, samples, lambda: losses.append(float(trainer.loss)))  # noqa: B023
    assert max(losses[-10:]) < 0.3 * min(losses[:3])
