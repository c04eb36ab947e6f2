"""What a run uses of the machine that it is on."""

import sys
from contextlib import suppress

import psutil

from framework.tracking.history import Record

_processes: dict[int, psutil.Process] = {}


def system_figures() -> Record:
    """What this process and its descendants use: CPU since the call before, in percent of one
    core, and memory in GiB, without what they share with others."""
    this = psutil.Process()
    there = {process.pid: process for process in (this, *this.children(recursive=True))}
    for pid in [pid for pid, process in _processes.items() if there.get(pid) != process]:
        del _processes[pid]
    cpu = memory = 0.0
    for pid, process in there.items():
        with suppress(psutil.Error):  # it has just ended
            known = _processes.setdefault(pid, process)
            cpu += known.cpu_percent()
            used = known.memory_info()
            memory += used.rss - getattr(used, "shared", 0)
    figures = {"system/cpu_percent": cpu, "system/memory_gib": memory / 2**30}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        figures["system/gpu_memory_gib"] = torch.cuda.memory_reserved() / 2**30
    return figures
