"""Who runs what: made when a run begins or goes on, from what its ranks have received by then.

A run may go on with more simulations than it was asked for at first (see `extending`). Its old
ones, if the store has all of their steps, are then trained on again, among the new ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from framework.errors import tell
from framework.run.assembly import make_dispenser
from framework.run.parts import Parts
from framework.simulation.dispenser import Dispenser, Group
from framework.study.ids import held_out_number, is_held_out
from framework.study.study import Study
from framework.training.checkpoint import Found


@dataclass(frozen=True)
class Begun:
    """What a rank has when it begins."""

    completed: frozenset[int] = frozenset()  # training simulations
    under_way: frozenset[int] = frozenset()
    over: bool = False  # whether it waits for no more


@dataclass(frozen=True)
class Share:
    """What a rank is given to begin with, beside the work that it asks for."""

    longer: bool = False  # whether the run has more simulations than at the checkpoint
    more: bool = False  # whether something comes to ranks that had received all
    again: int = 0  # training simulations before this one are forgotten, as they come again
    stored: Sequence[int] = ()  # simulations to take from the store
    run: int = 0  # how many training simulations solvers run meanwhile, in all ranks


class Planner:
    """Divides the work of a run among its ranks, and remembers what comes from the store."""

    def __init__(self, parts: Parts) -> None:
        self._study = parts.study
        self._parts = parts
        self._below = 0  # training simulations before this one come from the store
        self._told = False

    def plan(self, found: Found | None, begun: Sequence[Begun]) -> tuple[Dispenser, list[Share]]:
        """Return the work that is left, and what each rank begins with."""
        study, ranks = self._study, self._study.training.ranks
        longer = found is not None and found.simulations < study.design.simulations
        over = all(one.over for one in begun)
        again = self._again(found) if found and longer and (found.finished or over) else 0
        received = {id for one in begun for id in one.completed if id >= again}
        owners = {id: n for n, one in enumerate(begun) for id in one.under_way if id >= again}
        stored = self._stored(received)

        def owner(id: int) -> int:
            return owners.get(id, group_number(study, id) % ranks)

        def alone(number: int, group: Group) -> int | None:
            if study.deterministic and ranks > 1:
                return number % ranks
            return next((owners[item.id] for item in group if item.id in owners), None)

        parts = self._parts
        ended = received | {*stored} | parts.validation.kept() | parts.quarantine.ids()
        training = 0 if study.training.source else study.design.simulations
        held_out = study.validation.simulations
        dispenser = make_dispenser(parts.case, held_out, training, ended, parts.design, alone)
        run = study.design.simulations - len(received) - len(stored)
        more = bool(again) or not over or longer
        shares = [
            Share(longer, more, again, [id for id in stored if owner(id) == rank], run)
            for rank in range(ranks)
        ]
        return dispenser, shares

    def state(self) -> dict[str, int]:
        """Return which simulations come from the store, for `load_state`."""
        return {"below": self._below}

    def load_state(self, state: dict[str, int]) -> None:
        """Go on from what `state` returned."""
        self._below = state["below"]

    def _again(self, found: Found) -> int:
        """Decide whether the simulations of a shorter run come again; return before which."""
        keep = self._study.store.keep
        if keep == "all":
            self._below = found.simulations
            return self._below
        if not self._told:
            tell(
                f"store.keep is {keep}: the steps of the {found.simulations} simulations before "
                "are not there, so that training goes on with new ones alone"
            )
            self._told = True
        return 0

    def _stored(self, received: set[int]) -> list[int]:
        """Return the simulations to take from the store: old ones that were not received yet.

        A group of simulations that ran together is taken as a whole, or runs again as a whole.
        """
        store = self._parts.store
        if not self._below or store is None:
            return []
        size, there = self._study.ensemble.group_size, store.completed
        wanted = {id for id in range(self._below) if id not in received}
        split = {id // size for id in wanted if id not in there}
        return sorted(id for id in wanted if id // size not in split)


def group_number(study: Study, id: int) -> int:
    """Return the number of a simulation's group, in the order in which groups are handed out."""
    held_out = study.validation.simulations
    place = held_out_number(id) if is_held_out(id) else held_out + id
    return place // study.ensemble.group_size
