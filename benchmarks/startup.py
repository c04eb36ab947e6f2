"""What a run costs at its start and end, and the memory of its processes.

    python benchmarks/startup.py [--runs N] [--simulations N] [OVERRIDE ...]

Runs the quickstart with few simulations in a folder that is deleted afterwards. Prints when each
milestone came, in seconds since the command was given, of the quickest of N runs and of all; and
the memory at the moment when all processes together held most: PSS, which counts a page that
several share once, divided among them. OVERRIDEs are settings of the study.

The machine decides much: run it while nothing else does, and compare versions side by side.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Thread

import psutil
from table import print_table

QUICKSTART = Path(__file__).parent.parent / "configs" / "quickstart.yaml"
# What a run tells, and how the table calls it.
TOLD = {
    "checking": "first line",
    "starting Ray": "study checked",
    "starting": "Ray started",
    "scoring": "last optimiser step",
    "drawing": "scored, model written",
    "sending": "pictures drawn",
}
FIRST, LAST = "first simulation", "prompt back"
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description="The fixed costs of a run.")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--simulations", type=int, default=6)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE")
    given = parser.parse_args()
    settings = [f"design.simulations={given.simulations}", *given.overrides]
    if given.simulations < 20:
        settings += ["validation.simulations=2", "buffer.watermark=50", "buffer.capacity=300"]
    runs = [measured(settings) for _ in range(given.runs)]
    milestones = [milestone for milestone, _ in runs]
    best = min(milestones, key=lambda seconds: seconds[LAST])
    names = sorted(best, key=lambda name: best[name])
    print_table(
        ["seconds until", "quickest run", "each"],
        [
            [name, f"{best[name]:.1f}", " ".join(f"{one.get(name, 0):.1f}" for one in milestones)]
            for name in names
        ],
    )
    held = max((held for _, held in runs), key=lambda held: sum(held.values()))
    print_table(
        ["process at the peak", "PSS [MiB]"],
        [[name, f"{size / MIB:.0f}"] for name, size in sorted(held.items())]
        + [["all", f"{sum(held.values()) / MIB:.0f}"]],
    )


def measured(settings: list[str]) -> tuple[dict[str, float], dict[str, int]]:
    """Run once; return the seconds of the milestones, and the memory by process at the peak."""
    command = [str(Path(sys.executable).with_name("millstream")), "train", str(QUICKSTART)]
    with tempfile.TemporaryDirectory() as directory:
        began = time.time()
        run = subprocess.Popen(
            [*command, *settings],
            cwd=directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        held: dict[str, int] = {}
        watching = Thread(target=watch, args=(run, held))
        watching.start()
        milestones: dict[str, float] = {}
        assert run.stderr is not None
        for line in run.stderr:
            words = line.removeprefix("millstream: ")
            name = next((name for key, name in TOLD.items() if words.startswith(key)), None)
            if name:
                milestones.setdefault(name, time.time() - began)
        if run.wait():
            sys.exit(f"the run has failed with status {run.returncode}")
        milestones[LAST] = time.time() - began
        watching.join()
        milestones |= first_sample(Path(directory), began)
    return milestones, held


def first_sample(directory: Path, began: float) -> dict[str, float]:
    """Return when the first simulation, a held-out one, had arrived whole."""
    kept = [*directory.glob("runs/*/held_out/*.npz")]
    return {FIRST: min(path.stat().st_mtime for path in kept) - began} if kept else {}


def watch(run: "subprocess.Popen[str]", most: dict[str, int]) -> None:
    """Keep in `most` the memory by process at the time when all held most, until the run ends."""
    while run.poll() is None:
        held = {
            f"{name(process)} ({process.pid})": pss(process.pid) for process in processes(run.pid)
        }
        if sum(held.values()) > sum(most.values()):
            most.clear()
            most |= held
        time.sleep(0.2)


def processes(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def pss(pid: int) -> int:
    try:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return next((1024 * int(row.split()[1]) for row in rows if row.startswith("Pss:")), 0)


def name(process: psutil.Process) -> str:
    try:
        line = process.cmdline()
    except psutil.Error:
        return "ended"
    if "framework.tracking.sender" in line:
        return "sending to MLflow"
    if "train" in line:
        return "training"
    script = next((Path(part).name for part in line[1:] if part.endswith(".py")), "")
    return script or Path(line[0]).name if line else "ended"


if __name__ == "__main__":
    main()
