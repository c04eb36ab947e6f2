"""What a rank goes on from: its own states in a checkpoint or, if there were another number of
ranks, its share of those of all.

Simulations are dealt out by their group: what was received of one, its samples in the buffer and
its entry in the ledger go to the same rank.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from framework.run.ranks.figures import Streamed
from framework.run.ranks.planning import group_number
from framework.stream.buffers.buffer import Buffer
from framework.stream.buffers.limiter import Counts
from framework.stream.statistics import FieldStatistics
from framework.study.streams import Stream, derived_seed
from framework.study.study import Study
from framework.training.checkpoint import Found, States, rank_file

# Tells of each of these simulations [n] whether it is this rank's.
_Mine = Callable[[Tensor], Tensor]


def states_for(
    found: Found, rank: int, study: Study, buffer: Buffer | None, statistics: FieldStatistics
) -> States:
    """Return the states that a rank goes on from.

    `buffer` and `statistics` are those of the rank, still empty.
    """
    ranks = study.training.ranks
    if found.ranks == ranks:
        return found.read(rank_file(rank))
    assert buffer is not None  # the parts of a store are not dealt out anew, see `extending`

    def mine(simulations: Tensor) -> Tensor:
        numbers = [group_number(study, id) % ranks for id in simulations.tolist()]
        return torch.tensor(numbers, dtype=torch.int64) == rank

    states = [_own(found.read(rank_file(there)), mine) for there in range(found.ranks)]
    first = states[0]
    if rank:
        seed = derived_seed(study.seed, Stream.WEIGHTS, rank)
        first["trainer"]["random"] = torch.Generator().manual_seed(seed).get_state()
    else:
        for other in states:
            statistics.merge_state(other["statistics"])
    frozen = {"frozen": first["statistics"]["frozen"]}
    return {
        "trainer": first["trainer"],
        "statistics": {**statistics.state(), **frozen},
        "source": _dealt([one["source"] for one in states], buffer, rank, ranks),
        "tails": [tail for one in states for tail in one["tails"]],
        "ledger": _joined([one["ledger"] for one in states]),
        "counters": _share([one["counters"] for one in states], ranks),
    }


def _own(states: States, mine: _Mine) -> States:
    """Return the states without the samples, ledger entries and tails of other ranks."""
    source, ledger, tails = states["source"], states["ledger"], states["tails"]
    counts = source["counts"]
    held = source["held"]
    chosen = mine(held["simulation"])
    pending = source["pending"]
    there = mine(ledger["simulations"])
    ids = torch.tensor([tail["simulation"] for tail in tails], dtype=torch.int64)
    return {
        **states,
        "source": {
            **source,
            "seen": _rows(held, chosen & (torch.arange(len(chosen)) < counts["seen"])),
            "unseen": _rows(held, chosen & (torch.arange(len(chosen)) >= counts["seen"])),
            "pending": None if pending is None else _rows(pending, mine(pending["simulation"])),
            "held": None,
        },
        "ledger": _rows(ledger, there),
        "tails": [tail for tail, own in zip(tails, mine(ids).tolist(), strict=True) if own],
    }


def _dealt(sources: Sequence[States], buffer: Buffer, rank: int, ranks: int) -> States:
    """Return the state of a rank's buffer, from its samples in those of all ranks.

    Samples that were not drawn yet come first. Those that find no place are put later, as if they
    had just arrived.
    """
    seen, unseen = (_joined([one[name] for one in sources]) for name in ("seen", "unseen"))
    fresh = len(unseen["simulation"])
    held = min(fresh, buffer.capacity)
    kept = min(len(seen["simulation"]), buffer.capacity - held)
    late = [_rows(unseen, slice(held, None))]
    late += [one["pending"] for one in sources if one["pending"] is not None]
    pending = _joined(late)
    total = {
        name: sum(one["counts"][name] for one in sources)
        for name in ("received", "drawn", "discarded", "drained")
    }
    own = {name: count // ranks + (rank < count % ranks) for name, count in total.items()}
    own["received"] = max(own["received"], own["discarded"] + held + kept)
    counts = buffer.permitted(Counts(**own, size=held + kept, seen=kept))
    return {
        "counts": vars(counts),
        "over": all(one["over"] for one in sources),
        # Of the first rank that there was; the others have streams of their own.
        "random": buffer.state()["random"] if rank else sources[0]["random"],
        "held": _joined([_rows(seen, slice(kept)), _rows(unseen, slice(held))]),
        "pending": pending if len(pending["simulation"]) else None,
    }


def _share(counters: Sequence[States], ranks: int) -> States:
    """Return a rank's share of the counters of all."""
    moments, streams = ([one[name] for one in counters] for name in ("moment", "streamed"))
    streamed = Streamed(
        max(one["seconds"] for one in streams),
        sum(one["idle"] for one in streams) / len(streams),
        sum(one["solvers_waited"] for one in streams) / ranks,
    )
    received = sum(one["received"] for one in moments) // ranks
    return {"moment": {**moments[0], "received": received}, "streamed": vars(streamed)}


def _rows(table: dict[str, Any], chosen: Tensor | slice) -> dict[str, Any]:
    return {name: column[chosen] for name, column in table.items()}


def _joined(tables: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: torch.cat([table[name] for table in tables]) for name in tables[0]}
