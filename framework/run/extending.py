"""A run that goes on with more simulations than it was asked for at first.

resume RUN design.simulations=N
    study.yaml      says N from now on
    checkpoint      the last one, written when the run had ended: the surrogate, the optimiser,
                    what was received and trained on
    store           the old simulations, if it has kept all their steps: they are trained on
                    again, among the new ones
"""

from collections.abc import Sequence

from framework.errors import StudyError, tell
from framework.run.folder import RunFolder
from framework.run.parts import Parts
from framework.store.reader import StoreReader
from framework.study.case import Case
from framework.study.ids import is_held_out
from framework.study.overrides import parsed
from framework.study.study import Study
from framework.training.checkpoint import Checkpoints

# The settings of a run that can be changed, because they only make it longer.
_CHANGED = ("design.simulations", "training.stop")


def extend(folder: RunFolder, overrides: Sequence[str]) -> Study:
    """Change the study of a run to more simulations; return it. Nothing is changed on an error.

    Raises StudyError if the run cannot go on with them, and BusyError if another process has it.
    """
    for text in overrides:
        path, _ = parsed(text)
        if ".".join(path[:2]) not in _CHANGED:
            raise StudyError(
                f"{'.'.join(path)} cannot be changed in a run: only {' and '.join(_CHANGED)} can; "
                f"for other changes start a new run with training.initial={folder.path}"
            )
    before = Study.load(folder.study)
    study = Study.load(folder.study, overrides)
    _check(folder, before, study)
    Case(study, folder.study)  # refuses what no process could go on with
    with folder.owned():
        if Study.load(folder.study) != before:
            raise StudyError(f"{folder.study} has just been changed: try again")
        folder.design.unlink(missing_ok=True)  # of the shorter design; written again
        study.save(folder.study)
    return study


def _check(folder: RunFolder, before: Study, study: Study) -> None:
    """Raise StudyError unless the run can go on as `study` says."""
    asked, had = study.design.simulations, before.design.simulations
    if folder.comparison.is_file():
        raise StudyError(f"{folder.path} is a comparison, whose arms have as many simulations each")
    if study.training.source:
        raise StudyError(
            f"{folder.path} trains from the store {study.training.source} and simulates nothing: "
            "extend that store by millstream simulate, and start a new run"
        )
    if study.design.sampler in ("latin_hypercube", "breed"):
        raise StudyError(
            f"design.sampler is {study.design.sampler}, whose simulations depend on how many there "
            f"are: start a new run with training.initial={folder.path}"
        )
    if asked <= had:
        raise StudyError(
            f"design.simulations is {asked}, but the run has {had} already: ask for more"
        )
    summary = folder.finished()
    if summary is None:
        return  # it goes on from wherever it was
    stop, training = study.training.stop, summary.training
    for name, reached in (
        ("steps", training.steps),
        ("samples", summary.samples.drawn),
        ("seconds", training.seconds),
    ):
        limit = getattr(stop, name)
        if limit is not None and reached >= limit:
            raise StudyError(
                f"training.stop.{name} is {limit:g}, which the run has reached: raise it, too"
            )
    if not Checkpoints(folder.checkpoints, before).finished():
        raise StudyError(
            f"{folder.path} was ended by a version that kept nothing to go on from: start a new "
            f"run with training.initial={folder.path}"
        )


def go_on_longer(parts: Parts, before: int, finished: bool) -> None:
    """Let a run that had `before` simulations go on with those of its study.

    If it had `finished` them, or received them all, its old simulations are trained on again.
    """
    trainer, sink, store = parts.rank.trainer, parts.rank.source.sink, parts.store
    assert sink is not None
    trainer.progress = 0.0
    if not (finished or sink.over):
        return
    sink.reopen()
    if store is None or parts.study.store.keep != "all":
        tell(
            f"store.keep is {parts.study.store.keep}: the steps of the {before} simulations before "
            "are not there, so that training goes on with new ones alone"
        )
        return
    sink.clear()  # it is in the store, too
    parts.rank.stored.below = before
    for id in range(before):
        parts.rank.ledger.forget(id)


def take_stored(parts: Parts) -> set[int]:
    """Take the old simulations of an extended run from its store; return which these are.

    A group of simulations that ran together is taken as a whole, or runs again as a whole. Raises
    DamagedError.
    """
    below, store = parts.rank.stored.below, parts.store
    if not below or store is None:
        return set()
    size, received = parts.study.ensemble.group_size, parts.rank.ledger.completed()
    there = store.completed
    wanted = {id for id in range(below) if id not in received}
    split = {id // size for id in wanted if id not in there}
    ids = sorted(id for id in wanted if id // size not in split)
    arrived = sum(not is_held_out(id) for id in received)
    run = parts.study.design.simulations - arrived - len(ids)
    parts.rank.stored.add(StoreReader(store.path), ids, run)
    return set(ids)
