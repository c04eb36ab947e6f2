"""The process of one of several training ranks: a Ray actor.

Its calls run in threads of their own. What it has to say comes out of `run`, in order: calls of
`Told` and of the attempt (see `attempt`), by name.
"""

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from threading import Condition
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from framework.run.ranks.keeper import Told
from framework.run.ranks.meeting import Place
from framework.run.ranks.planning import Begun, Share
from framework.run.ranks.rank import Keeping, Rank, be_deterministic
from framework.simulation.block import Block
from framework.simulation.dispenser import Groups, Work
from framework.simulation.failures import Quarantined
from framework.study.case import Case
from framework.study.streams import Stream, derived_seed
from framework.threads import Background
from framework.training.checkpoint import Found
from framework.training.weights import arrays_of, load_arrays

Call = tuple[str, tuple[Any, ...]]
# How many calls may wait to be taken; held-out blocks among them are large.
_WAITING = 32
# Seconds between two sets of figures, which also say that the process is alive.
_FIGURES = 0.5


@dataclass(frozen=True)
class Start:
    """What a rank's process is made of."""

    case: Case
    number: int
    threads: int  # of torch
    directory: Path  # that relative paths in the study begin in
    surrogate: dict[str, NDArray[Any]]  # initial weights and normalisation
    bred: dict[int, float] = field(default_factory=dict)  # weights of losses, by simulation


class RankActor:
    """Makes a rank, and carries out what the owner of the run asks of it."""

    def __init__(self, start: Start) -> None:
        case, study = start.case, start.case.study
        os.chdir(start.directory)
        torch.set_num_threads(start.threads)
        if study.deterministic:
            be_deterministic()
        surrogate = case.make_surrogate()
        load_arrays(surrogate, start.surrogate)
        # Equal ranks draw different numbers.
        torch.manual_seed(derived_seed(study.seed, Stream.WEIGHTS, start.number))
        self._told = _Calls()
        self._losses = None
        if study.design.breed is not None and study.design.sampler == "breed":
            self._losses = _Losses(start.bred, study.design.breed.correct)
        weigh = self._losses.weigh if self._losses else None
        self._rank = Rank(case, surrogate, weigh, start.number)
        self._groups = _AskedGroups(self._told)
        self._folder: Path | None = None  # to write a checkpoint into
        self._writing: Background | None = None

    def meet(self, place: Place) -> str:
        """Connect to the other ranks; return the device that is trained on."""
        place.meet(self._rank.number)
        return str(self._rank.trainer.device)

    def begin(self, found: Found | None) -> Begun:
        """See `Rank.begin`."""
        return self._rank.begin(found)

    def take(self, share: Share, keeping: Keeping) -> None:
        """See `Rank.take`."""
        self._rank.take(share, self._groups, self._told, keeping)

    def run(self) -> Iterator[list[Call]]:
        """Train to the end; yield what is to be told meanwhile. Raises what has ended training."""
        training = Background("training", self._train)
        training.start()
        last, failed = 0.0, False
        while True:
            over = training.wait(0)
            calls = self._told.take(_FIGURES)
            if self._rank.error is not None and not failed:
                failed = True
                calls.append(("fail", (self._rank.error,)))
            if over or time.monotonic() - last >= _FIGURES:
                last = time.monotonic()
                self._tell_losses(calls)
                calls.append(("count", (self._rank.figures(),)))
            if calls:
                yield calls
            if over and not self._told:
                break
        training.join()

    def give(self, work: Work | None, weights: Sequence[float] = ()) -> None:
        """Take the work that was asked for, None if there is none left.

        `weights`: of the losses of its simulations, if they are bred.
        """
        if work and self._losses:
            for simulation, weight in zip(work.group, weights, strict=True):
                self._losses.weights[simulation.id] = weight
        self._groups.give(work)

    def begin_checkpoint(self, folder: Path) -> None:
        """Write the rank's file of a checkpoint at the next step that all ranks agree on."""
        self._folder = folder

    def stop(self) -> None:
        """Let training end soon."""
        self._rank.stop()

    def save(self, folder: Path, finished: bool) -> dict[str, int]:
        """Write the rank's file of a checkpoint, training having ended; return its checksum."""
        if self._writing:
            self._writing.wait()
        self._rank.check_loss()
        return self._rank.write(folder, self._rank.states(finished))

    def weights(self) -> dict[str, NDArray[Any]]:
        """Return the weights of the surrogate; call when training has ended."""
        return arrays_of(self._rank.trainer.surrogate)

    def end(self) -> None:
        """End the solvers."""
        self._rank.end()

    def _train(self) -> None:
        self._rank.train(self._after_step, lambda: self._folder is not None)

    def _after_step(self) -> None:
        """Copy what a checkpoint keeps, if all ranks have been asked for one."""
        if not self._rank.trainer.asked or self._folder is None:
            return
        self._rank.check_loss()
        began = time.monotonic()
        folder, states = self._folder, self._rank.states()
        self._folder = None
        seconds = time.monotonic() - began

        def write() -> None:
            self._told.tell("saved", self._rank.write(folder, states), seconds)

        def failed() -> None:
            assert self._writing is not None
            self._told.tell("fail", self._writing.error)

        self._writing = Background("checkpoint", write, failed)
        self._writing.start()

    def _tell_losses(self, calls: list[Call]) -> None:
        if self._losses and (batches := self._losses.take()):
            calls.append(("losses", (batches,)))


class _Calls(Told):
    """Queues what is told, for `run`."""

    def __init__(self) -> None:
        self._queue: Queue[Call] = Queue(_WAITING)

    def __bool__(self) -> bool:
        return not self._queue.empty()

    def tell(self, name: str, *given: Any) -> None:
        """Queue a call; wait while too many are queued."""
        self._queue.put((name, given))

    def take(self, seconds: float) -> list[Call]:
        """Return all calls that are queued; wait at most so many seconds for one."""
        calls = []
        with suppress(Empty):
            calls.append(self._queue.get(timeout=seconds))
            while True:
                calls.append(self._queue.get_nowait())
        return calls

    def hold_out(self, block: Block, last: bool) -> None:
        self.tell("hold_out", block, last)

    def complete(self, simulation: int, parameters: NDArray[np.float64]) -> None:
        self.tell("complete", simulation, parameters)

    def scorable(self, weights: dict[str, NDArray[Any]], step: int) -> None:
        self.tell("scorable", weights, step)

    def give_up(self, item: Quarantined) -> None:
        self.tell("give_up", item)

    def run_again(self, simulations: Sequence[int], why: str) -> None:
        self.tell("run_again", simulations, why)


class _AskedGroups(Groups):
    """Work that the owner of the run gives when it is asked."""

    def __init__(self, told: _Calls) -> None:
        self._told = told
        self._works: deque[Work] = deque()
        self._asked = self._none_left = False
        self._changed = Condition()

    @property
    def over(self) -> bool:
        return self._none_left and not self._works

    def take(self) -> Work | None:
        with self._changed:
            if self._works:
                return self._works.popleft()
            if self._asked or self._none_left:
                return None
            self._asked = True
        self._told.tell("ask")
        return None

    def wait(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._works or self._none_left, seconds)

    def give(self, work: Work | None) -> None:
        """Take what was asked for; None if there is no work left."""
        with self._changed:
            self._asked = False
            if work is None:
                self._none_left = True
            else:
                self._works.append(work)
            self._changed.notify_all()


class _Losses:
    """The losses of bred simulations: weighed here, remembered by the owner of the run."""

    def __init__(self, weights: dict[int, float], correct: bool) -> None:
        self.weights = weights  # by simulation
        self._correct = correct
        self._batches: deque[tuple[NDArray[np.int64], Tensor]] = deque()

    def weigh(self, simulation: NDArray[np.int64], losses: Tensor) -> Tensor:
        """Return the losses [b], weighted if the study says so; see `BredDesign.weigh`."""
        self._batches.append((simulation, losses.detach()))
        if not self._correct:
            return losses
        weights = torch.tensor([self.weights[id] for id in simulation.tolist()])
        return losses * weights.to(losses.device, losses.dtype, non_blocking=True)

    def take(self) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Return the losses since the last call."""
        batches = [self._batches.popleft() for _ in range(len(self._batches))]
        return [(simulation, losses.double().cpu().numpy()) for simulation, losses in batches]
