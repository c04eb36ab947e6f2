"""Buffers in turn draw a function of what was put, and go on from a state as if never stopped."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from buffers import (
    FIELD_SHAPE,
    PARAMETERS,
    WINDOW,
    ids,
    make_buffer,
    run_together,
    samples,
    studies,
)
from hypothesis import given, settings
from waiting import LIMIT, until

from framework.stream.buffers.buffer import Buffer, Closed
from framework.study.sections import BufferConfig

TOTAL = 60

pytestmark = pytest.mark.usefixtures("threads_switch_often")


def make(study: tuple[BufferConfig, int], seed: int, in_turn: bool = True) -> Buffer:
    config, batch_size = study
    return make_buffer(config, batch_size, WINDOW, PARAMETERS, FIELD_SHAPE, seed, in_turn)


def receive(buffer: Buffer, portions: Sequence[Sequence[int]]) -> Callable[[], None]:
    """Puts the portions, unless the buffer is closed before."""

    def run() -> None:
        try:
            if pending := buffer.take_pending():
                buffer.put(pending)
            for portion in portions:
                buffer.put(samples(portion))
        except Closed:
            return
        buffer.end_reception()

    return run


def draw(buffer: Buffer, most: int | None = None) -> Callable[[], list[list[int]]]:
    def run() -> list[list[int]]:
        batches: list[list[int]] = []
        while most is None or len(batches) < most:
            batch = buffer.get()
            if batch is None:
                break
            batches.append(ids(batch))
        return batches

    return run


def portions(lengths: Sequence[int]) -> list[list[int]]:
    numbers = iter(range(TOTAL))
    cut = [[next(numbers) for _ in range(min(n, 10))] for n in lengths if n]
    return [*cut, list(numbers)]


LENGTHS = st.lists(st.integers(1, 10), max_size=5)


@settings(max_examples=30)
@given(studies(), LENGTHS, LENGTHS)
def test_in_turn_speeds_and_portions_decide_nothing(
    study: tuple[BufferConfig, int], one: list[int], other: list[int]
) -> None:
    drawn = []
    for lengths in (one, other):
        buffer = make(study, 3)
        _, batches = run_together(buffer, receive(buffer, portions(lengths)), draw(buffer))
        drawn.append(batches)
    assert drawn[0] == drawn[1]
    assert {id for batch in drawn[0] for id in batch} == set(range(TOTAL))


@settings(max_examples=40)
@given(studies(), LENGTHS, st.integers(0, 25))
def test_a_buffer_goes_on_from_its_state(
    study: tuple[BufferConfig, int], lengths: list[int], before: int
) -> None:
    """Stopped after any number of batches, wherever the receiving thread was."""
    cut = portions(lengths)
    whole = make(study, 4)
    _, expected = run_together(whole, receive(whole, cut), draw(whole))

    buffer = make(study, 4)
    receiving = threading.Thread(target=receive(buffer, cut), daemon=True)
    receiving.start()
    drawn = draw(buffer, before)()
    state = buffer.state()
    buffer.close()
    receiving.join(LIMIT)

    again = make(study, seed=99)
    again.load_state(state)
    pending = state["pending"]
    known = state["counts"]["received"] + (len(pending["simulation"]) if pending else 0)
    left = [[id for id in portion if id >= known] for portion in cut]
    _, rest = run_together(again, receive(again, [p for p in left if p]), draw(again))
    assert drawn + rest == expected
    assert again.received == TOTAL
    assert again.drawn == whole.drawn


def test_reception_that_a_close_cut_short_is_not_over() -> None:
    config = BufferConfig.model_validate({"kind": "fifo", "capacity": 4})
    buffer = make((config, 1), 0, in_turn=False)
    buffer.put(samples([1]))
    buffer.close()
    buffer.end_reception()
    again = make((config, 1), 0, in_turn=False)
    again.load_state(buffer.state())
    again.put(samples([2]))
    assert draw(again, 2)() == [[1], [2]]


def test_a_state_holds_no_more_than_what_is_held(tmp_path: Any) -> None:
    """A view of a large block is not saved with the whole block."""
    config = BufferConfig.model_validate({"kind": "fifo", "capacity": 4})
    buffer = make((config, 1), 0, in_turn=False)
    thread = threading.Thread(target=receive(buffer, [range(2_000)]), daemon=True)
    thread.start()
    for _ in range(1_990):
        buffer.get()
    until(lambda: buffer.state()["pending"] is not None and len(buffer) == 4)
    torch.save(buffer.state(), tmp_path / "state")
    assert (tmp_path / "state").stat().st_size < 20_000
    assert len(torch.load(tmp_path / "state", weights_only=True)["held"]["simulation"]) == 4
    buffer.close()
    thread.join(LIMIT)
