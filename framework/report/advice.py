"""What came of a training run, in words: what was done, what set the pace, what to change.

Who set the pace follows from who waited, while simulations ran. A solver waits until the receive
thread takes what it has computed; the receive thread ("transport") waits for the solvers or, with
samples in hand, for training; training waits for samples. So training waits

- together with the receive thread: for the solvers;
- while the receive thread does not wait: for transport.
"""

import math
import os
import textwrap
from typing import Any, Literal

from framework.simulation.ensemble import MESSAGE_BYTES
from framework.study.case import Case
from solvers.base import BatchSolver

# A wait below this share of the time is not worth a word.
_MUCH = 0.15
# A receive thread that waits for less than this share of the time has little room for more.
_BUSY = 0.1
# Checkpoints may take this share of the time.
_CHECKPOINTS = 0.05
# Samples were drawn as often as permitted if it is to within this.
_NEARLY = 0.95
_WIDTH = 100

Pace = Literal["solvers", "training", "transport", "in turn", "all alike"]


def pace(wait: dict[str, float]) -> Pace:
    """Who set the pace of a run, by the shares of the time that each waited (see above)."""
    solvers, training, transport = wait["solvers"], wait["training"], wait["transport"]
    if training < _MUCH:
        return "training" if solvers >= _MUCH else "all alike"
    if solvers < _MUCH:
        return "solvers"
    if transport < training / 2:
        return "transport"
    if training >= 2 * solvers:
        return "solvers"
    return "training" if solvers >= 2 * training else "in turn"


def report(summary: dict[str, Any], case: Case) -> str:
    """A run's summary (see `Figures.summary`) and what to make of it, as lines to print."""
    return "\n".join(_figures(summary) + _advice(summary, case))


def _figures(summary: dict[str, Any]) -> list[str]:
    simulations, samples = summary["simulations"], summary["samples"]
    training, validation = summary["training"], summary["validation"]
    streamed = summary["source"] is None
    lines = [f"{summary['run_dir']}: {summary['status']} after {summary['seconds']:.0f} s"]
    if streamed:
        lines.append(
            f"  simulations  {simulations['completed']} of {simulations['requested']} completed, "
            f"{simulations['quarantined']} quarantined"
        )
    else:
        lines.append(f"  source       {summary['source']['path']}")
    lines.append(
        f"  samples      {samples['unique_trained']} trained on, {samples['untrained']} not, "
        f"{samples['drawn']} drawn"
    )
    steps = f"  training     {training['steps']} steps on {training['device']}, "
    rate = f"{training['samples_per_second']:.0f} samples/s"
    if streamed:
        shares = ", ".join(f"{who} {_percent(share)}" for who, share in summary["wait"].items())
        lines += [
            f"{steps}{training['steps_while_simulating']} of them while simulating, {rate}",
            f"  waiting      {shares} of the time while simulating",
        ]
    else:
        waited = _percent(training["wait_fraction"])
        lines.append(f"{steps}{rate}, waited {waited} of the time for the store")
    if cost := summary["surrogate"]:
        lines.append(
            f"  surrogate    {cost['parameters']} parameters; a step takes "
            f"{_large(cost['flops'])}FLOP and {_large(cost['memory_bytes'])}B"
        )
    if validation:
        errors, trivial = validation["relative_l2"], validation["trivial"]
        lines += [
            f"  validation   relative L2 {_error(errors['mean'])} "
            f"(90 % below {_error(errors['p90'])}), max error {validation['max']:.3g}, "
            f"of {validation['simulations']} held-out simulations",
            f"  to compare   mean field {_error(trivial['mean_field'])}, "
            f"initial field {_error(trivial['initial_field'])}",
        ]
    if summary["store"]:
        lines.append(f"  store        {summary['store']}, {samples['stored']} samples")
    if checkpoint := summary["checkpoint"]["count"]:
        seconds = summary["checkpoint"]["seconds"]
        lines.append(f"  checkpoints  {checkpoint}, {seconds:.1f} s in all")
    if summary["mlflow"]:
        tracked = summary["mlflow"]
        run = f"run {tracked['run_id']}" if tracked["run_id"] else "not sent yet"
        lines.append(f"  mlflow       {tracked['tracking_uri']}, {run}")
    if model := summary["model"]:
        lines.append(f"  model        {model['name']}, version {model['version']}")
    return lines


def _large(number: float) -> str:
    """Three digits and a prefix, to be followed by a unit."""
    prefixes = ["", "k", "M", "G", "T", "P"]
    power = min(int(math.log10(max(number, 1)) // 3), len(prefixes) - 1)
    return f"{number / 1000**power:.3g} {prefixes[power]}"


def _advice(summary: dict[str, Any], case: Case) -> list[str]:
    """What set the pace and what to change, then what is amiss, then how to go on."""
    lines = []
    if summary["training"]["steps"]:
        found, changes = (_of_the_store if summary["source"] else _of_the_stream)(summary, case)
        lines += _fill(found + (" What to change:" if changes else ""))
        for change in changes:
            lines += _fill(f"  - {change}", indent=4)
    for warning in _warnings(summary, case):
        lines += _fill(f"Beware: {warning}")
    if summary["status"] == "interrupted":
        lines.append(f"To go on: millstream resume {summary['run_dir']}")
    return lines


def _fill(text: str, indent: int = 0) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)


def _of_the_stream(summary: dict[str, Any], case: Case) -> tuple[str, list[str]]:
    """What set the pace, and what to change."""
    if not summary["training"]["steps_while_simulating"]:
        found = "The simulations were over before training began."
        return found, [
            f"a lower buffer.watermark (now {case.study.buffer.watermark}), to begin sooner"
        ]
    solvers, training, transport = (
        _percent(summary["wait"][who]) for who in ("solvers", "training", "transport")
    )
    match pace(summary["wait"]):
        case "solvers":
            found = (
                f"The solvers set the pace: training waited {training} of the time for samples, "
                f"the solvers {solvers} to hand theirs over."
            )
            if summary["wait"]["transport"] < _BUSY:
                found += (
                    f" Transport is next: it waited only {transport}, so that more solvers alone "
                    "will help little."
                )
            return found, _faster_solvers(case) + _more_draws(case)
        case "training":
            found = (
                f"Training sets the pace: the solvers waited {solvers} of the time to hand over "
                f"their samples, training {training} for them."
            )
            return found, _faster_training(summary, case)
        case "transport":
            found = (
                f"Transport sets the pace: the solvers waited {solvers} of the time to hand over "
                f"their samples, training {training} for them, and what carries them {transport}."
            )
            return found, _lighter_transport(case)
        case "in turn":
            found = (
                f"Solvers and training take turns to wait ({solvers} and {training} of the time): "
                "the samples come in bursts."
            )
            return found, _smoother_stream(case)
        case "all alike":
            found = (
                f"Nobody waited much (solvers {solvers}, training {training} of the time): they "
                "keep pace with each other, and to be faster both have to be."
            )
            return found, []


def _of_the_store(summary: dict[str, Any], case: Case) -> tuple[str, list[str]]:
    """What set the pace of training from a store, and what to change."""
    waited, capacity = summary["training"]["wait_fraction"], case.study.buffer.capacity
    found = f"training waited {_percent(waited)} of the time for the store."
    if waited < _MUCH:
        return f"Training sets the pace: {found}", _faster_training(summary, case)
    changes = ["a copy of the store on a faster disk (training.source)"]
    if capacity < summary["samples"]["produced"]:
        changes.append(
            f"a buffer.capacity (now {capacity}) of {summary['samples']['produced']} samples, so "
            "that the store is read only once"
        )
    return f"Reading sets the pace: {found}", changes


def _faster_solvers(case: Case) -> list[str]:
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
    """Use for the time that training has."""
    if case.study.buffer.kind != "reservoir":
        return [
            f"a reservoir (buffer.kind, now {case.study.buffer.kind}), from which training may "
            "draw samples again meanwhile"
        ]
    return [
        "more draws of each sample meanwhile (the second number of buffer.replay, now "
        f"{_replay(case)})"
    ]


def _faster_training(summary: dict[str, Any], case: Case) -> list[str]:
    changes = []
    if summary["training"]["device"] == "cpu":
        changes.append("a GPU (training ran on the CPU)")
    changes += [
        f"larger batches (training.batch_size, now {case.study.training.batch_size})",
        f"a smaller surrogate (surrogate, now {case.study.surrogate.name})",
    ]
    if summary["source"] is not None:
        return changes
    if case.study.buffer.replay[0] > 1:
        changes.append(
            f"fewer draws of each sample (the first number of buffer.replay, now {_replay(case)})"
        )
    actors = case.study.ensemble.actors
    enough = math.ceil(actors * (1 - summary["wait"]["solvers"]))
    if 0 < enough < actors:
        changes.append(
            f"or no more than {enough} of the {actors} solvers (ensemble.actors), which is as "
            "fast and leaves CPUs to others"
        )
    return changes


def _lighter_transport(case: Case) -> list[str]:
    solver, changes = case.solver, []
    step_bytes = 4 * len(solver.fields) * math.prod(solver.grid.shape)
    group_bytes = case.study.ensemble.group_size * solver.stored_steps * step_bytes
    if group_bytes <= MESSAGE_BYTES / 2 and isinstance(solver, BatchSolver):
        changes.append(
            f"larger messages (ensemble.group_size, now {case.study.ensemble.group_size}: a "
            f"message has {group_bytes / 2**20:.2g} MiB, and {MESSAGE_BYTES / 2**20:g} would do)"
        )
    changes.append(
        f"fewer stored steps (now {solver.stored_steps}) or grid points (now "
        f"{' x '.join(map(str, solver.grid.shape))})"
    )
    if case.study.ensemble.actors > 1 and _machine_is_full(case):
        changes.append(
            f"fewer solvers (ensemble.actors, now {case.study.ensemble.actors}), as {_cpus(case)}"
        )
    return changes


def _smoother_stream(case: Case) -> list[str]:
    changes = [f"a larger buffer.capacity (now {case.study.buffer.capacity})"]
    if case.study.buffer.kind == "reservoir":
        changes.append(f"a wider buffer.replay (now {_replay(case)})")
    if case.study.ensemble.group_size > 1:
        changes.append(f"a smaller ensemble.group_size (now {case.study.ensemble.group_size})")
    return changes


def _warnings(summary: dict[str, Any], case: Case) -> list[str]:
    """What is amiss, however fast it was."""
    warnings = [*_of_the_error(summary, case), *_of_the_samples(summary, case)]
    if quarantined := summary["quarantined"]:
        first = quarantined[0]
        values = ", ".join(f"{name} = {value:.4g}" for name, value in first["parameters"].items())
        which = (
            "1 simulation was" if len(quarantined) == 1 else f"{len(quarantined)} simulations were"
        )
        warnings.append(
            f"{which} quarantined, so that the surrogate knows nothing there. The first: "
            f"{first['simulation']} at step {first['step']} ({values}): {first['error']}"
        )
    seconds = summary["checkpoint"]["seconds"]
    if seconds > _CHECKPOINTS * summary["seconds"]:
        every = case.study.checkpoint.every_seconds
        warnings.append(
            f"training stood still for checkpoints {_percent(seconds / summary['seconds'])} of the "
            f"time: write them less often (checkpoint.every_seconds, now {every:g}), or make them "
            f"smaller (buffer.capacity, now {case.study.buffer.capacity})."
        )
    return warnings


def _of_the_error(summary: dict[str, Any], case: Case) -> list[str]:
    validation = summary["validation"]
    if not validation or validation["relative_l2"]["mean"] is None:
        return []
    error = validation["relative_l2"]["mean"]
    better = [
        f"the {name.replace('_', ' ')} ({_error(value)})"
        for name, value in validation["trivial"].items()
        if value is not None and value <= error
    ]
    if not better:
        return []
    return [
        f"the surrogate's error ({_error(error)}) is not below that of {' and '.join(better)}: it "
        "has learnt little. Train for longer, on more simulations (design.simulations, now "
        f"{case.study.design.simulations}) or more draws of each sample, or change "
        f"training.learning_rate (now {case.study.training.learning_rate:g}) or the surrogate."
    ]


def _of_the_samples(summary: dict[str, Any], case: Case) -> list[str]:
    samples, warnings = summary["samples"], []
    limits = case.study.training.stop.model_dump(exclude_none=True)
    if samples["untrained"] and summary["status"] == "done" and limits:
        stop = ", ".join(f"{name}: {value}" for name, value in limits.items())
        warnings.append(
            f"{samples['untrained']} samples were computed and not trained on: training.stop "
            f"({stop}) came first. With `stop: drained` none is left."
        )
    least, most = case.study.buffer.replay
    ratio = samples["drawn"] / max(samples["received"], 1)
    if summary["source"] is None and most > least and ratio >= _NEARLY * most:
        warnings.append(
            f"samples were drawn {ratio:.1f} times each, all that buffer.replay (now "
            f"{_replay(case)}) permits: training could have drawn more."
        )
    return warnings


def _on_a_cluster(case: Case) -> bool:
    return bool(case.study.ensemble.address or os.environ.get("RAY_ADDRESS"))


def _machine_is_full(case: Case) -> bool:
    """Whether another solver beside training would have to share a CPU of this machine."""
    ensemble = case.study.ensemble
    if _on_a_cluster(case):
        return False
    return (ensemble.actors + 1) * ensemble.cpus_per_actor + 1 > len(os.sched_getaffinity(0))


def _cpus(case: Case) -> str:
    cpus, actors = len(os.sched_getaffinity(0)), case.study.ensemble.actors
    solvers = "1 solver" if actors == 1 else f"{actors} solvers"
    return f"{solvers} and training take this machine's {cpus} CPUs"


def _replay(case: Case) -> str:
    least, most = case.study.buffer.replay
    return f"[{least:g}, {most:g}]"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _error(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.2f} %"
