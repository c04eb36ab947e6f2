"""The training loop, alone and on several ranks; the receive thread; the fields' statistics."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from blocks import make_block
from buffers import make_buffer
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.multiprocessing import spawn
from trainers import GRID, KINDS, filled, make, make_problem, make_samples, statistics_of
from waiting import LIMIT

from framework.simulation.block import Block
from framework.stream.buffers.buffer import Buffer, Closed
from framework.stream.ledger import Ledger
from framework.stream.reception import Reception
from framework.stream.samples import Samples
from framework.stream.source import StreamSource
from framework.stream.statistics import FieldStatistics
from framework.study.sections import BufferConfig
from framework.training.trainer import Trainer, TrainerSettings
from surrogates.base import Mode, Surrogate

torch.set_num_threads(1)
STEPS = 60  # of a simulation


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


# ---- The fields' statistics.


@given(
    sizes=st.lists(st.integers(0, 7), min_size=1, max_size=8),
    window=st.integers(1, 4),
    bundle=st.integers(1, 2),
    offset=st.sampled_from([0.0, -3.0, 1e6]),
    seed=st.integers(0, 99),
)
def test_statistics_are_numpys_however_the_samples_come(
    sizes: list[int], window: int, bundle: int, offset: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    n = sum(sizes)
    fields = random.normal(offset, 0.5, (n, window, 2, 3, 2)).astype(np.float32)
    fields[:, :, 1] *= 3
    bundle = min(bundle, max(window - 1, 1))
    statistics = FieldStatistics(2, bundle)
    start = 0
    for size in sizes:
        part = fields[start : start + size]
        none = np.zeros((size, 0), dtype=np.float32)
        statistics.add(Samples(np.zeros(size, int), np.zeros(size, int), none, none, part))
        start += size
    mean, std, change = (values.numpy() for values in statistics.freeze())
    if not n:
        assert mean.tolist() == std.tolist() == [0, 0]
        assert change.tolist() == [[0, 0]] * bundle
        return
    exact = fields.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 3, 4)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(std, exact.std((0, 1, 3, 4)), rtol=1e-6)
    assert change.shape == (bundle, 2)
    for steps, found in enumerate(change, 1):
        later = exact[:, steps] if window > 1 else exact[:, 0]
        expected = np.sqrt(np.square(later - exact[:, 0]).mean((0, 2, 3)))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_comes_after_the_freeze_changes_nothing() -> None:
    statistics = statistics_of(make_samples(7, window=2))
    before = statistics.freeze()
    statistics.add(make_samples(9, window=2, first=7))
    for now, then in zip(statistics.freeze(), before, strict=True):
        assert torch.equal(now, then)


# ---- One rank.


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


OPTIMISERS: dict[str, Any] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


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


# ---- Several ranks.

# Name: surrogate, mode, settings, the number of samples of each of the two ranks, and of steps.
RUNS: dict[str, tuple[str, Mode, dict[str, Any], tuple[int, int], int]] = {
    "mlp": ("mlp", "autoregressive", {"precision": "float64", "optimiser": "adam"}, (25, 12), 5),
    "fno": ("fno", "direct", {"optimiser": "sgd"}, (12, 25), 5),
    "one without samples": ("mlp", "direct", {"precision": "float64"}, (7, 0), 2),
    "stopped": ("mlp", "direct", {"stop": {"samples": 20}}, (25, 10), 2),
}


def run_rank(rank: int, directory: str) -> None:
    """One process of two; saves what became of each of the runs."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{directory}/store", rank=rank, world_size=2)
    for name, (kind, mode, config, share, _) in RUNS.items():
        surrogate, ledger = make(kind, mode), Ledger(STEPS, 2 if mode == "autoregressive" else 1)
        samples = make_samples(sum(share), surrogate.window)
        own = part_of(samples, slice(0, share[0]) if rank == 0 else slice(share[0], None))
        buffer = filled(own, over=name != "stopped")
        trainer = make_trainer(surrogate, buffer, ledger, learning_rate=0.01, **config)
        weights = train(trainer, own)
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
    tolerance = 1e-10 if config.get("precision") == "float64" else 1e-4
    assert_close(first[0], expected, tolerance)
    assert first[1][3] == second[1][3] == pytest.approx(loss, rel=tolerance)


# ---- The receive thread.


class Script:
    """Yields these blocks, or raises; `again` is what a simulation that starts anew yields."""

    def __init__(self, *items: Block | Exception, again: Sequence[Block] = ()) -> None:
        self.restarted: list[int] = []
        self._items = [*items]
        self._again = again

    def blocks(self) -> Iterator[Block]:
        while self._items:
            item = self._items.pop(0)
            if isinstance(item, Exception):
                raise item
            yield item

    def restart(self, simulation: int) -> None:
        self.restarted.append(simulation)
        self._items += self._again


def receive(
    script: Script, window: int = 1
) -> tuple[Reception, list[tuple[int, list[float]]], list[Block], FieldStatistics]:
    """Run a reception to its end; also the buffer's samples and what was held out."""
    config = BufferConfig(kind="fifo", capacity=50)
    buffer = make_buffer(config, 1, window, 2, (2, 3), 0)
    held_out: list[Block] = []
    statistics = FieldStatistics(2)
    ensemble: Any = script
    ledger = Ledger(10, window)
    source = StreamSource(buffer, ledger, 1)
    reception = Reception(
        ensemble, ledger, source, statistics, lambda block, last: held_out.append(block)
    )
    received: list[tuple[int, list[float]]] = []

    def run() -> None:
        reception.start()
        reception.wait()
        while batch := buffer.get():
            received.append((int(batch.simulation[0]), batch.fields[0, :, 0, 0].tolist()))

    in_time(run)
    return reception, received, held_out, statistics


def test_replayed_steps_are_received_once() -> None:
    blocks = [(0, 0, 4), (0, 2, 6), (1, 0, 2), (0, 0, 5), (0, 5, 10), (1, 1, 3)]
    reception, received, _, _ = receive(Script(*(make_block(*block) for block in blocks)), 2)
    assert reception.error is None
    assert reception.over.is_set()
    expected = [(0, [step, step + 1]) for step in range(9)]
    expected += [(1, [100 + step, 101 + step]) for step in range(2)]
    assert sorted(received) == expected


def test_a_simulation_that_came_out_different_starts_anew() -> None:
    other = make_block(3, 0, 4, salt=0.5)
    again = [other, make_block(3, 4, 6, salt=0.5)]
    script = Script(make_block(4, 0, 2), make_block(3, 0, 4), other, again=again)
    _, received, _, _ = receive(script, 2)
    assert script.restarted == [3]
    expected = [(3, [300.5 + step, 301.5 + step]) for step in range(5)]
    assert received == [(4, [400.0, 401.0]), *expected]


def test_held_out_simulations_are_never_trained_on() -> None:
    blocks = [(-1, 0, 3), (0, 0, 2), (-1, 1, 5), (-2, 0, 1)]
    script = Script(*(make_block(*block) for block in blocks))
    _, received, held_out, statistics = receive(script)
    assert received == [(0, [0.0]), (0, [1.0])]
    found = [(block.simulation, block.first_step, len(block)) for block in held_out]
    assert found == [(-1, 0, 3), (-1, 3, 2), (-2, 0, 1)]
    assert statistics.freeze()[0].tolist() == [0.5, 0.5]


def test_an_error_of_the_ensemble_ends_training_and_is_handed_over() -> None:
    error = RuntimeError("too many are quarantined")
    ensemble: Any = Script(make_block(0, 0, 2), error)
    buffer = filled(make_samples(0), over=False)
    statistics = FieldStatistics(2)
    ledger = Ledger(STEPS, 1)
    source = StreamSource(buffer, ledger, 1)
    reception = Reception(ensemble, ledger, source, statistics, lambda block, last: None)
    reception.start()
    in_time(lambda: make_trainer(make(), buffer).train(statistics, lambda: None))
    reception.wait()
    assert reception.error is error
    assert reception.over.is_set()


def test_a_closed_buffer_ends_reception_without_an_error() -> None:
    buffer = filled(make_samples(0), over=False)
    buffer.close()
    ensemble: Any = Script(make_block(0, 0, 5))
    ledger = Ledger(10, 1)
    source = StreamSource(buffer, ledger, 1)
    reception = Reception(ensemble, ledger, source, FieldStatistics(2), lambda block, last: None)
    reception.start()
    reception.wait()
    assert reception.error is None
    assert reception.over.is_set()
