"""A run that goes on with other settings: more simulations, or other numbers of processes.

resume RUN training.ranks=N ensemble.actors=N
    study.yaml      says so from now on; what was received is dealt out among the ranks

resume RUN design.simulations=N
    study.yaml      says N from now on
    checkpoint      the last one, written when the run had ended: the surrogate, the optimiser,
                    what was received and trained on
    store           the old simulations, if it has kept all their steps: they are trained on
                    again, among the new ones
"""

from collections.abc import Sequence

from framework.errors import StudyError
from framework.run.folder import RunFolder
from framework.study.case import Case
from framework.study.overrides import parsed
from framework.study.study import Study
from framework.training.checkpoint import Checkpoints

# The settings that can be changed in a run: those that make it longer, and where it runs.
_LONGER = ("design.simulations", "training.stop")
_WHERE = ("training.ranks", "ensemble.actors")


def extend(folder: RunFolder, overrides: Sequence[str]) -> Study:
    """Change the study of a run; return it. Nothing is changed on an error.

    Raises StudyError if the run cannot go on with them, and BusyError if another process has it.
    """
    names = {".".join(parsed(text)[0][:2]) for text in overrides}
    if wrong := sorted(names - {*_LONGER, *_WHERE}):
        raise StudyError(
            f"{wrong[0]} cannot be changed in a run: only {', '.join(_LONGER)}, "
            f"{' and '.join(_WHERE)} can; for other changes start a new run with "
            f"training.initial={folder.path}"
        )
    before = Study.load(folder.study)
    study = Study.load(folder.study, overrides)
    _check_ranks(folder, before, study)
    if not names <= {*_WHERE} or folder.finished():
        _check_longer(folder, before, study)
    Case(study, folder.study)  # refuses what no process could go on with
    with folder.owned():
        if Study.load(folder.study) != before:
            raise StudyError(f"{folder.study} has just been changed: try again")
        if study.design != before.design:
            folder.design.unlink(missing_ok=True)  # of the shorter design; written again
        study.save(folder.study)
    return study


def _check_ranks(folder: RunFolder, before: Study, study: Study) -> None:
    """Raise StudyError if the run cannot go on with as many ranks."""
    ranks, had = study.training.ranks, before.training.ranks
    if folder.comparison.is_file():
        raise StudyError(f"{folder.path} is a comparison, whose arms run alike")
    if study.training.source and ranks != had:
        raise StudyError(
            f"training.ranks is {ranks}, but the run has trained with {had} from the store "
            f"{study.training.source}, of which each rank has a part of its own: set it to {had}"
        )


def _check_longer(folder: RunFolder, before: Study, study: Study) -> None:
    """Raise StudyError unless the run can go on with as many simulations."""
    asked, had = study.design.simulations, before.design.simulations
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
