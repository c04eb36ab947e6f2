"""`millstream compare`: train every arm with every seed, one after another, and score them alike.

    for each seed:  held-out simulations --> held_out/  --.
                    training simulations --> store.zarr --+--> each arm: a training run of its own
    at the end:     comparison.json, comparison.png, one MLflow run with a child for each arm

The arms of a seed share their held-out simulations, initial weights and design, but not the data
that they train on. Nothing else runs while an arm trains. The record is written arm by arm, so an
interrupted comparison goes on with the arm that it was at.
"""

import gc
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

from framework.compare.arms import SEEDS, Arm, Equal, Plan
from framework.compare.picture import draw_arms
from framework.compare.record import ComparisonRecord
from framework.compare.report import arm_text, result
from framework.compare.training import (
    arm_metrics,
    first_simulations,
    gap,
    hold_out,
    measured,
    train_arm,
)
from framework.errors import DivergedError, StudyError, tell
from framework.files import writing
from framework.run.folder import RunFolder
from framework.run.initial import start_from_initial
from framework.run.interrupt import Interrupts
from framework.run.keeping import send_rest
from framework.run.run import HURRY, PATIENCE
from framework.run.simulating import Simulating
from framework.simulation.cluster import check_gpus, ray_for
from framework.store.reader import StoreReader
from framework.study.case import Case
from framework.study.component import SURROGATE, settings_with_defaults
from framework.study.study import Study
from framework.tracking.history import read_rows
from framework.tracking.recorder import Tracking
from framework.tracking.uri import check_uri
from framework.training.scores import Trajectories
from framework.training.surrogate import make_surrogate


def compare(case: Case, seeds: int = SEEDS, equal: Equal = "steps") -> dict[str, Any]:
    """Train all arms of a study; return the result (see `report.result`).

    Raises StudyError before anything starts, and RunError if the comparison cannot be finished.
    """
    comparing = Comparing(case, seeds, equal)
    comparing.run()
    return comparing.result()


class Comparing:
    """One comparison, in a folder of its own under runs/."""

    def __init__(
        self, case: Case, seeds: int, equal: Equal, folder: RunFolder | None = None
    ) -> None:
        """`folder`: the folder of a comparison to continue. Raises StudyError."""
        if seeds < SEEDS:
            raise StudyError(
                f"--seeds is {seeds}: an interval paired by seed needs {SEEDS} or more"
            )
        if equal not in get_args(Equal):
            raise StudyError(f"equal is {equal}: it must be one of {', '.join(get_args(Equal))}")
        study = case.study
        check_uri(study.tracking)
        check_gpus(study.ensemble)
        self.case = case
        self.study = study
        self._plan = Plan(case, equal)
        self._interrupted = False
        self._resumed = folder is not None
        self._held = ExitStack()  # the folder's lock
        if folder:
            self.folder = folder
            self._record = ComparisonRecord.read(folder.comparison)
            if self._record.study not in (study.hash(), study.hash_as_written()):
                raise StudyError(
                    f"{folder.study} is not the study that {folder.comparison} is of: restore it, "
                    "or start the changed study anew with millstream compare"
                )
        else:
            if study.training.initial is not None:
                start_from_initial(case, make_surrogate(case))  # which refuses what does not fit
            steps = self._plan.steps if equal == "steps" else None
            self._record = ComparisonRecord("new", study.hash(), equal, seeds, steps)
            self.folder = RunFolder.create(f"{study.name}-comparison", self._begin_in)
            self._held.enter_context(self.folder.owned())
        self._tracking = Tracking(study.tracking, self.folder.path, self.folder.path.name)

    @classmethod
    def resumed(cls, folder: RunFolder) -> "Comparing":
        """Return the comparison that an earlier process left in a folder. Raises StudyError."""
        record = ComparisonRecord.read(folder.comparison)
        case = Case(Study.load(folder.study), folder.study)
        mode = settings_with_defaults(case.study.surrogate, SURROGATE).get("mode")
        if mode == "autoregressive" and record.status != "done" and record.is_older():
            raise StudyError(
                f"{folder.comparison} was begun by a version that counted the given first time as "
                "predicted: its errors are no longer comparable; start it anew with millstream "
                "compare"
            )
        return cls(case, record.seeds, record.equal, folder)

    def run(self) -> None:
        """Train the arms that are left. Raises RunError or KeyboardInterrupt."""
        if self._record.status == "done":
            send_rest(self._tracking, PATIENCE)  # what could not be sent before
            return
        with self._held:
            if self._resumed:
                self._held.enter_context(self.folder.owned())
                # Read again: another process may have had the lock before.
                self._record = ComparisonRecord.read(self.folder.comparison)
            self._run()

    def _begin_in(self, folder: RunFolder) -> None:
        """Write record and study to a new folder. Raises WriteError."""
        self._record.write(folder.comparison)
        self.study.save(folder.study)

    def _run(self) -> None:
        self._record.status = "failed"
        self._tracking.start(self.study.model_dump(mode="json"), {}, send=False)
        try:
            with (
                Interrupts(self._interrupt),
                ray_for(self.study.ensemble, self.study.other_cpus),
            ):
                for seed in range(self._record.seeds):
                    self._run_seed(seed)
            self._record.status = "done"
        except KeyboardInterrupt:
            self._record.status = "interrupted"
            raise
        finally:
            self._end()

    def result(self) -> dict[str, Any]:
        """Return the result so far (see `report.result`)."""
        return result(self._record, str(self.folder.path))

    def _run_seed(self, seed: int) -> None:
        left = [arm for arm in self._plan.arms if not self._record.has(arm.name, seed)]
        if not left:
            return
        directory = self.folder.path / f"seed-{seed}"
        store = _store(directory)
        with writing(directory):
            (directory / "held_out").mkdir(parents=True, exist_ok=True)
        case = self._plan.simulating(seed, store)
        tell(f"seed {seed}: running {self.study.validation.simulations} held-out simulations")
        hold_out(case, directory / "held_out")
        size = self._simulate(case, seed, store)
        shared = first_simulations(StoreReader(str(store)), self._shared())
        for arm in left:
            self._stop_if_interrupted()
            self._run_arm(arm, seed, directory, size, shared)

    def _simulate(self, case: Case, seed: int, store: Path) -> int:
        """Fill the store of a seed, record how long that takes, and return its bytes on disk."""
        so_far = self._record.simulating.setdefault(str(seed), [0.0, 0])
        if not so_far[1]:  # for a store without a record it is unknown how long it took
            shutil.rmtree(store, ignore_errors=True)
        simulating = Simulating(case)
        before = simulating.summary().simulations.completed
        started = time.monotonic()
        try:
            simulating.run()
        finally:
            so_far[0] += time.monotonic() - started
            summary = simulating.summary()
            so_far[1] += summary.simulations.completed - before
            self._write()
        return summary.bytes

    def _run_arm(
        self, arm: Arm, seed: int, directory: Path, store_bytes: int, shared: Trajectories
    ) -> None:
        seconds, size = 0.0, 0
        if arm.offline:
            simulating, completed = self._record.simulating[str(seed)]
            simulations = min(arm.simulations, int(completed))  # without those that failed
            seconds = simulating / completed * simulations
            size = round(store_bytes * simulations / completed)
        found: dict[str, Any] = {
            "name": arm.name,
            "seed": seed,
            "offline": arm.offline,
            "run": str(directory / arm.name),
            "simulating_seconds": seconds,
            "bytes": size,
        }
        folder = RunFolder(directory / arm.name)
        limit = self.study.training.stop.seconds
        if limit and seconds >= limit:
            found |= {"status": "no time", "error": f"simulating alone took {seconds:.0f} s"}
        else:
            try:
                case = self._plan.case_of(arm, seed, _store(directory), seconds)
                found |= measured(folder.finished() or train_arm(case, folder), seconds)
                if arm.offline:
                    found["simulations"] = simulations
                if arm.sampler == "breed":
                    found |= {"trained": None, "gap": None}  # it was trained on others
                else:
                    found |= gap(found["validation"]["mean"], folder, shared)
            except DivergedError as error:
                found |= {"status": "diverged", "error": str(error)}
        self._track_arm(found, folder)
        self._record.arms.append(found)
        self._write()
        gc.collect()  # the arm's buffer, before the next one has its own
        tell(arm_text(found))

    def _end(self) -> None:
        """Save, draw and track what was done, however the comparison has ended."""
        self._write()
        found, path = self.result(), self.folder.comparison.with_suffix(".png")
        tell(f"drawing {path}")
        try:
            drawn = draw_arms(found, path)
        except OSError as error:
            drawn = False
            tell(f"cannot draw {path}: {error.strerror}")
        for item in found["improvement"]:
            if item["mean"] is not None:
                name = f"improvement/{item['of']}_against_{item['against']}"
                self._tracking.log({"step": 0, name: item["mean"]})
        for artifact in (self.folder.study, self.folder.comparison, *([path] if drawn else [])):
            self._tracking.artifact(artifact)
        self._tracking.finish(found["status"])
        # Only now is anything sent: no arm shares its processors with MLflow.
        send_rest(self._tracking, HURRY if found["status"] == "interrupted" else PATIENCE)

    def _track_arm(self, arm: dict[str, Any], folder: RunFolder) -> None:
        written = folder.study.exists()  # not if there was no time for the arm
        study = Study.load(folder.study).model_dump(mode="json") if written else {}
        status = "done" if arm["status"] == "done" else "failed"
        rows = [*read_rows(folder.history), arm_metrics(arm)]
        self._tracking.child(f"{arm['name']}-{arm['seed']}", study, rows, status)

    def _shared(self) -> int:
        """Return how many of the simulations that every arm is trained on are scored."""
        return min(self.study.validation.simulations, self.study.design.simulations // 16)

    def _interrupt(self) -> None:
        self._interrupted = True

    def _stop_if_interrupted(self) -> None:
        if self._interrupted:
            raise KeyboardInterrupt

    def _write(self) -> None:
        self._record.write(self.folder.comparison)


def _store(directory: Path) -> Path:
    """Return the store of a seed with this directory."""
    return (directory / "store.zarr").absolute()
