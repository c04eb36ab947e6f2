"""The outcome of a comparison: as plain numbers, and as a table to read."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from framework.compare.intervals import half_interval, improvement
from framework.compare.record import ComparisonRecord
from framework.report.words import aligned, digits, digits_percent

MEASURES = ("mean", "p90", "p99", "max")
_LINE_WIDTH = 100


def result(record: ComparisonRecord, directory: str) -> dict[str, Any]:
    """Return a comparison as plain numbers for JSON.

    `arms` has one entry for each arm and seed. `validation` is the relative L2 error over the
    held-out trajectories, with its mean at the last time (`last_time`) and that of single steps
    (`one_step`, null in mode `direct`); `trained` is its mean over simulations that every arm was
    trained on, and `gap` how much larger the mean is on held-out ones (null for bred simulations);
    `seconds` are those of simulating the arm's data, and of training; `bytes` lie on disk. `steps`
    are the optimiser steps of every arm, if they are equal. `improvement` says by which part the
    errors of an online arm (`of`) are lower than those of another (`against`), see
    `intervals.improvement`.
    """
    arms = record.arms
    offline = {arm["name"]: arm["offline"] for arm in arms}
    online = [name for name in offline if not offline[name]]
    pairs = [
        (of, against)
        for of in reversed(online)
        for against in offline
        # A buffer is compared with the simpler ones, too.
        if offline[against]
        or (of in ("reservoir", "breed") and against in online[: online.index(of)])
    ]
    return {
        "run_dir": directory,
        "status": record.status,
        "equal": record.equal,
        "seeds": record.seeds,
        "steps": record.steps,
        "arms": arms,
        "improvement": [
            {
                "of": of,
                "against": against,
                **_improvement(arms, of, against, "mean"),
                **{key: _improvement(arms, of, against, key) for key in MEASURES[1:]},
            }
            for of, against in pairs
        ],
    }


def _improvement(arms: list[dict[str, Any]], of: str, against: str, measure: str) -> dict[str, Any]:
    return improvement(*paired(arms, of, against, measure))


def paired(
    arms: Sequence[dict[str, Any]], of: str, against: str, measure: str
) -> tuple[list[float], list[float]]:
    """Return the errors of two arms, seed by seed, where both have one."""
    errors = {
        (arm["name"], arm["seed"]): arm["validation"][measure]
        for arm in arms
        if arm["status"] == "done"
    }
    seeds = sorted(seed for name, seed in errors if name == of and (against, seed) in errors)
    return [errors[of, seed] for seed in seeds], [errors[against, seed] for seed in seeds]


def arm_text(arm: dict[str, Any]) -> str:
    """Return a line about one arm with one seed."""
    what = f"{arm['name']}, seed {arm['seed']}"
    if arm["status"] != "done":
        return f"{what}: {arm['status']}: {arm['error']}"
    return (
        f"{what}: relative L2 {digits_percent(arm['validation']['mean'])} after {arm['steps']} "
        f"steps on {arm['unique_samples']} samples, {arm['seconds']:.1f} s"
    )


def comparison_text(found: dict[str, Any]) -> str:
    """Return the result as lines to print."""
    done = [arm for arm in found["arms"] if arm["status"] == "done"]
    lines = [
        f"{found['run_dir']}: {found['status']}, {found['seeds']} seeds at equal {found['equal']}",
        "",
        *aligned([_HEAD, *(_row(arms) for arms in by_name(done).values())]),
        "",
        *textwrap.wrap(_LEGEND, _LINE_WIDTH, break_on_hyphens=False),
    ]
    better = [item for item in found["improvement"] if item["mean"] is not None]
    if better:
        head = ["Errors are lower by", "in the mean", "95 % interval", "99th percentile", "maximum"]
        lines += ["", *aligned([head, *map(_better, better)])]
    lines += [arm_text(arm) for arm in found["arms"] if arm["status"] != "done"]
    lines += [
        f"{arm['name']}, seed {arm['seed']}: ended after {arm['steps']} of {found['steps']} "
        "steps, as simulations failed"
        for arm in done
        if found["steps"] and arm["steps"] < found["steps"]
    ]
    return "\n".join(lines)


def by_name(arms: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the entries of each arm, one per seed."""
    names = dict.fromkeys(arm["name"] for arm in arms)
    return {name: [arm for arm in arms if arm["name"] == name] for name in names}


_HEAD = [
    *("arm", "mean", "", "p90", "p99", "max", "last", "1 step", "gap"),
    *("steps", "samples", "s", "per s", "MB"),
]
_LEGEND = (
    "mean to max: relative L2 in % over the held-out trajectories, a mean over the seeds (+- its "
    "95 % interval); last: at the last time; 1 step: of single steps from true states; gap: by how "
    "much the mean is higher than on simulations trained on; samples: different ones trained on; "
    "s: seconds to simulate and train; per s: samples drawn in a second of training; MB: on disk."
)


def _row(arms: Sequence[dict[str, Any]]) -> list[str]:
    def mean(key: str) -> float:
        return float(np.mean([arm[key] for arm in arms]))

    errors = {key: [arm["validation"][key] for arm in arms] for key in MEASURES}
    return [
        arms[0]["name"],
        digits(float(np.mean(errors["mean"]))),
        f"+- {digits(half_interval(errors['mean']))}" if len(arms) > 1 else "",
        *(digits(float(np.mean(errors[key]))) for key in MEASURES[1:]),
        *(_mean_percent(arms, key) for key in ("last_time", "one_step")),
        digits(mean("gap")) if arms[0]["gap"] is not None else "",
        f"{mean('steps'):.0f}",
        f"{mean('unique_samples'):.0f}",
        f"{mean('seconds'):.1f}",
        f"{mean('samples_per_second'):.0f}",
        f"{mean('bytes') / 1e6:.1f}",
    ]


def _better(item: dict[str, Any]) -> list[str]:
    interval = " to ".join(map(digits_percent, item["ci95"] or []))
    return [
        f"{item['of']} against {item['against']}",
        digits_percent(item["mean"]),
        interval or "too few seeds",
        digits_percent(item["p99"]["mean"]),
        digits_percent(item["max"]["mean"]),
    ]


def _mean_percent(arms: Sequence[dict[str, Any]], measure: str) -> str:
    """Return the mean of a measure that an arm may lack."""
    errors = [arm["validation"].get(measure) for arm in arms]
    return "" if None in errors else digits(float(np.mean(errors)))
