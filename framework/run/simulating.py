"""Run the ensemble alone: simulate into a store, without training.

    design --simulations--> solver actors --their own writes--> store
                                |                                 ^ commits
                                '--blocks--> this process --------'

Simulations already stored are not computed again, so the same command continues after any
interruption.
"""

import time
from pathlib import Path

from framework.errors import StudyError, tell
from framework.pictures.fields import draw_store
from framework.report.display import Display
from framework.report.summary import FailedSimulation, SimulationCounts, StoreSummary
from framework.run.assembly import (
    make_dispenser,
    make_ensemble,
    make_quarantine,
    open_store,
)
from framework.run.interrupt import Interrupts
from framework.simulation.block import Block
from framework.simulation.cluster import check_gpus, ray_for
from framework.simulation.ensemble import Ensemble
from framework.store.owner import Store
from framework.stream.ledger import Ledger
from framework.stream.reception import receive_all
from framework.study.case import Case
from framework.tracking.history import Record
from framework.training.surrogate import make_surrogate


def simulate(case: Case) -> StoreSummary:
    """Run the study's simulations into its store.

    Raises StudyError before Ray is started, and RunError when it cannot be finished.
    """
    simulating = Simulating(case)
    simulating.run()
    return simulating.summary()


class Simulating:
    """A run of simulations into a store."""

    def __init__(self, case: Case) -> None:
        study = case.study
        check_gpus(study.ensemble)
        if study.design.sampler == "breed":
            raise StudyError(
                "design.sampler is breed, but nothing is trained whose losses could decide what "
                "to simulate: set it to sobol, halton, monte_carlo or latin_hypercube"
            )
        make_surrogate(case)  # checked now, not after everything is simulated
        store = open_store(case)
        if store is None:
            raise StudyError(
                "store.keep is none, so nothing would be kept of what is simulated: set it to all, "
                "last, or a number n to keep every n-th step"
            )
        self._case = case
        self._study = study
        self._store = store
        # Beside a local store, as its index.
        programs = None if "://" in store.path else Path(f"{store.path}.programs")
        simulations = study.design.simulations
        groups = make_dispenser(case, 0, simulations, store.completed).groups()
        self._quarantine = make_quarantine(case, simulations)
        self._ensemble = make_ensemble(case, groups, self._quarantine, store.writer(), programs)
        self._stored_steps = case.solver.stored_steps
        self._names = case.space.names
        self._interrupted = False
        self._seconds = 0.0
        self._started = time.monotonic()

    def run(self) -> None:
        """Simulate until all is stored. Raises RunError, or KeyboardInterrupt if interrupted."""
        title = f"{self._store.path}: {self._study.solver.name}"
        try:
            with (
                Interrupts(self._interrupt),
                Display(title, self._record, []),
                ray_for(self._study.ensemble, 0),
            ):
                tell(f"starting the solver processes: {self._study.ensemble.actors}")
                try:
                    store_all(self._ensemble, self._store, self._stored_steps)
                finally:
                    self._ensemble.close()
        finally:
            self._store.close()
            self._seconds = time.monotonic() - self._started
        if self._interrupted:
            raise KeyboardInterrupt

    def summary(self) -> StoreSummary:
        """Return the summary of what is stored by now."""
        quarantined = self._quarantine.items
        return StoreSummary(
            store=self._store.path,
            simulations=SimulationCounts(
                requested=self._study.design.simulations,
                completed=self._completed(),
                quarantined=len(quarantined),
            ),
            quarantined=tuple(
                FailedSimulation(**item.describe(self._names)) for item in quarantined
            ),
            bytes=self._store.bytes(),
            seconds=self._seconds,
        )

    def draw(self) -> Path:
        """Draw some of the stored simulations; return the picture's path. Raises RunError.

        It lies beside a local store; for a store at a URL, in the current directory.
        """
        path = self._store.path
        picture = Path(path.rpartition("/")[2] if "://" in path else path).with_suffix(".png")
        tell(f"drawing {picture}")
        draw_store(path, self._case.solver, self._case.space, picture)
        return picture

    def _interrupt(self) -> None:
        self._interrupted = True
        self._ensemble.stop()

    def _completed(self) -> int:
        return self._store.count(below=self._study.design.simulations)

    def _record(self) -> Record:
        return {
            "seconds": time.monotonic() - self._started,
            "simulations/completed": self._completed(),
            "simulations/requested": self._study.design.simulations,
            "simulations/quarantined": len(self._quarantine.items),
        }


def store_all(ensemble: Ensemble, store: Store, stored_steps: int) -> None:
    """Run an ensemble whose actors write to the store; mark its simulations complete.

    Returns once all of it is on disk. Raises RunError.
    """

    def commit(block: Block, last: bool) -> None:
        if last:
            store.commit(block.simulation, block.parameters)

    receive_all(ensemble, Ledger(stored_steps, window=1), commit)
    store.flush()
