"""Processes that start at once: forked from one that has imported what is slow to import."""

import multiprocessing
import os
from pathlib import Path

import pytest

FORKS = multiprocessing.get_context("forkserver")
_SLOW = ["pytest", "xarray", "framework.store.owner", "framework.store.reader", "index_writing"]


def start_forks(test_file: str) -> None:
    """Have the process ready; those forked from it can import the test file, too."""
    support = Path(__file__).parent
    with pytest.MonkeyPatch.context() as patch:
        paths = {str(path.parent) for path in support.parent.rglob("test_*.py")}
        paths |= {str(Path(test_file).parent), str(support), str(support.parents[1])}
        patch.setenv("PYTHONPATH", os.pathsep.join(sorted(paths)))
        FORKS.set_forkserver_preload(_SLOW)
        FORKS.Process(target=os.getpid).start()
