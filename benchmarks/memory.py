"""Whether any process of a run grows: resident memory over the time of a run.

    python benchmarks/memory.py [--seconds N]

Runs the quickstart's study (small fields and an MLP, so that many simulations pass), stopped after
so many seconds, in a folder that is deleted afterwards, with its store and without MLflow; and
reads once a second the memory of every process that belongs to it: USS, what would be freed if it
ended. What all share, Ray's object store, is a file in shared memory and counted for itself.

How to read it: the end of the run, at which the pictures are drawn, is left out, and so is the
first quarter of the rest; a process is flat if in the last quarter it holds no more than a
fiftieth, or 2 MiB, more than in the second. Processes that came or went in between are left out.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import psutil
from table import print_table

QUICKSTART = Path(__file__).parent.parent / "configs" / "quickstart.yaml"
SETTINGS = (
    "solver.grid_size=32",
    "design.simulations=100000",
    "design.sampler=monte_carlo",
    "ensemble.group_size=8",
    "surrogate={name: mlp}",
    "training.learning_rate=0.001",
    "training.schedule=constant",
    "checkpoint.every_seconds=20",
    "store.keep=10",
    "tracking.uri=none",
)
MIB = 2**20
ENDING = 25  # seconds, at most


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory of every process over a run.")
    parser.add_argument("--seconds", type=float, default=240)
    seconds = parser.parse_args().seconds
    command = [str(Path(sys.executable).with_name("millstream")), "train", str(QUICKSTART)]
    stop = f"training.stop={{seconds: {seconds:g}}}"
    with tempfile.TemporaryDirectory() as directory:
        run = subprocess.Popen(
            [*command, *SETTINGS, stop], cwd=directory, stdout=subprocess.PIPE, text=True
        )
        held = watch(run)
        print(run.communicate()[0])
    report(held)


def watch(run: "subprocess.Popen[str]") -> dict[str, list[float]]:
    """Name of a process -> its memory in bytes, once a second until the run ends."""
    held: dict[int, list[float]] = defaultdict(list)
    names: dict[int, str] = {}
    shared = []
    while run.poll() is None:
        for process in [psutil.Process(run.pid), *_children(run.pid)]:
            try:
                held[process.pid].append(process.memory_full_info().uss)
                names[process.pid] = _name(process)  # Ray's workers change theirs
            except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended
                continue
        shared.append(psutil.disk_usage("/dev/shm").used)
        time.sleep(1)
    names[run.pid] = "training"
    named = {f"{names[pid]} ({pid})": values for pid, values in held.items()}
    return {**named, "shared memory (/dev/shm)": shared}


def report(held: dict[str, list[float]]) -> None:
    longest = max(map(len, held.values())) - ENDING
    rows = []
    for name, values in held.items():
        if len(values) < longest:
            continue
        quarters = [quarter.mean() for quarter in np.array_split(np.array(values[:longest]), 4)]
        grown = quarters[3] - quarters[1]
        flat = grown <= max(0.02 * quarters[1], 2 * MIB)
        levels = [f"{quarter / MIB:,.0f}" for quarter in quarters]
        rows.append([name, *levels, f"{grown / MIB:+,.1f}", "flat" if flat else "grows"])
    print_table(["process", "1st quarter", "2nd", "3rd", "4th [MiB]", "grown since 2nd", ""], rows)


def _children(pid: int) -> list[psutil.Process]:
    try:
        children: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return children


def _name(process: psutil.Process) -> str:
    line = process.cmdline()
    if not line:
        return str(process.name())
    script = next((Path(part).name for part in line[1:] if part.endswith(".py")), "")
    return script or Path(line[0]).name


if __name__ == "__main__":
    main()
