"""Advice on a training run: what set its pace, and what to change to be faster.

The pace follows from the waits while simulations ran. A solver waits until the receiver takes its
steps; the receiver waits for the solvers or, with samples in hand, for training; training waits for
samples or, if the replay permits it, draws samples again instead of waiting. So training waits

- together with the receiver: for the solvers;
- while the receiver does not wait: for the receiver.

Training that does not wait sets the pace, unless the receiver waits for the solvers as well: then
they keep pace with each other.
"""

import math
import os
from dataclasses import dataclass
from typing import Literal

from framework.report.amiss import replay_text
from framework.report.summary import Summary, Waits
from framework.report.words import percent
from framework.simulation.ensemble import MESSAGE_BYTES
from framework.study.case import Case
from solvers.base import BatchSolver

# A wait below this share of the time is not worth mentioning.
_MUCH = 0.15
# A receiver that waits for less than this share of the time has little room for more.
_BUSY = 0.1

Pace = Literal["solvers", "training", "receiver", "in turn", "all alike"]


def pace(wait: Waits) -> Pace:
    """Return who set the pace of a run, by the share of the time that each waited (see above)."""
    solvers, training, receiver = wait.solvers, wait.training + wait.redraws, wait.transport
    if training < _MUCH:
        return "training" if solvers >= _MUCH or receiver < _MUCH else "all alike"
    if solvers < _MUCH:
        return "solvers"
    if receiver < training / 2:
        return "receiver"
    if training >= 2 * solvers:
        return "solvers"
    return "training" if solvers >= 2 * training else "in turn"


@dataclass(frozen=True)
class Advice:
    """What set the pace, in a sentence, and what to change, the most useful change first."""

    found: str
    changes: list[str]


def advise(summary: Summary, case: Case) -> Advice:
    """Return the advice on a run that has trained."""
    if summary.source is not None:
        return _on_the_store(summary, case)
    if not summary.training.steps_while_simulating:
        return Advice("The simulations were over before training began.", _sooner(case))
    return _on_the_stream(summary, case)


def _on_the_stream(summary: Summary, case: Case) -> Advice:
    wait = summary.wait
    solvers, training, receiver = map(percent, (wait.solvers, wait.training, wait.transport))
    again = (
        f" (and drew samples again for {percent(wait.redraws)})" if wait.redraws >= _MUCH else ""
    )
    match pace(wait):
        case "solvers":
            found = (
                f"The solvers set the pace: training waited {training} of the time for samples"
                f"{again}, the solvers {solvers} to hand theirs over."
            )
            if wait.transport < _BUSY:
                found += (
                    f" The receiver is next: it waited only {receiver} for the solvers, so that "
                    "more solvers alone will help little."
                )
            more = _more_draws(case) if wait.training >= _MUCH else []
            return Advice(found, faster_solvers(case) + more)
        case "training":
            return Advice(
                f"Training sets the pace: it waited {training} of the time for samples{again}, the "
                f"solvers {solvers} to hand theirs over, the receiver {receiver} for the solvers.",
                faster_training(case, summary.training.device, wait.solvers),
            )
        case "receiver":
            return Advice(
                f"The receiver sets the pace: the solvers waited {solvers} of the time to hand "
                f"over their samples, training {training} for them{again}, and the receiver, which "
                f"puts them into the buffer, {receiver}.",
                _lighter_stream(case),
            )
        case "in turn":
            return Advice(
                f"Solvers and training take turns to wait ({solvers} and {training} of the "
                f"time{again}): "
                "the samples come in bursts.",
                _smoother_stream(case),
            )
        case "all alike":
            return Advice(
                f"Nobody waited much (solvers {solvers}, training {training} of the time): they "
                "keep pace with each other, and to be faster both have to be.",
                [],
            )


def _on_the_store(summary: Summary, case: Case) -> Advice:
    waited, capacity = summary.training.wait_fraction, case.study.buffer.capacity
    found = f"training waited {percent(waited)} of the time for the store."
    if waited < _MUCH:
        return Advice(
            f"Training sets the pace: {found}", faster_training(case, summary.training.device)
        )
    changes = ["a copy of the store on a faster disk (training.source)"]
    needed = summary.samples.produced * case.solver.stored_steps * case.step_bytes
    if capacity < summary.samples.produced and needed < _memory():
        changes.append(
            f"a buffer.capacity (now {capacity}) of {summary.samples.produced} samples, so that "
            "the store is read only once"
        )
    return Advice(f"Reading sets the pace: {found}", changes)


def _sooner(case: Case) -> list[str]:
    """Return changes by which training begins before the simulations are over."""
    buffer, study = case.study.buffer, case.study
    if buffer.watermark:
        return [f"a lower buffer.watermark (now {buffer.watermark}), to begin sooner"]
    return [
        f"more simulations (design.simulations, now {study.design.simulations}), so that they last "
        "longer than a start does"
    ]


def faster_solvers(case: Case) -> list[str]:
    """Return the changes that let more simulations be done in the same time."""
    ensemble, changes = case.study.ensemble, []
    solver = case.solver
    if case.study.deterministic:
        changes.append("deterministic: false (now true), which permits more than one actor")
    elif not _machine_is_full(case):
        changes.append(f"more solvers at once (ensemble.actors, now {ensemble.actors})")
    if isinstance(solver, BatchSolver):
        changes.append(
            f"more simulations in one call (ensemble.group_size, now {ensemble.group_size})"
        )
    if not (_on_a_cluster(case) or case.study.deterministic):
        full = f", as {_cpus(case)}" if _machine_is_full(case) else ""
        changes.append(f"the machines of a cluster (ensemble.address, now none){full}")
    return changes or [f"more solvers at once (ensemble.actors, now {ensemble.actors})"]


def _more_draws(case: Case) -> list[str]:
    """Return changes that make use of training's spare time."""
    if case.study.buffer.kind != "reservoir":
        return [
            f"a reservoir (buffer.kind, now {case.study.buffer.kind}), from which training may "
            "draw samples again meanwhile"
        ]
    return [
        "more draws of each sample meanwhile (the second number of buffer.replay, now "
        f"{replay_text(case.study.buffer)})"
    ]


def faster_training(case: Case, device: str, solvers_waited: float = 0.0) -> list[str]:
    """Return the changes that let training learn from more samples in the same time.

    `device`: what training runs on. `solvers_waited`: the share of the time that solvers waited.
    """
    changes = []
    if device == "cpu":
        changes.append("a GPU (training runs on the CPU)")
    buffer, batch = case.study.buffer, case.study.training.batch_size
    room = "" if _room(case) else f", with a larger buffer.capacity (now {buffer.capacity})"
    changes += [
        f"larger batches (training.batch_size, now {batch}){room}",
        f"a smaller surrogate (surrogate, now {case.study.surrogate.name})",
    ]
    if case.study.training.source is not None:
        return changes
    if case.study.buffer.replay[0] > 1:
        changes.append(
            "fewer draws of each sample (the first number of buffer.replay, now "
            f"{replay_text(case.study.buffer)})"
        )
    actors = case.study.ensemble.actors
    enough = math.ceil(actors * (1 - solvers_waited))
    if 0 < enough < actors:
        changes.append(
            f"or no more than {enough} of the {actors} solvers (ensemble.actors), which is as "
            "fast and leaves CPUs to others"
        )
    return changes


def _lighter_stream(case: Case) -> list[str]:
    solver, changes = case.solver, []
    step_bytes = 4 * len(solver.fields) * math.prod(solver.grid.shape)
    group_bytes = case.study.ensemble.group_size * solver.stored_steps * step_bytes
    if group_bytes <= MESSAGE_BYTES / 2 and isinstance(solver, BatchSolver):
        changes.append(
            f"larger messages (ensemble.group_size, now {case.study.ensemble.group_size}: a "
            f"message has {group_bytes / 2**20:.2g} MiB, and {MESSAGE_BYTES / 2**20:g} would do)"
        )
    fewer = []
    if solver.stored_steps > max(2, case.make_surrogate().window):
        fewer.append(f"stored steps (now {solver.stored_steps})")
    if max(solver.grid.shape) > 1:
        fewer.append(f"grid points (now {' x '.join(map(str, solver.grid.shape))})")
    if fewer:
        changes.append(f"fewer {' or '.join(fewer)}")
    if case.study.ensemble.actors > 1 and _machine_is_full(case):
        changes.append(
            f"fewer solvers (ensemble.actors, now {case.study.ensemble.actors}), as {_cpus(case)}"
        )
    return changes


def _smoother_stream(case: Case) -> list[str]:
    changes = [f"a larger buffer.capacity (now {case.study.buffer.capacity})"]
    if case.study.buffer.kind == "reservoir":
        changes.append(f"a wider buffer.replay (now {replay_text(case.study.buffer)})")
    if case.study.ensemble.group_size > 1:
        changes.append(f"a smaller ensemble.group_size (now {case.study.ensemble.group_size})")
    return changes


def _room(case: Case) -> bool:
    """Return whether the buffer's capacity permits a larger batch, or could be smaller itself."""
    buffer, training = case.study.buffer, case.study.training
    return bool(training.source) or buffer.capacity > buffer.watermark + training.batch_size


def _memory() -> int:
    """Return the bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _on_a_cluster(case: Case) -> bool:
    return bool(case.study.ensemble.address or os.environ.get("RAY_ADDRESS"))


def _machine_is_full(case: Case) -> bool:
    """Return whether another solver beside training would have to share a CPU of this machine."""
    ensemble = case.study.ensemble
    if _on_a_cluster(case):
        return False
    return (ensemble.actors + 1) * ensemble.cpus_per_actor + 1 > len(os.sched_getaffinity(0))


def _cpus(case: Case) -> str:
    cpus, actors = len(os.sched_getaffinity(0)), case.study.ensemble.actors
    solvers = "1 solver" if actors == 1 else f"{actors} solvers"
    return f"{solvers} and training take this machine's {cpus} CPUs"
