"""The clock of a run, which stands still between an interruption and the resumption."""

import time


class Clock:
    """Counts the seconds of a run; may be read from any thread."""

    def __init__(self) -> None:
        self.before = 0.0  # seconds up to the checkpoint that the run was resumed from
        self._started = time.monotonic()
        self._trained: float | None = None
        self._ended: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds of the run until now, or until its end."""
        if self._ended is not None:
            return self._ended
        return self.before + time.monotonic() - self._started

    @property
    def seconds_to_end(self) -> float:
        """Seconds of the run until training ended, or until now while it goes on."""
        return self.seconds if self._trained is None else self._trained

    def end_training(self) -> None:
        """Note the end of the training loop; scoring and writing follow."""
        self._trained = self.seconds

    def end(self) -> None:
        """Stop: the run has ended."""
        self._ended = self.seconds

    def state(self) -> dict[str, float]:
        """Return the seconds, for `load_state`."""
        return {"seconds": self.seconds}

    def load_state(self, state: dict[str, float]) -> None:
        """Go on counting from what `state` returned."""
        self.before = state["seconds"]
