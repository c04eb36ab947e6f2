"""Work is handed out once, whoever asks, and goes to whoever has begun it."""

import threading
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from framework.simulation.dispenser import Dispenser, Group
from framework.study.design import Simulation


def simulations(count: int) -> list[Simulation]:
    return [Simulation(id, np.zeros(1), id) for id in range(count)]


def taken(dispenser: Dispenser, rank: int) -> list[int]:
    """All that is left for a rank."""
    found: list[int] = []
    while work := dispenser.take(rank):
        found += [item.id for item in work.group]
    return found


@given(
    st.integers(0, 30),
    st.integers(1, 4),
    st.sets(st.integers(0, 29)),
    st.dictionaries(st.integers(0, 29), st.integers(0, 2)),
    st.lists(st.integers(0, 2), max_size=40),
)
def test_each_group_goes_out_once_and_to_its_owner(
    count: int, size: int, ended: set[int], owners: dict[int, int], asking: Sequence[int]
) -> None:
    def owner(number: int, group: Group) -> int | None:
        assert number == group[0].id // size
        return next((owners[item.id] for item in group if item.id in owners), None)

    dispenser = Dispenser(simulations(count), size, ended, owner)
    got: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for rank in asking:
        if work := dispenser.take(rank):
            got[rank] += [item.id for item in work.group]
            assert work.ended == ended
    for rank, ids in got.items():
        ids += taken(dispenser, rank)
    groups = [range(first, min(first + size, count)) for first in range(0, count, size)]
    left = [id for group in groups if not ended.issuperset(group) for id in group]
    assert sorted(id for ids in got.values() for id in ids) == left
    for rank, ids in got.items():
        for first in {id // size * size for id in ids}:
            (*mine,) = (owners[id] for id in range(first, first + size) if id in owners)
            assert not mine or mine[0] == rank or first + size > count
            assert first + size > count or ids.count(first) == 1


def test_ranks_that_ask_at_the_same_time_share_the_work() -> None:
    dispenser = Dispenser(simulations(3000), 1)
    got: list[list[int]] = [[] for _ in range(3)]

    def ask(rank: int) -> None:
        got[rank] += taken(dispenser, rank)

    threads = [threading.Thread(target=ask, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(id for ids in got for id in ids) == list(range(3000))


def test_work_is_decided_only_when_it_is_taken() -> None:
    started: list[int] = []

    def start(item: Simulation) -> Simulation:
        started.append(item.id)
        return item

    dispenser = Dispenser(map(start, simulations(6)), 2)
    assert not started
    dispenser.take()
    assert started == [0, 1]
