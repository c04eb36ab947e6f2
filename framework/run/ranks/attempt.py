"""Several ranks as processes, from a checkpoint until all end or one of them is lost.

    this process --begin, take, give, begin_checkpoint, stop--> RankActor (one for each rank)
                 <--calls of `Told`, ask, count, saved, fail--

A thread for each rank carries out what it tells. The ranks are connected among themselves by
torch.distributed.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import ray
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayError, RayTaskError

from framework.errors import ClusterError, RunError, told
from framework.run.ranks.figures import Figures
from framework.run.ranks.keeper import Keeper
from framework.run.ranks.meeting import Place
from framework.run.ranks.planning import Planner
from framework.run.ranks.rank import Keeping
from framework.run.saving import Saver
from framework.simulation.breeding import BredDesign
from framework.simulation.dispenser import Dispenser
from framework.stream.collective import RankLostError
from framework.threads import Background
from framework.training.checkpoint import Found

# Seconds without a word after which a rank is taken for lost.
SILENCE = 30.0
# Seconds that ranks may take to end their solvers.
_GOODBYE = 20.0
_TICK = 0.1


class Attempt:
    """The processes of all ranks. `stop` may be called from any thread."""

    def __init__(
        self,
        actors: Sequence[Any],
        keeper: Keeper,
        saver: Saver,
        breeding: BredDesign | None,
    ) -> None:
        self.figures = [Figures() for _ in actors]
        self.completed: set[int] = set()  # training simulations
        self._actors = actors
        self._keeper = keeper
        self._saver = saver
        self._breeding = breeding
        self._dispenser: Dispenser | None = None
        self._heard = [time.monotonic() for _ in actors]
        self._folder: Path | None = None  # of the checkpoint under way
        self._checksums: dict[str, int] = {}
        self._stood_still = 0.0  # seconds, for that checkpoint
        self._error: BaseException | None = None  # what ends the run, told by a rank or met here

    def begin(self, place: Place, found: Found | None, planner: Planner, keeping: Keeping) -> str:
        """Let the ranks go on from a checkpoint; return what they train on. Raises RunError."""
        devices = self._ask("meet", place)
        begun = self._ask("begin", found)
        self._dispenser, shares = planner.plan(found, begun)
        again = shares[0].again
        self.completed = {id for one in begun for id in one.completed if id >= again}
        self._answers(
            [a.take.remote(s, keeping) for a, s in zip(self._actors, shares, strict=True)]
        )
        return str(devices[0])

    def train(self) -> None:
        """Carry out what the ranks tell until all have ended.

        Raises RankLostError if one was lost. Before another RunError is raised, a checkpoint is
        written.
        """
        listeners = [
            Background(f"rank {number}", partial(self._listen, number))
            for number in range(len(self._actors))
        ]
        self._heard = [time.monotonic() for _ in listeners]
        for listener in listeners:
            listener.start()
        while not all(listener.wait(0) for listener in listeners):
            self._look(listeners)
            time.sleep(_TICK)
        self._look(listeners)
        if self._error is not None:
            with told():
                self.save()
            raise self._error

    def stop(self) -> None:
        """Let the ranks end between two optimiser steps."""
        for actor in self._actors:
            actor.stop.remote()

    def save(self, finished: bool = False) -> None:
        """Write a checkpoint, training having ended. Raises WriteError."""
        folder = self._saver.begin()
        checksums: dict[str, int] = {}
        for own in self._ask("save", folder, finished):
            checksums |= own
        self._saver.publish(folder, checksums, finished)

    def weights(self) -> dict[str, NDArray[Any]]:
        """Return the surrogate's weights, training having ended. Raises RunError."""
        (weights,) = self._answers([self._actors[0].weights.remote()])
        return dict(weights)

    def end(self) -> None:
        """End the processes, and their solvers."""
        with suppress(RayError):
            ends = [actor.end.remote() for actor in self._actors]
            ray.wait(ends, num_returns=len(ends), timeout=_GOODBYE)
        self.kill()

    def kill(self) -> None:
        """End the processes at once; Ray ends the solvers that they have started."""
        for actor in self._actors:
            ray.kill(actor)

    def _look(self, listeners: Sequence[Background]) -> None:
        """Raise what has ended a rank; begin a checkpoint that is due, or publish a whole one."""
        errors = [listener.error for listener in listeners if listener.error is not None]
        # That one rank does not find another is the consequence: the cause says more.
        errors.sort(key=lambda error: type(error) is RankLostError)
        if errors:
            raise errors[0]
        for number, heard in enumerate(self._heard):
            if not listeners[number].wait(0) and time.monotonic() - heard > SILENCE:
                raise LostError(f"training rank {number} has not answered for {SILENCE:g} s")
        try:
            self._checkpoint()
        except RunError as error:
            self._fail(error)

    def _checkpoint(self) -> None:
        if self._error is not None:
            return
        if self._folder is not None and len(self._checksums) == len(self._actors):
            self._saver.publish(self._folder, self._checksums)
            self._saver.count_wait(self._stood_still)
            self._folder = None
        if self._folder is None and self._saver.due():
            self._folder, self._checksums, self._stood_still = self._saver.begin(), {}, 0.0
            for actor in self._actors:
                actor.begin_checkpoint.remote(self._folder)

    def _listen(self, number: int) -> None:
        """Carry out what a rank tells until it ends. Raises what has ended it."""
        stream = self._actors[number].run.options(
            num_returns="streaming", _generator_backpressure_num_objects=8
        )
        try:
            for reference in stream.remote():
                calls = ray.get(reference)
                self._heard[number] = time.monotonic()
                for name, given in calls:
                    self._carry_out(number, name, given)
        except RayError as error:
            raise _cause(number, error) from error

    def _carry_out(self, number: int, name: str, given: tuple[Any, ...]) -> None:
        own: Mapping[str, Callable[..., None]] = {
            "ask": self._give,
            "count": self._count,
            "saved": self._saved,
        }
        try:
            if name == "fail":
                self._fail(given[0])
            elif name in own:
                own[name](number, *given)
            else:
                getattr(self._keeper, name)(*given)
            if name == "complete":
                self.completed.add(given[0])
        except RunError as error:
            self._fail(error)

    def _give(self, number: int) -> None:
        assert self._dispenser is not None
        work = None if self._error else self._dispenser.take(number)
        weights: list[float] = []
        if work and self._breeding:
            decided = [self._breeding.decisions.decision(item.id) for item in work.group]
            weights = [decision.weight if decision else 1.0 for decision in decided]
        self._actors[number].give.remote(work, weights)

    def _count(self, number: int, figures: Figures) -> None:
        self.figures[number] = figures

    def _saved(self, number: int, checksums: dict[str, int], seconds: float) -> None:
        self._checksums |= checksums
        self._stood_still = max(self._stood_still, seconds)

    def _fail(self, error: BaseException) -> None:
        """End the run with an error, the first one, once all ranks have ended."""
        if self._error is None:
            self._error = error
            self.stop()

    def _ask(self, name: str, *given: Any) -> list[Any]:
        """Call a method of all ranks at once; return their answers. Raises RunError."""
        return self._answers([getattr(actor, name).remote(*given) for actor in self._actors])

    def _answers(self, references: Sequence[Any]) -> list[Any]:
        try:
            return list(ray.get(list(references)))
        except RayError as error:
            raise _cause(None, error) from error


class LostError(RankLostError):
    """A rank is known to be lost."""


def _cause(number: int | None, error: RayError) -> BaseException:
    """Return the error of ours behind an error of Ray's."""
    rank = "a training rank" if number is None else f"training rank {number}"
    if isinstance(error, RayTaskError):
        cause: BaseException = error.cause
        return cause if isinstance(cause, RunError | ValueError) else error
    if isinstance(error, RayActorError):
        last = str(error).strip().splitlines()[-1].strip()
        if error.actor_init_failed:
            return ClusterError(f"{rank} cannot start: {last}")
        return LostError(f"{rank} has died")
    return ClusterError(f"Ray failed: {str(error).strip().splitlines()[-1].strip()}")
