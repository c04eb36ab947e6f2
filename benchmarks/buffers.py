"""How large a buffer has to be: the error against its capacity, for every policy.

    python benchmarks/buffers.py [STUDY] [--seeds N] [--picture FILE]

Trains the online arms of `millstream compare` (fifo, firo, reservoir) at an equal number of
optimiser steps, with a capacity of 1 %, 5 % and 25 % of all samples that the reservoir is sent. The
watermark is a quarter of the capacity. The seeds are those of the comparison.

How to read it: relative L2 over the held-out trajectories after the last step, mean over the seeds
with its 95 % interval; below it by how much the error is higher than that of the same policy with
the largest capacity, paired by seed. Runs are kept in runs/.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from table import print_table

from framework.compare.arms import SEEDS, Plan
from framework.compare.intervals import half_interval, improvement
from framework.pictures.style import BLUE, GREEN, STYLE, VERMILLION
from framework.report.summary import Summary
from framework.report.words import digits
from framework.run.run import train
from framework.simulation.cluster import ray_for
from framework.study.case import Case
from framework.study.study import Study
from framework.training.surrogate import make_surrogate, samples_per_simulation

STUDY = Path(__file__).parent.parent / "configs" / "compare" / "heat_mlp.yaml"
SHARES = (0.01, 0.05, 0.25)
COLOURS = {"fifo": VERMILLION, "firo": GREEN, "reservoir": BLUE}

# (policy, share of all samples) -> the errors of the seeds.
Errors = dict[tuple[str, float], list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Error against capacity and policy.")
    parser.add_argument("study", nargs="?", type=Path, default=STUDY)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--picture", type=Path, default=Path("buffers.png"))
    arguments = parser.parse_args()
    study = Study.load(arguments.study)
    if arguments.seeds < SEEDS:
        parser.error(f"--seeds is {arguments.seeds}: the intervals need {SEEDS} or more")
    if SHARES[0] * total_samples(study) < study.training.batch_size:
        parser.error(f"{100 * SHARES[0]:g} % of the samples of {arguments.study} are no batch")
    with ray_for(study.ensemble, study.validation.cpus):
        errors = measure(arguments.study, arguments.seeds)
    rows = [
        [
            policy,
            f"{100 * share:g} %",
            f"{digits(float(np.mean(found)))} +- {digits(half_interval(found))} %",
            higher(errors, policy, share),
        ]
        for (policy, share), found in errors.items()
    ]
    print_table(["policy", "capacity", "relative L2", "higher than at 25 %"], rows)
    draw(errors, study.name, arguments.picture)


def measure(path: Path, seeds: int) -> Errors:
    study = Study.load(path)
    errors: Errors = {}
    for share in SHARES:
        capacity = round(share * total_samples(study))
        plan = Plan(Case(Study.load(path, sizes(capacity, study.training.batch_size))), "steps")
        for arm in plan.arms:
            if not arm.offline:
                errors[arm.name, share] = [
                    error_of(train(plan.case_of(arm, seed, Path()))) for seed in range(seeds)
                ]
    return errors


def error_of(summary: Summary) -> float:
    """The mean relative L2 of a run that was scored."""
    assert summary.validation is not None
    return summary.validation.relative_l2.mean


def total_samples(study: Study) -> int:
    """That the reservoir is sent."""
    case = Case(study)
    return study.design.simulations * samples_per_simulation(case, make_surrogate(case).window)


def sizes(capacity: int, batch_size: int) -> list[str]:
    """Settings of a buffer that holds a batch above its watermark."""
    watermark = min(capacity // 4, capacity - batch_size)
    return [f"buffer.capacity={capacity}", f"buffer.watermark={watermark}"]


def higher(errors: Errors, policy: str, share: float) -> str:
    """Than with the largest capacity, with the interval that is paired by seed."""
    if share == SHARES[-1]:
        return ""
    found = improvement(errors[policy, share], errors[policy, SHARES[-1]])
    high, low = (-end for end in found["ci95"])
    return f"{digits(-found['mean'])} % ({digits(low)} to {digits(high)})"


def draw(errors: Errors, name: str, path: Path) -> None:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 3.8), layout="constrained")
        axes = figure.subplots()
        for number, policy in enumerate(COLOURS):
            found = [np.array(errors[policy, share]) for share in SHARES]
            x = 100 * np.array(SHARES) * 1.06 ** (number - 1)
            half = [100 * half_interval(values.tolist()) for values in found]
            means = [100 * values.mean() for values in found]
            axes.errorbar(
                x, means, half, marker="o", capsize=3, label=policy, color=COLOURS[policy]
            )
        axes.set_xscale("log")
        axes.set_xticks([100 * share for share in SHARES], [f"{100 * s:g}" for s in SHARES])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.grid(True)
        axes.set_xlabel("capacity [% of all samples]")
        axes.set_ylabel("relative L2 [%]")
        axes.set_title(f"{name}: error against the buffer's capacity, with 95 % intervals")
        axes.legend()
        figure.savefig(path)


if __name__ == "__main__":
    main()
