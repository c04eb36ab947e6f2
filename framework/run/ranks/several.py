"""Several training ranks, in processes of their own, which come back when one of them is lost."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from framework.errors import ClusterError, RunError, tell
from framework.run.parts import Parts
from framework.run.ranks.attempt import Attempt
from framework.run.ranks.figures import Figures, merged
from framework.run.ranks.keeper import Keeper
from framework.run.ranks.meeting import LOOPBACK, Meeting
from framework.run.ranks.planning import Planner
from framework.run.ranks.rank import Keeping
from framework.run.ranks.rank_actor import RankActor, Start
from framework.run.ranks.ranks import Ranks
from framework.run.saving import Saver
from framework.simulation.cluster import is_local
from framework.store.reader import StoreReader
from framework.stream.collective import RankLostError
from framework.training.checkpoint import Found, rank_file
from framework.training.weights import arrays_of, load_arrays
from surrogates.base import Surrogate

_untyped: Any = ray  # in the parts that Ray gives no types
# How often ranks may be lost, without a new checkpoint between, before the run ends.
_LOSSES = 3
# Seconds to wait for room on the cluster before the user is told.
_QUIET = 5.0


class SeveralRanks(Ranks):
    """`training.ranks` ranks. One that dies takes all back to the last checkpoint."""

    def __init__(
        self,
        parts: Parts,
        surrogate: Surrogate,
        planner: Planner,
        saver: Saver,
        keeper: Keeper,
        keeping: Keeping,
    ) -> None:
        self._parts = parts
        self._study = study = parts.study
        self._surrogate = surrogate
        self._planner = planner
        self._saver = saver
        self._keeper = keeper
        self._keeping = keeping
        self._found: Found | None = None
        self._device = ""
        self._attempt: Attempt | None = None
        self._stopped = False
        self._room: PlacementGroup | None = None
        self._source = _source(parts) if study.training.source else None

    @property
    def surrogate(self) -> Surrogate:
        return self._surrogate

    @property
    def device(self) -> str:
        return f"{self._study.training.ranks} ranks{self._device and f' of {self._device}'}"

    @property
    def source(self) -> dict[str, Any] | None:
        return self._source

    def begin(self, found: Found | None) -> None:
        self._found = found

    def train(self) -> None:
        ranks = self._study.training.ranks
        self._room = _room(ranks, self._study.ensemble.gpus_per_actor)
        local = is_local(self._study.ensemble)
        meeting = Meeting(LOOPBACK if local else _untyped.util.get_node_ip_address(), ranks)
        losses, since = 0, self._parts.checkpoints.count
        while not self._stopped:
            began = time.monotonic()
            self._attempt = attempt = self._new_attempt(self._room)
            try:
                where = attempt.begin(meeting.place(), self._found, self._planner, self._keeping)
                self._device = where
                if losses:
                    tell(f"{ranks} training ranks are back after {time.monotonic() - began:.1f} s")
                if self._stopped:  # before there was an attempt to stop
                    attempt.stop()
                attempt.train()
                break
            except RankLostError as error:
                attempt.kill()
                count = self._parts.checkpoints.count
                losses = losses + 1 if count == since else 1
                since = count
                self._found = self._parts.checkpoints.find()
                if losses == _LOSSES:
                    self._go_back()
                    raise RunError(
                        f"{error}; training ranks were lost {losses} times in a row without a "
                        "checkpoint between: see what ends them, memory perhaps"
                    ) from None
                where = f"checkpoint {count}" if self._found else "the beginning"
                tell(f"{error}: all ranks go on from {where}")
            finally:
                self._learned()

    def stop(self) -> None:
        self._stopped = True
        if self._attempt:
            self._attempt.stop()

    def save(self, finished: bool = False) -> None:
        if self._attempt:
            self._attempt.save(finished)

    def end(self) -> None:
        if self._attempt:
            self._attempt.end()
        if self._room:
            with suppress(Exception):  # Ray may have ended
                remove_placement_group(self._room)

    def figures(self) -> Figures:
        return merged(self._attempt.figures) if self._attempt else Figures(receiving=True)

    def completed(self) -> set[int]:
        return set(self._attempt.completed) if self._attempt else set()

    def _new_attempt(self, room: PlacementGroup) -> Attempt:
        """Start the ranks' processes. Raises RunError."""
        parts, ranks = self._parts, self._study.training.ranks
        breeding = parts.breeding
        bred = {}
        if breeding:
            bred = {id: item.weight for id, item in breeding.decisions.all().items()}
        threads = max(torch.get_num_threads() // ranks, 1)
        weights = arrays_of(self._surrogate)
        tell(f"starting {ranks} training ranks")
        actors = [
            ray.remote(RankActor)
            .options(
                num_cpus=1,
                num_gpus=room.bundle_specs[number].get("GPU", 0),
                max_restarts=0,
                max_concurrency=8,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    room, placement_group_bundle_index=number
                ),
            )
            .remote(Start(parts.case, number, threads, Path.cwd(), weights, bred))
            for number in range(ranks)
        ]
        return Attempt(actors, self._keeper, self._saver, breeding)

    def _learned(self) -> None:
        """Take the weights of the ranks, if they are still there."""
        if self._attempt:
            with suppress(RunError):
                load_arrays(self._surrogate, self._attempt.weights())

    def _go_back(self) -> None:
        """Take the weights of the last checkpoint: no rank has come further that is still there."""
        self._attempt = None
        if self._found:
            states = self._found.read(rank_file(0))
            self._surrogate.load_state_dict(states["trainer"]["surrogate"])


def _room(ranks: int, solver_gpus: float) -> PlacementGroup:
    """Reserve a CPU for each rank, and a GPU where there are enough. Raises ClusterError."""
    resources = _untyped.cluster_resources()
    gpus = int(solver_gpus == 0 and resources.get("GPU", 0) >= ranks)
    if resources.get("CPU", 0) < ranks:
        raise ClusterError(
            f"training.ranks is {ranks}, but the Ray cluster has {resources.get('CPU', 0):g} CPUs: "
            "lower it, or add nodes"
        )
    room: PlacementGroup = placement_group([{"CPU": 1, **({"GPU": 1} if gpus else {})}] * ranks)
    if not room.wait(_QUIET):
        free = _untyped.available_resources().get("CPU", 0)
        tell(f"waiting for {ranks} CPUs for training ranks: {free:g} are free")
        while not room.wait(_QUIET):
            pass
    return room


def _source(parts: Parts) -> dict[str, Any]:
    """Return the identity of the store that the ranks train from."""
    training = parts.study.training
    reader = StoreReader(str(training.source))
    return {**reader.identity, "simulations": len(reader.complete[: training.simulations])}
