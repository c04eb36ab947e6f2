"""The three buffers against their rules, one sample at a time and with threads that race.

A sample is known by an id, from which its simulation, step and numbers follow.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from blocks import make_block
from buffers import (
    ENDLESS,
    FIELD_SHAPE,
    PARAMETERS,
    WINDOW,
    Call,
    ids,
    make_buffer,
    run_together,
    samples,
    studies,
)
from hypothesis import given, settings
from pydantic import ValidationError
from scipy import stats
from waiting import LIMIT

from framework.check.numbered import SIMULATIONS
from framework.stream.buffers.buffer import Buffer, Closed
from framework.stream.samples import Batch, Samples
from framework.stream.windows import WindowCutter
from framework.study.sections import BufferConfig

TOTAL = 90  # ids in a race
ROUNDS = 1500  # of a random choice


pytestmark = pytest.mark.usefixtures("threads_switch_often")


def make(batch_size: int, seed: int = 0, **values: Any) -> Buffer:
    config = BufferConfig(**values)
    return make_buffer(config, batch_size, WINDOW, PARAMETERS, FIELD_SHAPE, seed)


def drain(buffer: Buffer) -> list[int]:
    buffer.end_reception()
    return [id for batch in iter(buffer.get, None) for id in ids(batch)]


def settle(buffer: Buffer, *calls: Call) -> None:
    """Return once each of the calls has ended or waits in the buffer."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        with buffer.lock:
            if buffer.waiting == sum(call.is_alive() for call in calls):
                return
        time.sleep(1e-5)
    pytest.fail("a call neither ends nor waits")


class Rules:
    """The rules of the three kinds, sample by sample; what a random pick was has to be told."""

    def __init__(self, config: BufferConfig, batch_size: int) -> None:
        self.config, self.batch_size = config, batch_size
        self.to_put: list[int] = []
        self.wants_batch = False
        self.over = False
        self.unseen: list[int] = []  # the oldest first
        self.seen: set[int] = set()  # what of it was overwritten is not known
        self.size = self.received = self.drawn = 0
        self.since_passing: int | None = None

    def may_put(self) -> bool:
        if self.config.kind != "reservoir":
            return self.size < self.config.capacity
        if len(self.unseen) == self.config.capacity:
            return False
        if self.since_passing is None or self.size < self.batch_size:
            return True
        return self.drawn >= self.config.replay[0] * self.since_passing

    def may_get(self) -> bool:
        if self.over:
            return True
        if self.config.kind != "reservoir":
            return self.size - self.batch_size >= self.config.watermark
        if self.since_passing is None or self.size < self.batch_size:
            return False
        return self.drawn <= self.config.replay[1] * self.since_passing

    def put_what_may_be(self) -> None:
        while self.to_put and self.may_put():
            self.unseen.append(self.to_put.pop(0))
            self.size = min(self.size + 1, self.config.capacity)
            self.received += 1
            if self.since_passing is not None:
                self.since_passing += 1
            elif self.size > max(self.config.watermark, self.batch_size - 1):
                self.since_passing = 0

    def get(self, batch: Batch | None) -> None:
        assert self.may_get()
        self.wants_batch = False
        assert (batch is None) == (self.over and self.size == 0)
        found = ids(batch) if batch else []
        assert len(set(found)) == len(found) == min(self.batch_size, self.size)
        assert set(found) <= self.seen | set(self.unseen)
        if self.config.kind == "fifo":
            assert found == self.unseen[: len(found)]
        self.unseen = [id for id in self.unseen if id not in found]
        self.drawn += len(found)
        if self.config.kind == "reservoir" and not self.over:
            self.seen |= set(found)
        else:
            self.seen -= set(found)
            self.size -= len(found)

    def discard(self, simulation: int, size: int) -> None:
        """`size` is what the buffer says is left: of the seen, more or fewer may be of it."""
        unseen = [id for id in self.unseen if id % SIMULATIONS != simulation]
        seen = {id for id in self.seen if id % SIMULATIONS != simulation}
        dropped = len(self.unseen) - len(unseen)
        assert 0 <= self.size - dropped - size <= len(self.seen) - len(seen)
        assert size <= len(unseen) + len(seen)
        if self.since_passing is not None:
            self.since_passing -= dropped
        self.size, self.unseen, self.seen = size, unseen, seen


class Race:
    """A thread that puts and one that gets, step by step, against the rules."""

    def __init__(self, config: BufferConfig, batch_size: int) -> None:
        self.rules = Rules(config, batch_size)
        self.buffer = make(batch_size, **config.model_dump())
        self.putting = self.getting = Call(lambda: None)
        self.next_id = 0

    def put(self, n: int) -> None:
        if not self.rules.to_put:
            self.rules.to_put = list(range(self.next_id, self.next_id + n))
            self.next_id += n
            self.putting = Call(self.buffer.put, samples(self.rules.to_put))

    def get(self) -> None:
        if not self.rules.wants_batch:
            self.rules.wants_batch = True
            self.getting = Call(self.buffer.get)

    def discard(self, simulation: int) -> None:
        with self.buffer.lock:  # or a put that waits would go on before the size is read
            self.buffer.discard(simulation)
            self.rules.discard(simulation, len(self.buffer))

    def check(self) -> None:
        """The buffer has done all that the rules permit, and nothing else."""
        settle(self.buffer, self.putting, self.getting)
        rules = self.rules
        rules.put_what_may_be()
        if rules.wants_batch and rules.may_get():
            rules.get(self.getting.result)
            rules.put_what_may_be()
        assert self.putting.is_alive() == bool(rules.to_put)
        assert self.getting.is_alive() == rules.wants_batch
        assert not (rules.to_put and rules.wants_batch), "each waits for the other"
        assert len(self.buffer) == rules.size <= rules.config.capacity
        assert (self.buffer.received, self.buffer.drawn) == (rules.received, rules.drawn)

    def finish(self) -> None:
        while self.rules.to_put:
            self.get()
            self.check()
        self.buffer.end_reception()
        self.rules.over = True
        self.check()
        while self.rules.size:
            self.get()
            self.check()
        assert self.rules.unseen == []
        assert self.buffer.get() is None


PUT = st.tuples(st.just(Race.put), st.integers(1, 25))
GET = st.tuples(st.just(Race.get))
DISCARD = st.tuples(st.just(Race.discard), st.integers(0, SIMULATIONS - 1))


@settings(max_examples=200)
@given(studies(), st.lists(PUT | GET | PUT | GET | PUT | GET | DISCARD, min_size=10, max_size=50))
def test_rules_hold_in_any_order_of_calls(
    study: tuple[BufferConfig, int], steps: list[tuple[Callable[..., None], int]]
) -> None:
    race = Race(*study)
    try:
        for step, *arguments in steps:
            step(race, *arguments)
            race.check()
        race.finish()
    finally:
        race.buffer.close()


def test_a_discard_lets_put_go_on_below_a_batch() -> None:
    """Everything held was seen and is gone, so get cannot make up what the band asks for."""
    buffer = make(1, capacity=1, replay=(3, 3))
    for id in (0, SIMULATIONS):
        buffer.put(samples([id]))
        assert ids(buffer.get()) == [id]
    assert buffer.drawn == 2  # 3 are asked for until the next put
    buffer.discard(0)
    assert len(buffer) == 0
    _, batch = run_together(buffer, lambda: buffer.put(samples([5])), buffer.get)
    assert ids(batch) == [5]


def test_after_a_discard_get_waits_for_a_whole_batch() -> None:
    buffer = make(2, capacity=4, replay=(1, ENDLESS))
    buffer.put(samples([0, SIMULATIONS]))
    assert len(ids(buffer.get())) == 2
    buffer.put(samples([1]))
    buffer.discard(0)
    getting = Call(buffer.get)
    settle(buffer, getting)
    assert getting.is_alive()
    buffer.put(samples([2]))
    getting.join(LIMIT)
    assert sorted(ids(getting.result)) == [1, 2]


def portions(seed: int, restarts: int = 0) -> Iterator[tuple[int, Samples]]:
    """All ids below TOTAL, simulation by simulation, each run `restarts` times in vain before."""
    random = np.random.default_rng(seed)
    for simulation in range(SIMULATIONS):
        steps = range(simulation, TOTAL, SIMULATIONS)
        for stop in [*random.integers(0, len(steps), restarts), len(steps)]:
            start = 0
            while start < stop:
                n = int(random.integers(1, 15))
                yield start, samples(steps[start : min(start + n, stop)])
                start += n


@settings(max_examples=50)
@given(studies(), st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_racing_threads_never_stall_and_every_sample_is_drawn(
    study: tuple[BufferConfig, int], seed: int, restarts: int
) -> None:
    config, batch_size = study
    buffer = make(batch_size, seed, **config.model_dump())

    def receive() -> None:
        for start, portion in portions(seed, restarts):
            if start == 0:
                buffer.discard(int(portion.simulation[0]))
            buffer.put(portion)
            assert len(buffer) <= config.capacity
        buffer.end_reception()

    _, batches = run_together(buffer, receive, lambda: list(iter(buffer.get, None)))
    drawn = [ids(batch) for batch in batches]
    assert all(len(set(batch)) == len(batch) == batch_size for batch in drawn[:-1])
    flat = [id for batch in drawn for id in batch]
    assert set(flat) == set(range(TOTAL))
    if config.kind != "reservoir" and not restarts:
        assert len(flat) == TOTAL
    if config.kind == "fifo" and not restarts:
        assert flat == [id for _, portion in portions(seed) for id in ids(portion)]


@settings(max_examples=50)
@given(studies("reservoir"), st.integers(0, 2**32 - 1))
def test_replay_keeps_within_the_band_while_threads_race(
    study: tuple[BufferConfig, int], seed: int
) -> None:
    config, batch_size = study
    least, most = config.replay
    passing = max(config.watermark + 1, batch_size)
    buffer = make(batch_size, seed, **config.model_dump())

    def receive() -> None:
        for _, portion in portions(seed):
            buffer.put(portion)
            since = max(buffer.received - passing, 0)  # not changed by the other thread
            assert buffer.drawn <= most * since + batch_size
        buffer.end_reception()

    def train() -> None:
        while buffer.get():  # what was drawn is not changed by the other thread
            assert buffer.drawn >= least * (buffer.received - passing - 1)

    run_together(buffer, receive, train)
    assert buffer.received == TOTAL


@settings(max_examples=60)
@given(studies(), st.integers(0, 2**32 - 1), st.integers(0, 30), st.booleans())
def test_a_buffer_whose_reception_was_over_goes_on_within_its_band(
    study: tuple[BufferConfig, int], seed: int, after: int, cleared: bool
) -> None:
    """Drained or not, what was drawn after the end of reception counts for no rule."""
    config, batch_size = study
    first = make(batch_size, seed, **config.model_dump())
    drawn_before = 0

    def receive_first() -> None:
        nonlocal drawn_before
        for _, portion in portions(seed):
            first.put(portion)
        with first.lock:
            first.end_reception()
            drawn_before = first.drawn

    def train_first() -> None:
        left = after
        while first.get() and left >= 0:
            left -= first.over

    run_together(first, receive_first, train_first)
    buffer = make(batch_size, seed, **config.model_dump())
    buffer.load_state(first.state())
    if cleared:
        buffer.clear()
    assert 0 <= buffer.counts.seen <= len(buffer) == buffer.counts.size
    buffer.reopen()
    drained = buffer.drawn - drawn_before
    passing = max(config.watermark + 1, batch_size)

    def receive() -> None:
        for _, portion in portions(seed):
            buffer.put(portion)
            if config.kind == "reservoir":
                most = config.replay[1] * (buffer.received - passing) + batch_size
                assert buffer.drawn - drained <= most
        buffer.end_reception()

    _, batches = run_together(buffer, receive, lambda: list(iter(buffer.get, None)))
    assert {id for batch in batches for id in ids(batch)} == set(range(TOTAL))


def assert_uniform(rounds: list[list[int]], count: int) -> None:
    """Whether n different numbers below `count` were chosen uniformly in each of the rounds.

    Numbers of one round exclude each other, so Pearson's statistic is smaller than if they were
    drawn independently, by the factor (count - n) / (count - 1).
    """
    n = len(rounds[0])
    expected = len(rounds) * n / count
    observed = np.bincount(np.concatenate(rounds), minlength=count)
    statistic = ((observed - expected) ** 2).sum() / expected * (count - 1) / (count - n)
    assert stats.chi2.sf(statistic, count - 1) > 1e-3


def test_firo_picks_uniformly_whatever_the_age() -> None:
    ages = []
    for seed in range(ROUNDS):
        buffer = make(3, seed, kind="firo", capacity=10, watermark=4)
        buffer.put(samples(range(10)))
        first = ids(buffer.get())
        buffer.put(samples(range(10, 13)))
        held = [id for id in range(13) if id not in first]
        ages.append([held.index(id) for id in ids(buffer.get())])
    assert_uniform(ages, 10)


def test_reservoir_picks_uniformly_whether_seen_or_not() -> None:
    picks = []
    for seed in range(ROUNDS):
        buffer = make(3, seed, capacity=11, watermark=8, replay=(1, ENDLESS))
        buffer.put(samples(range(10)))
        seen = ids(buffer.get())
        held = seen + [id for id in range(10) if id not in seen]
        picks.append([held.index(id) for id in ids(buffer.get())])
    assert_uniform(picks, 10)


def test_reservoir_overwrites_uniformly_among_the_seen() -> None:
    overwritten = []
    for seed in range(ROUNDS):
        buffer = make(5, seed, capacity=10, watermark=5)
        buffer.put(samples(range(7)))
        seen = ids(buffer.get())
        buffer.put(samples(range(7, 12)))  # two more than there are places
        left = drain(buffer)
        assert len(left) == 10
        overwritten.append([seen.index(id) for id in range(12) if id not in left])
    assert_uniform(overwritten, 5)


def test_the_seed_decides_what_is_drawn() -> None:
    def draw(seed: int) -> list[int]:
        buffer = make(2, seed, kind="firo", capacity=50)
        buffer.put(samples(range(50)))
        return drain(buffer)

    assert draw(1) == draw(1) != draw(2)


@pytest.mark.parametrize(
    "device",
    ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"],
)
def test_samples_cut_from_blocks_come_out_as_they_were_put(device: str) -> None:
    config = BufferConfig.model_validate({"kind": "fifo", "capacity": 6, "device": device})
    buffer = make_buffer(config, 4, WINDOW, 2, (2, 3), seed=0)
    cut = WindowCutter(WINDOW).cut(make_block(7, 0, 5), last=True)
    buffer.put(cut)
    batch = buffer.get()
    buffer.put(cut)  # uses the places again
    assert batch is not None
    assert batch.fields.device.type == device
    assert {batch.parameters.dtype, batch.times.dtype, batch.fields.dtype} == {torch.float32}
    for name in ("simulation", "first_step", "parameters", "times", "fields"):
        np.testing.assert_array_equal(
            torch.as_tensor(getattr(batch, name)).cpu(), getattr(cut, name)
        )


@pytest.mark.parametrize("kind", ["fifo", "firo", "reservoir"])
@pytest.mark.parametrize("end", [Buffer.close, Buffer.end_reception])
def test_no_one_waits_past_the_end(kind: str, end: Callable[[Buffer], None]) -> None:
    empty, full = make(2, kind=kind, capacity=2), make(2, kind=kind, capacity=2)
    gets = [Call(empty.get) for _ in range(3)]
    puts = [Call(full.put, samples(range(5))) for _ in range(3)]
    settle(empty, *gets)
    settle(full, *puts)
    for buffer, calls in ((empty, gets), (full, puts)):
        end(buffer)
        end(buffer)
        for call in calls:
            call.join(LIMIT)
            assert not call.is_alive()
    assert [get.result for get in gets] == [None] * 3
    assert [type(put.error) for put in puts] == [Closed] * 3
    with pytest.raises(Closed):
        full.put(samples([0]))


def test_a_closed_buffer_gives_no_more() -> None:
    buffer = make(2, kind="fifo", capacity=4)
    buffer.put(samples(range(4)))
    buffer.close()
    assert len(buffer) == 4
    assert buffer.get() is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replay": (4, 2)}, r"replay is \[4.0, 2.0\]: the least has to come first, then the most"),
        ({"replay": (0.5, 2)}, r"replay is \[0.5, 2.0\]: the least has to be 1 or more"),
        (
            {"kind": "fifo", "replay": (1, 2)},
            r"\[1.0, 2.0\], but a fifo draws every sample exactly 1",
        ),
        (
            {"kind": "firo", "replay": (2, 2)},
            r"\[2.0, 2.0\], but a firo draws every sample exactly 1",
        ),
        ({"kind": "fifo", "watermark": 1}, "watermark is 1, but a fifo has none: it has to be 0"),
        ({"kind": "firo", "watermark": 8}, "watermark is 8: it has to be below the capacity, 8"),
        ({"watermark": 9}, "watermark is 9: it has to be below the capacity, 8"),
    ],
)
def test_what_cannot_work_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BufferConfig(capacity=8, **values)


@pytest.mark.parametrize(
    ("kind", "watermark", "batch_size"), [("fifo", 0, 9), ("firo", 5, 4), ("reservoir", 5, 4)]
)
def test_a_batch_that_would_never_be_permitted_is_refused(
    kind: str, watermark: int, batch_size: int
) -> None:
    message = "buffer.capacity is 8: .* buffer.watermark . training.batch_size, "
    with pytest.raises(ValueError, match=rf"{message}{watermark} \+ {batch_size}"):
        make(batch_size, kind=kind, capacity=8, watermark=watermark)
    assert len(make(batch_size - 1, kind=kind, capacity=8, watermark=watermark)) == 0
