"""One run: makes its parts, starts and ends them, and keeps what came of it.

    design --simulations--> solver actors --blocks--> receive thread --samples--> buffer
                               |                        |                           | batches
                  steps, then  v      held-out blocks   v                           v
                             store   Ray task <-weights- validation <-after steps- training loop
                               ^                                                    |
                               '--- commits --- receive thread        checkpoints, model, history

    who waits             for whom                                            until
    a solver actor        the receive thread, with CREDIT messages ready      one is drawn
                          its own write to the store                          it is written
    the receive thread    the buffer                                          a place is free
    the training loop     the buffer                                          a batch is permitted
                          a checkpoint, every now and then                    it is copied
    validation, commits,  nobody; only the end of a run waits for them
    history, tracking

This process holds the store, the validation, the checkpoints and all that is reported. With one
training rank it also holds the receive thread, the buffer and the training loop; several ranks have
a process each (`ranks`). Whoever fails closes the buffer, which wakes the other side: the receive
thread's error is raised here once the training loop has returned. An interrupt closes it, too; the
loop then ends between two optimiser steps, and a checkpoint is written. However a run ends, the
weights and the summary of what was done are written.
"""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from framework.errors import tell, told
from framework.report.display import Display
from framework.report.summary import Summary
from framework.run.assembly import make_breeding, make_quarantine, make_source, open_store
from framework.run.begins import begins
from framework.run.clock import Clock
from framework.run.extending import extend
from framework.run.folder import RunFolder
from framework.run.initial import start_from_initial
from framework.run.interrupt import Interrupts
from framework.run.keeping import data_identity, import_drawing, keep_model, send_rest, write_design
from framework.run.measures import Measures
from framework.run.outcome import summarised
from framework.run.parts import Parts
from framework.run.ranks.keeper import Keeper
from framework.run.ranks.planning import Planner
from framework.run.ranks.rank import Keeping, Rank, be_deterministic
from framework.run.ranks.ranks import OneRank, Ranks
from framework.run.ranks.several import SeveralRanks
from framework.run.rows import Rows
from framework.run.saving import Saver
from framework.simulation.breeding import BredDesign
from framework.simulation.cluster import check_gpus, ray_for
from framework.store.owner import Store
from framework.stream.ledger import Ledger
from framework.study.case import Case
from framework.study.fingerprint import fingerprint
from framework.study.study import Study
from framework.threads import Background
from framework.tracking.history import History
from framework.tracking.recorder import Tracking
from framework.tracking.uri import check_uri
from framework.training.checkpoint import Checkpoints, Found
from framework.training.surrogate import make_surrogate, tell_unlearnable
from framework.training.validation import Validation

# Seconds to wait for what is still to be sent to MLflow: usually, and after an interrupt.
PATIENCE, HURRY = 60.0, 5.0


def train(case: Case) -> Summary:
    """Simulate, stream and train as the study says.

    Raises StudyError before Ray is started, and RunError when the run cannot be finished.
    """
    run = Run(case)
    run.train()
    return run.summary()


def resume(directory: str | Path, overrides: Sequence[str] = ()) -> Summary:
    """Continue an interrupted run; if it is done already, return its summary.

    `overrides` make the run longer, see `extend`. Raises StudyError and RunError as `train` does.
    """
    folder = RunFolder.find(Path(directory))
    study = extend(folder, overrides) if overrides else Study.load(folder.study)
    if finished := folder.finished():
        send_what_is_left(study, folder)
        return finished
    run = Run(Case(study, folder.study), folder)
    run.train()
    return run.summary()


def send_what_is_left(study: Study, folder: RunFolder) -> None:
    """Send to MLflow what an earlier process of a run could not."""
    send_rest(Tracking(study.tracking, folder.path, folder.path.name), PATIENCE)


class Run:
    """One training run, in a folder of its own under runs/."""

    def __init__(self, case: Case, folder: RunFolder | None = None, pictures: bool = True) -> None:
        """`folder`: the folder of a run to continue. `pictures`: whether to draw any.

        Checks everything that can be checked before anything starts; raises StudyError, RunError
        where a folder cannot be made, and BusyError where another process has it.
        """
        self.case = case
        self.study = study = case.study
        self._status = "new"
        self._interrupted = False
        self._pictures = pictures
        self._resumed = folder is not None
        check_uri(study.tracking)
        check_gpus(study.ensemble)
        if study.deterministic:
            be_deterministic()
        self.surrogate = make_surrogate(case)
        if not self._resumed:
            start_from_initial(case, self.surrogate)
            tell_unlearnable(case, self.surrogate)
        with ExitStack() as made, ExitStack() as held:
            if folder:
                held.enter_context(folder.owned())
                folder.refuse_finished()
            breeding = make_breeding(case)
            if breeding and folder:
                breeding.decisions.load(folder.design, breeding.space.names)
            rank = self._make_rank(breeding)
            store = None if study.training.source else open_store(case, breeding)
            if store:
                held.callback(store.close)
            self.folder = folder or RunFolder.create(study.name, lambda new: study.save(new.study))
            if not folder:
                held.enter_context(self.folder.owned())
                made.callback(shutil.rmtree, self.folder.path, ignore_errors=True)
            self._parts = parts = self._make_parts(store, breeding)
            planner = Planner(parts)
            self._saver = Saver(parts, planner)
            self._ranks = self._make_ranks(rank, planner)
            self._tracking = Tracking(study.tracking, self.folder.path, self.folder.path.name)
            self._measures = Measures(parts, self._ranks)
            self._rows = Rows(self._measures)
            self._history = History(self.folder.history, self._rows.row, self._tracking.log)
            made.pop_all()
            self._held = held.pop_all()  # the folder's lock and the store, until the run has ended

    def _make_rank(self, breeding: BredDesign | None) -> Rank | None:
        """Make the rank that trains in this process, if it does. Raises StudyError."""
        if self.study.training.ranks == 1:
            return Rank(self.case, self.surrogate, breeding.weigh if breeding else None)
        # Each rank will make its own: what is wrong with it is found here.
        make_source(self.case, Ledger(self.case.solver.stored_steps, self.surrogate.window))
        return None

    def _make_parts(self, store: Store | None, breeding: BredDesign | None) -> Parts:
        case, study = self.case, self.study
        cpus, directory = study.validation.cpus, self.folder.held_out
        simulations = 0 if study.training.source else study.design.simulations
        return Parts(
            case,
            breeding or case.design,
            store,
            make_quarantine(case, study.validation.simulations + simulations),
            Validation(case.make_surrogate, cpus, directory, case.solver.stored_steps),
            Checkpoints(
                self.folder.checkpoints,
                study,
                None if study.store.accept_code_change else fingerprint(case.solver),
            ),
            Clock(),
        )

    def _make_ranks(self, rank: Rank | None, planner: Planner) -> Ranks:
        parts, keeper = self._parts, Keeper(self._parts)
        keeping = Keeping(
            parts.store.writer() if parts.store else None,
            parts.store.path if parts.store else None,
            self.folder.programs.absolute(),
        )
        if rank is not None:
            return OneRank(rank, planner, self._saver, keeper, keeping)
        return SeveralRanks(parts, self.surrogate, planner, self._saver, keeper, keeping)

    def train(self) -> None:
        """Run until the study's stop; however that ends, write weights, pictures and summary.

        Raises RunError when the run cannot be finished, KeyboardInterrupt when it was interrupted.
        """
        self._status = "failed"
        study = self.study
        with self._held, Interrupts(self._interrupt):
            self._ranks.begin(self._found())  # refused, it leaves the folder as it was
            self._history.resume(self._parts.clock.before)
            try:
                self._begin()
                with self._display(), self._history:
                    with ray_for(study.ensemble, study.other_cpus):
                        self._stream_and_train()
                    self._score()
                if self._interrupted:
                    raise KeyboardInterrupt
                self._status = "done"
            except KeyboardInterrupt:
                self._status = "interrupted"
                raise
            finally:
                self._end()

    @property
    def interrupted(self) -> bool:
        """Whether the run was asked to stop."""
        return self._interrupted

    def summary(self) -> Summary:
        """Return the summary of what was done so far."""
        return summarised(self._measures, self._status, str(self.folder.path), self._tracking)

    def _found(self) -> Found | None:
        """Let a run that is resumed go on from its last checkpoint, if there is one."""
        if not self._resumed:
            return None
        self._parts.validation.load()
        found = self._saver.find()
        if found is None:
            start_from_initial(self.case, self.surrogate)
        return found

    def _begin(self) -> None:
        """Save the design, and tell tracking that the run has started."""
        study = self.study.model_dump(mode="json")
        self._tracking.start(study, data_identity(self._measures))
        self._tracking.artifact(self.folder.study)
        if breeding := self._parts.breeding:
            breeding.keep(self.folder.design, self.study.validation.simulations)
        else:
            # In the background: for 100,000 simulations it takes seconds.
            written = self._parts, self.folder, self._tracking
            Background("design", partial(write_design, *written)).start()

    def _stream_and_train(self) -> None:
        tell(begins(self.study))
        if self._pictures:
            # While this process waits for samples, not when the user waits for the pictures.
            Background("drawing", import_drawing).start()
        try:
            self._ranks.train()
            self._parts.clock.end_training()
            if self._interrupted:
                self._ranks.save()
            else:
                with told():
                    self._ranks.save(finished=True)
        finally:
            # Before the last validation, which may need the solvers' CPUs.
            self._ranks.end()
            self._parts.validation.close()

    def _score(self) -> None:
        """Score the trained surrogate; an interrupt ends that, too."""
        if self._interrupted:
            return
        tell("scoring the surrogate on the held-out simulations")
        ranks = self._ranks
        steps = ranks.figures().steps
        self._parts.validation.final(ranks.surrogate, steps, lambda: self._interrupted)

    def _interrupt(self) -> None:
        self._interrupted = True
        self._ranks.stop()

    def _end(self) -> None:
        """Keep and report what was done, whatever has happened."""
        self._parts.clock.end()
        if self._status == "done":
            self._keep()
        else:
            with told():
                self._keep()

    def _keep(self) -> None:
        try:
            if self._parts.store:
                self._parts.store.close()
            if self._ranks.figures().steps:
                keep_model(self._measures, self.folder, self._tracking)
                self._measures.count_cost()
            if self._parts.breeding:
                self._tracking.artifact(self.folder.design)
            if self._pictures:
                tell(f"drawing pictures into {self.folder.pictures}")
                from framework.run.drawing import draw_run  # slow, see `import_drawing`

                for picture in draw_run(self._measures, self.folder, self._history.rows):
                    self._tracking.artifact(picture, "pictures")
        finally:
            self._tracking.finish(self._status)
            send_rest(self._tracking, HURRY if self._status == "interrupted" else PATIENCE)
            self.folder.write_summary(self.summary())

    def _display(self) -> Display:
        names = f"{self.study.solver.name} into {self.study.surrogate.name}"
        title = f"{self.folder.path}: {names}, training on {self._ranks.device}"
        return Display(title, self._rows.counts, self._history.rows)
