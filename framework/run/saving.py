"""What a run's checkpoints keep, and how a run goes on from one."""

from framework.run.extending import go_on_longer, take_stored
from framework.run.initial import start_from_initial
from framework.run.measures import Measures
from framework.run.parts import Parts
from framework.study.ids import held_out_id
from framework.training.checkpoint import Checkpointed


def save(parts: Parts, measures: Measures, finished: bool = False) -> None:
    """Write a checkpoint of all that is needed to go on; call between two optimiser steps.

    `finished`: the run has come to its end, so that what its buffer still holds is not needed.
    Raises WriteError.
    """
    source = parts.rank.source
    with source.lock:
        if parts.store:
            # Otherwise what the ledger calls received might never be stored.
            parts.store.flush()
        if finished and source.sink is not None:
            source.sink.clear()
        parts.checkpoints.save(_checkpointed(parts, measures), finished)


def restore(parts: Parts, measures: Measures) -> None:
    """Go on from the last checkpoint, or from the beginning if there is none.

    Raises StudyError and DamagedError.
    """
    rank, study = parts.rank, parts.study
    found = parts.checkpoints.load(_checkpointed(parts, measures))
    if found is None:
        start_from_initial(parts.case, rank.trainer.surrogate)
    elif "length" in found and found["length"]["simulations"] < study.design.simulations:
        go_on_longer(parts, found["length"]["simulations"], found["finished"])
    # Held-out trajectories are kept in files: what is not there has to run again.
    for id in map(held_out_id, range(study.validation.simulations)):
        rank.ledger.forget(id)
    for block in parts.validation.load():
        rank.ledger.receive(block)
    parts.ensemble.skip(rank.ledger.completed() | take_stored(parts))


def _checkpointed(parts: Parts, measures: Measures) -> dict[str, Checkpointed]:
    """Return all parts that a checkpoint keeps, by their names there."""
    bred = {"breeding": parts.breeding} if parts.breeding else {}
    return {
        **parts.rank.checkpointed(),
        **bred,
        "ensemble": parts.ensemble,
        "measures": measures,
    }
