"""Held-out trajectories, scored in a process of their own while training goes on.

    receive thread --blocks--> a file for each trajectory --parts--> Ray task, after optimiser steps
                                                          '-parts--> this process, after the last

The last scoring waits for no new process, which would import torch and the surrogate for seconds.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from numpy.typing import NDArray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from framework.errors import DamagedError, RunError, reason, tell
from framework.simulation.block import Block
from framework.study.ids import held_out_id, held_out_number
from framework.training.held_out import KeptTrajectory, TrajectoryWriter, trajectories
from framework.training.results import Scores
from framework.training.scores import score, step_errors, summarise
from framework.training.weights import arrays_of, load_arrays
from surrogates.base import Surrogate


class Validation:
    """Collects held-out blocks and scores surrogates in Ray tasks, which Ray retries.

    `add` is called by the receive thread, the rest by the training loop.
    """

    def __init__(
        self,
        make_surrogate: Callable[[], Surrogate],
        cpus: float,
        directory: Path,
        stored_steps: int,
    ) -> None:
        """`directory`: where trajectories of `stored_steps` steps are kept, for a resume, too."""
        self.latest: Scores | None = None
        self._make_surrogate = make_surrogate
        self._directory = directory.absolute()  # Ray's processes run in other directories
        self._stored_steps = stored_steps
        self._cpus = cpus
        self._under_way: dict[int, TrajectoryWriter] = {}  # by simulation
        self._complete: dict[int, KeptTrajectory] = {}
        self._outstanding: Any = None

    def add(self, block: Block, last: bool) -> None:
        """Keep a block of a held-out simulation; `last` says that the simulation ends with it.

        A block with the first step begins the simulation anew. Raises WriteError.
        """
        id = block.simulation
        path = self._directory / f"{held_out_number(id)}.npz"
        if block.first_step == 0:
            if id in self._under_way:
                self._under_way.pop(id).discard()
            self._under_way[id] = TrajectoryWriter(path, block, self._stored_steps)
        self._under_way[id].append(block)
        if last:
            self._under_way.pop(id).finish()
            self._complete[id] = KeptTrajectory.find(path, id)

    def load(self) -> None:
        """Find the trajectories that an earlier process has kept.

        Of a damaged file the user is told: its simulation has to run again.
        """
        for rest in self._directory.glob("*.writing"):
            rest.unlink()
        for path in sorted(self._directory.glob("*.npz")):
            id = held_out_id(int(path.stem))
            try:
                self._complete[id] = KeptTrajectory.find(path, id, whole=True)
            except DamagedError as error:
                tell(f"{error}; its simulation runs again")

    def kept(self) -> set[int]:
        """Return the simulations whose trajectories are complete."""
        return set(self._complete)

    def trajectory(self, simulation: int) -> KeptTrajectory:
        """Return one complete trajectory."""
        return self._complete[simulation]

    def submit(self, weights: dict[str, NDArray[Any]], step: int) -> None:
        """Start scoring a surrogate with these weights, unless an earlier scoring is under way.

        See `arrays_of` for the weights.
        """
        self.poll()
        complete = list(self._complete.values())
        if self._outstanding is not None or len(complete) < 2:
            return
        # The files lie on this machine.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        task = ray.remote(_score).options(num_cpus=self._cpus, scheduling_strategy=here)
        self._outstanding = task.remote(self._make_surrogate, weights, complete, step)

    def poll(self, timeout: float | None = 0) -> None:
        """Take a finished score into `latest`; wait for it up to `timeout` seconds.

        Raises RunError if the surrogate raises an error while it is scored.
        """
        if self._outstanding is not None:
            ready, _ = ray.wait([self._outstanding], timeout=timeout)
            if ready:
                (scores,), self._outstanding = ready, None
                self._take(scores)

    def _take(self, scores: "ray.ObjectRef[Any]") -> None:
        """Take a finished score; without it, if its process died, the latest stays as it is."""
        try:
            self.latest = ray.get(scores)
        except RayTaskError as error:
            raise RunError(f"scoring the surrogate failed: {reason(error.cause)}") from None
        except RayError:
            tell("the process that scores the surrogate has died, and this score is left out")

    def close(self) -> None:
        """End the scoring that is under way, and drop what is held of unfinished trajectories."""
        if self._outstanding is not None:
            ray.cancel(self._outstanding, force=True)
            self._outstanding = None
        for writer in self._under_way.values():
            writer.discard()
        self._under_way.clear()

    def final(
        self, surrogate: Surrogate, step: int, interrupted: Callable[[], bool] = lambda: False
    ) -> Scores | None:
        """Score the surrogate as it is now, in this process; return the latest scores.

        Returns None without two complete trajectories. `interrupted` is asked now and then: once it
        is true, the scoring ends without a new score. Raises RunError if the surrogate raises an
        error.
        """

        def look() -> None:
            if interrupted():
                raise _InterruptedError

        complete = list(self._complete.values())
        if len(complete) < 2:
            return self.latest
        try:
            self.latest = _score(self._make_surrogate, arrays_of(surrogate), complete, step, look)
        except _InterruptedError:
            pass
        # The surrogate may be the user's code: whatever it raises ends the run.
        except Exception as error:
            raise RunError(f"scoring the surrogate failed: {reason(error)}") from None
        return self.latest


class _InterruptedError(Exception):
    """The scoring was asked to end."""


def _score(
    make_surrogate: Callable[[], Surrogate],
    weights: dict[str, NDArray[Any]],
    kept: Sequence[KeptTrajectory],
    step: int,
    before: Callable[[], None] = lambda: None,
) -> Scores:
    """Score a surrogate; `before` is called before each reading of fields."""
    with torch.random.fork_rng():  # making it draws weights
        surrogate = make_surrogate()
    load_arrays(surrogate, weights)
    surrogate.eval()
    held_out = trajectories(kept, before)
    one_step = step_errors(surrogate, held_out)
    return summarise(score(surrogate, held_out), held_out, step, one_step)
