"""What a run uses of its machine: processors and memory."""

import sys
from contextlib import suppress

import psutil

from framework.tracking.history import Record

_processes: dict[int, psutil.Process] = {}


def system_figures() -> Record:
    """Return the CPU and memory use of this process and its descendants.

    CPU is counted since the previous call, in percent of one core; memory is in GiB, without what
    is shared with other processes. With a GPU, also the memory that torch has reserved there.
    """
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
