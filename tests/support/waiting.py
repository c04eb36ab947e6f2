"""Waiting for what another thread or process does.

How long something takes depends on the machine, and says nothing: a test waits for a condition,
with a limit that is reached only where the condition will never hold.
"""

import subprocess
import time
from collections.abc import Callable
from typing import Any

LIMIT = 600.0  # seconds that nothing in the tests takes, however busy the machine


def until(
    condition: Callable[[], bool],
    process: "subprocess.Popen[Any] | None" = None,
    limit: float = LIMIT,
    pause: float = 0.01,
) -> None:
    """Return as soon as the condition holds; fail after `limit` seconds.

    Fails at once where `process`, which is to bring it about, has ended.
    """
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"still waiting after {limit:g} s"
        assert process is None or process.poll() is None, "the process has ended"
        time.sleep(pause)
