"""Held-out trajectories, scored in a process of their own while training goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.exceptions import RayError, RayTaskError

from framework.errors import RunError, reason, tell
from framework.files import replacing, writing
from framework.simulation.block import Block
from framework.study.ids import held_out_id, held_out_number
from framework.training.results import Scores
from framework.training.scores import Trajectories, score, step_errors, summarise
from surrogates.base import Surrogate


class Validation:
    """Collects held-out blocks and scores surrogates in Ray tasks, which Ray retries.

    `add` is called by the receive thread, the rest by the training loop.
    """

    def __init__(
        self,
        make_surrogate: Callable[[], Surrogate],
        cpus: float,
        directory: Path | None = None,
    ) -> None:
        """`directory`: where complete trajectories are kept, for a resume."""
        self.latest: Scores | None = None
        self._make_surrogate = make_surrogate
        self._directory = directory
        self._score = ray.remote(_score_task).options(num_cpus=cpus)
        self._under_way: dict[int, list[Block]] = {}  # simulation -> its first blocks
        self._complete: dict[int, list[Block]] = {}  # simulation -> all of its blocks
        self._held_out: Any = None  # reference to the trajectories that were complete
        self._completions = 0  # how often a trajectory became complete
        self._put = 0  # the same number when the trajectories were last put
        self._outstanding: Any = None

    def add(self, block: Block, last: bool) -> None:
        """Keep a block of a held-out simulation; `last` says that the simulation ends with it.

        A block with the first step begins the simulation anew.
        """
        if block.first_step == 0:
            self._under_way[block.simulation] = []
        self._under_way[block.simulation].append(block)
        if last:
            self._complete[block.simulation] = self._under_way.pop(block.simulation)
            self._completions += 1
            self._keep(block.simulation)

    def load(self) -> list[Block]:
        """Load the trajectories that an earlier process has kept; return each as a block."""
        assert self._directory is not None
        for path in sorted(self._directory.glob("*.npz")):
            with np.load(path) as kept:
                id, steps = held_out_id(int(path.stem)), len(kept["times"])
                unused = np.zeros(steps, dtype=np.uint32)
                block = Block(id, 0, kept["fields"], kept["parameters"], kept["times"], unused)
            self._complete[id] = [block]
            self._completions += 1
        return [block for blocks in self._complete.values() for block in blocks]

    def trajectory(self, simulation: int) -> Trajectories:
        """Return one complete trajectory."""
        return _as_trajectories([self._complete[simulation]])

    def _keep(self, simulation: int) -> None:
        if self._directory is None:
            return
        with writing(self._directory):
            self._directory.mkdir(exist_ok=True)
        joined = self.trajectory(simulation)
        with (
            replacing(self._directory / f"{held_out_number(simulation)}.npz") as temporary,
            temporary.open("wb") as file,
        ):
            np.savez(
                file,
                parameters=self._complete[simulation][0].parameters,
                times=np.concatenate([block.times for block in self._complete[simulation]]),
                fields=joined.fields[0],
            )

    def submit(self, surrogate: Surrogate, step: int) -> None:
        """Start scoring the surrogate as it is now, unless an earlier scoring is under way."""
        self.poll()
        completions = self._completions  # read before the blocks, to miss none
        complete = list(self._complete.values())
        if self._outstanding is not None or len(complete) < 2:
            return
        if self._put != completions:
            self._held_out = ray.put(_as_trajectories(complete))
            self._put = completions
        # As numpy arrays, which Ray moves without copying.
        weights = {name: tensor.numpy() for name, tensor in surrogate.tensors().items()}
        self._outstanding = self._score.remote(self._make_surrogate, weights, self._held_out, step)

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

    def final(
        self, surrogate: Surrogate, step: int, interrupted: Callable[[], bool] = lambda: False
    ) -> Scores | None:
        """Score the surrogate as it is now and wait; return the scores.

        Returns None without two complete trajectories. `interrupted` is asked now and then: once it
        is true, the scores are not waited for.
        """
        self._wait(interrupted)
        self.submit(surrogate, step)
        self._wait(interrupted)
        return self.latest

    def _wait(self, interrupted: Callable[[], bool]) -> None:
        while self._outstanding is not None and not interrupted():
            self.poll(timeout=0.5)


def _score_task(
    make_surrogate: Callable[[], Surrogate],
    weights: dict[str, NDArray[Any]],
    held_out: Trajectories,
    step: int,
) -> Scores:
    surrogate = make_surrogate()
    surrogate.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    surrogate.eval()
    one_step = step_errors(surrogate, held_out)
    return summarise(score(surrogate, held_out), held_out, step, one_step)


def _as_trajectories(trajectories: list[list[Block]]) -> Trajectories:
    return Trajectories(
        np.array([blocks[0].simulation for blocks in trajectories]),
        np.stack([blocks[0].parameters for blocks in trajectories]).astype(np.float32),
        np.stack([np.concatenate([b.times for b in blocks]) for blocks in trajectories]).astype(
            np.float32
        ),
        np.stack([np.concatenate([b.fields for b in blocks]) for blocks in trajectories]),
    )
