"""Whatever is delivered twice counts once."""

import numpy as np
import pytest
from blocks import make_block
from hypothesis import given
from hypothesis import strategies as st

from framework.stream.ledger import Ledger, ReplayMismatchError

STEPS = 10


def train(ledger: Ledger, simulation: int, *first_steps: int) -> None:
    ledger.train(np.full(len(first_steps), simulation), np.array(first_steps, dtype=np.int64))


@given(attempts=st.lists(st.lists(st.integers(1, 4), max_size=8), min_size=1, max_size=6))
def test_replays_of_any_block_length_count_once(attempts: list[list[int]]) -> None:
    """Attempts end anywhere and cut their blocks anywhere; every step is new exactly once."""
    ledger = Ledger(STEPS, window=1)
    new_steps: list[int] = []
    for lengths in [*attempts, [STEPS]]:
        first = 0
        for length in lengths:
            stop = min(first + length, STEPS)
            new = ledger.receive(make_block(5, first, stop)) if stop > first else None
            if new is not None:
                new_steps += range(new.first_step, new.first_step + len(new))
                np.testing.assert_array_equal(
                    new.fields, make_block(5, new.first_step, stop).fields
                )
            first = stop
    assert new_steps == list(range(STEPS))
    assert ledger.complete(5)
    assert ledger.count() == (STEPS, STEPS)


def test_a_step_that_came_out_different_is_noticed_and_entered_nowhere() -> None:
    ledger = Ledger(STEPS, window=1)
    ledger.receive(make_block(1, 0, 4))
    with pytest.raises(ReplayMismatchError):
        ledger.receive(make_block(1, 0, 6, salt=0.25))
    assert ledger.count() == (4, 4)
    ledger.forget(1)
    new = ledger.receive(make_block(1, 0, 6, salt=0.25))
    assert new is not None
    assert len(new) == 6


def test_a_gap_is_refused() -> None:
    ledger = Ledger(STEPS, window=1)
    ledger.receive(make_block(1, 0, 4))
    with pytest.raises(ValueError, match="starts at step 5, but the next one is 4"):
        ledger.receive(make_block(1, 5, 6))


def test_samples_are_counted_in_windows_and_held_out_ones_are_not() -> None:
    ledger = Ledger(STEPS, window=3)
    assert ledger.samples_per_simulation == 8
    ledger.receive(make_block(-1, 0, STEPS))
    ledger.receive(make_block(0, 0, 2))
    assert ledger.count() == (0, 0)
    ledger.receive(make_block(0, 2, STEPS))
    assert ledger.count() == (8, 8)
    train(ledger, 0, 0, 3, 3, 7)
    train(ledger, 0, 3)
    assert ledger.unique_trained == 3
    assert ledger.count() == (8, 5)


def test_what_was_trained_on_stays_entered_when_a_simulation_starts_anew() -> None:
    ledger = Ledger(STEPS, window=1)
    ledger.receive(make_block(0, 0, 5))
    train(ledger, 0, 1, 2)
    ledger.forget(0)
    assert ledger.unique_trained == 2
    assert not ledger.complete(0)
    ledger.receive(make_block(0, 0, STEPS, salt=0.5))
    assert ledger.count() == (10, 8)
