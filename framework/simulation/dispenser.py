"""Hands out the work of a run, group by group, to whoever has a solver process free for it.

    design --simulations--> Dispenser --Work--> the ensemble of a rank, when a worker is idle

A group runs as a whole unless all of it has ended: what a solver computes may depend on how many
simulations it computes at once. A group of which a rank has received a part goes to that rank
alone, which knows the steps that it has already.
"""

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from framework.study.design import Simulation

Group = tuple[Simulation, ...]
# Tells the rank that alone may run a group, from its number in the design's order; None if any may.
Owner = Callable[[int, Group], int | None]


@dataclass(frozen=True)
class Work:
    """A group of simulations to run together, and which of them have ended before."""

    group: Group
    ended: frozenset[int] = frozenset()


class Groups(Protocol):
    """Where an ensemble takes its work from."""

    @property
    def over(self) -> bool:
        """Whether no work will come any more; asked after `take` has returned None."""

    def take(self) -> Work | None:
        """Return the next work, or None if there is none by now. Raises RunError."""

    def wait(self, seconds: float) -> None:
        """Wait at most so many seconds for work to come."""


class Dispenser:
    """The work that is left of a run. May be used from any thread."""

    def __init__(
        self,
        simulations: Iterable[Simulation],
        group_size: int,
        ended: Collection[int] = (),
        owner: Owner = lambda number, group: None,
    ) -> None:
        """`simulations` are taken as they are needed. Those that have `ended` do not run again."""
        self._fresh = enumerate(_in_groups(iter(simulations), group_size))
        self._ended = frozenset(ended)
        self._owner = owner
        self._aside: dict[int, deque[Work]] = {}  # by the rank that alone may run it
        self._lock = threading.Lock()

    def take(self, rank: int = 0) -> Work | None:
        """Return the next work for a rank; None if there is none left for it. Raises RunError."""
        with self._lock:
            if aside := self._aside.get(rank):
                return aside.popleft()
            for number, group in self._fresh:
                if self._ended.issuperset(simulation.id for simulation in group):
                    continue
                work, owner = Work(group, self._ended), self._owner(number, group)
                if owner is None or owner == rank:
                    return work
                self._aside.setdefault(owner, deque()).append(work)
            return None

    def groups(self, rank: int = 0) -> Groups:
        """Return the work of a rank in this process."""
        return _Here(self, rank)


class _Here(Groups):
    """The work of a rank, from a dispenser in the same process, which always has it ready."""

    over = True

    def __init__(self, dispenser: Dispenser, rank: int) -> None:
        self._dispenser = dispenser
        self._rank = rank

    def take(self) -> Work | None:
        return self._dispenser.take(self._rank)

    def wait(self, seconds: float) -> None:
        pass


def _in_groups(simulations: Iterator[Simulation], size: int) -> Iterator[Group]:
    while group := tuple(islice(simulations, size)):
        yield group
