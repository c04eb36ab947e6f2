"""The clock of a check: how much time it has left."""

import time


class TooSlow(Exception):  # noqa: N818 - a finding, not a mistake of ours
    """One simulation, or one optimiser step, takes longer than a whole check may."""


class Clock:
    """Runs from the moment it is made until the limit."""

    def __init__(self, limit: float) -> None:
        """`limit` in seconds."""
        self.limit = limit
        self._started = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since the check has started."""
        return time.monotonic() - self._started

    @property
    def left(self) -> float:
        """Seconds until the limit; negative beyond it."""
        return self.limit - self.spent
