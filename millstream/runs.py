"""Runs of a study: training, simulating, comparing."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import framework.compare.comparing
import framework.run.run
import framework.run.simulating
from framework.report.summary import StoreSummary, Summary
from framework.run.folder import RunFolder
from millstream.arguments import checked
from millstream.studies import StudyLike, case_of


def train(study: StudyLike) -> Summary:
    """Simulate, stream, and train a surrogate at the same time.

    The run is kept in a new folder, `runs/NAME` under the current directory; its progress is
    printed on standard error. Ctrl-C stops it tidily, and `resume` goes on with it.

    Args:
        study: A `Study`, the path of a YAML file, or a mapping with the sections of a study.

    Returns:
        The summary of the run; `summary.run_dir` is its folder.

    Raises:
        StudyError: The study cannot work as it is. Nothing has been started.
        RunError: The run could not be finished. Its folder says how far it got.
        KeyboardInterrupt: It was interrupted; a checkpoint was written.

    Example:
        >>> study = millstream.Study.load("configs/quickstart.yaml", ["design.simulations=400"])
        >>> summary = millstream.train(study)
        >>> summary.simulations.requested, summary.simulations.completed
        (400, 400)
    """
    return framework.run.run.train(case_of(study))


@checked
def resume(run: str | PathLike[str], overrides: Sequence[str] = ()) -> Summary | dict[str, Any]:
    """Go on with a run or a comparison after any interruption, from its last checkpoint.

    If the run or the comparison is done already, only its outcome is returned.

    Args:
        run: The folder of a run or of a comparison, `runs/NAME`.
        overrides: `design.simulations=N` lets a run go on with more simulations than before, also
            one that is done; `training.stop` can be changed along with it.

    Returns:
        The outcome, as `train` or `compare` returns it.

    Raises:
        StudyError: The folder is not that of a run, or has changed since.
        RunError: The run could not be finished.
        KeyboardInterrupt: It was interrupted once more.

    Example:
        >>> millstream.resume("runs/quickstart").status
        'done'
        >>> millstream.resume("runs/quickstart", ["design.simulations=400"]).simulations.completed
        400
    """
    folder = RunFolder.find(Path(run))
    if overrides or not folder.comparison.is_file():
        return framework.run.run.resume(folder.path, overrides)
    comparing = framework.compare.comparing.Comparing.resumed(folder)
    comparing.run()
    return comparing.result()


def simulate(study: StudyLike) -> StoreSummary:
    """Run the simulations of a study into its store, without training.

    Simulations already stored are not computed again: the same call continues after any
    interruption.

    Args:
        study: A `Study`, the path of a YAML file, or a mapping with the sections of a study.

    Returns:
        What is in the store now; `summary.store` is its path.

    Raises:
        StudyError: The study cannot work as it is, or the store is of another study.
        RunError: Not everything could be simulated or stored.
        KeyboardInterrupt: It was interrupted; what is stored stays.

    Example:
        >>> summary = millstream.simulate("configs/quickstart.yaml")
        >>> summary.simulations.completed
        200
    """
    return framework.run.simulating.simulate(case_of(study))


def compare(
    study: StudyLike,
    seeds: int = 3,
    equal: Literal["steps", "seconds", "samples"] = "steps",
) -> dict[str, Any]:
    """Train a study online and offline, and tell which was better, and how sure that is.

    Args:
        study: A `Study`, the path of a YAML file, or a mapping with the sections of a study.
        seeds: How often every arm is trained, 3 or more.
        equal: What is equal in all arms: optimiser steps, seconds (of `training.stop`), or samples
            to learn from.

    Returns:
        The plain values that `millstream compare --json` prints: `arms`, the scores of each arm;
        `improvement`, by how much one arm is better than another, with its interval; `run_dir`.

    Raises:
        StudyError: The study cannot work as it is. Nothing has been started.
        RunError: The comparison could not be finished; `resume` goes on with it.
        KeyboardInterrupt: It was interrupted; `resume` goes on with it.

    Example:
        >>> found = millstream.compare("configs/compare/heat_mlp.yaml", seeds=5)
        >>> [item["of"] for item in found["improvement"] if item["against"] == "offline"]
        ['reservoir', 'firo', 'fifo']
    """
    return framework.compare.comparing.compare(case_of(study), seeds, equal)
