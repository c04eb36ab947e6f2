"""A training run in words: a line for each part of its summary."""

from framework.report.summary import Summary
from framework.report.words import error_percent, large, percent


def facts(summary: Summary) -> list[str]:
    """Return the lines; parts that the run does not have are left out."""
    lines = [
        f"{summary.run_dir}: {summary.status} after {summary.seconds:.0f} s",
        _data(summary),
        f"  samples      {summary.samples.unique_trained} trained on, "
        f"{summary.samples.untrained} not, {summary.samples.drawn} drawn",
        *_training_lines(summary),
    ]
    if cost := summary.surrogate:
        lines.append(
            f"  surrogate    {cost.parameters} parameters; a step takes "
            f"{large(cost.flops)}FLOP and {large(cost.memory_bytes)}B"
        )
    return lines + _validation(summary) + _kept(summary)


def _data(summary: Summary) -> str:
    if summary.source is not None:
        return f"  source       {summary.source['path']}"
    counts = summary.simulations
    return (
        f"  simulations  {counts.completed} of {counts.requested} completed, "
        f"{counts.quarantined} quarantined"
    )


def _training_lines(summary: Summary) -> list[str]:
    training = summary.training
    steps = f"  training     {training.steps} steps on {training.device}, "
    rate = f"{training.samples_per_second:.0f} samples/s"
    if summary.source is not None:
        waited = percent(training.wait_fraction)
        return [f"{steps}{rate}, waited {waited} of the time for the store"]
    wait = summary.wait
    again = f", or redrew {percent(wait.redraws)}" if wait.redraws >= 0.005 else ""
    return [
        f"{steps}{training.steps_while_simulating} of them while simulating, {rate}",
        f"  waiting      solvers {percent(wait.solvers)} to hand over, training "
        f"{percent(wait.training)} for samples{again}, receiver {percent(wait.transport)} for "
        "solvers",
    ]


def _validation(summary: Summary) -> list[str]:
    scores = summary.validation
    if scores is None:
        return []
    errors = scores.relative_l2
    more = []
    if scores.last_time is not None:
        more.append(f"at the last time {error_percent(scores.last_time.mean)}")
    if scores.one_step is not None:
        more.append(f"of one step {error_percent(scores.one_step.mean)}")
    trivial = ", ".join(
        f"{name.replace('_', ' ')} {error_percent(error)}" for name, error in scores.trivial.items()
    )
    return [
        f"  validation   relative L2 {error_percent(errors.mean)} "
        f"(90 % below {error_percent(errors.p90)}), max error {scores.max:.3g}, "
        f"of {scores.simulations} held-out simulations",
        *([f"               {', '.join(more)}"] if more else []),
        f"  to compare   {trivial}",
    ]


def _kept(summary: Summary) -> list[str]:
    lines = []
    if summary.store:
        lines.append(f"  store        {summary.store}, {summary.samples.stored} samples")
    if summary.checkpoint.count:
        seconds = f"{summary.checkpoint.seconds:.1f} s"
        lines.append(f"  checkpoints  {summary.checkpoint.count}, training waited {seconds}")
    if tracked := summary.mlflow:
        run = f"run {tracked.run_id}" if tracked.run_id else "not sent yet"
        lines.append(f"  mlflow       {tracked.tracking_uri}, {run}")
    if model := summary.model:
        lines.append(f"  model        {model.name}, version {model.version}")
    return lines
