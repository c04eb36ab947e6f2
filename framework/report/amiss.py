"""Warnings about a training run: what went wrong, however fast it was."""

from framework.report.summary import Summary
from framework.report.words import error_percent, percent
from framework.study.case import Case
from framework.study.design import parameters_text
from framework.study.sections import BufferConfig

# Checkpoints may take this share of the time.
_CHECKPOINTS = 0.05
# Samples were drawn as often as permitted if they reach this share of it.
_NEARLY = 0.95


def amiss(summary: Summary, case: Case) -> list[str]:
    """Return a sentence or two for each thing that went wrong."""
    return [
        *_of_the_error(summary, case),
        *_of_the_stop(summary, case),
        *_of_the_replay(summary, case),
        *_of_failures(summary),
        *_of_checkpoints(summary, case),
    ]


def _of_the_error(summary: Summary, case: Case) -> list[str]:
    if summary.validation is None:
        return []
    error, study = summary.validation.relative_l2.mean, case.study
    better = [
        f"the {name.replace('_', ' ')} ({error_percent(trivial)})"
        for name, trivial in summary.validation.trivial.items()
        if trivial <= error  # false of a NaN
    ]
    if not better:
        return []
    return [
        f"the surrogate's error ({error_percent(error)}) is not below that of "
        f"{' and '.join(better)}: it has learnt little. Train for longer, on more simulations "
        f"(design.simulations, now {study.design.simulations}) or more draws of each sample, or "
        f"change training.learning_rate (now {study.training.learning_rate:g}) or the surrogate."
    ]


def _of_the_stop(summary: Summary, case: Case) -> list[str]:
    limits = case.study.training.stop.model_dump(exclude_none=True)
    if not (summary.samples.untrained and summary.status == "done" and limits):
        return []
    stop = ", ".join(f"{name}: {value}" for name, value in limits.items())
    return [
        f"{summary.samples.untrained} samples were computed and not trained on: training.stop "
        f"({stop}) came first. With `stop: drained` none is left."
    ]


def _of_the_replay(summary: Summary, case: Case) -> list[str]:
    least, most = case.study.buffer.replay
    draws = summary.samples.drawn / max(summary.samples.received, 1)
    if summary.source is not None or most <= least or draws < _NEARLY * most:
        return []
    return [
        f"samples were drawn {draws:.1f} times each, all that buffer.replay (now "
        f"{replay_text(case.study.buffer)}) permits: training could have drawn more."
    ]


def _of_failures(summary: Summary) -> list[str]:
    if not summary.quarantined:
        return []
    first, count = summary.quarantined[0], len(summary.quarantined)
    values = parameters_text(first.parameters, first.parameters.values())
    which = "1 simulation was" if count == 1 else f"{count} simulations were"
    return [
        f"{which} quarantined, so that the surrogate knows nothing there. The first: "
        f"{first.simulation} at step {first.step} ({values}): {first.error}"
    ]


def _of_checkpoints(summary: Summary, case: Case) -> list[str]:
    seconds, study = summary.checkpoint.seconds, case.study
    if seconds <= _CHECKPOINTS * summary.seconds:
        return []
    buffer = study.buffer
    smaller = (
        f", or make them smaller (buffer.capacity, now {buffer.capacity})"
        if buffer.capacity > buffer.watermark + study.training.batch_size
        else ""
    )
    return [
        f"training stood still for checkpoints {percent(seconds / summary.seconds)} of the time: "
        f"write them less often (checkpoint.every_seconds, now "
        f"{study.checkpoint.every_seconds:g}){smaller}."
    ]


def replay_text(buffer: BufferConfig) -> str:
    """Return the band of a buffer's replay, as a study writes it."""
    least, most = buffer.replay
    return f"[{least:g}, {most:g}]"
