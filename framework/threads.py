"""Work in the background: one kind of thread for all of Millstream."""

import threading
from collections.abc import Callable


class Background:
    """Runs a function once in a daemon thread, and keeps the error that it raises in `error`."""

    def __init__(
        self, name: str, work: Callable[[], None], failed: Callable[[], None] = lambda: None
    ) -> None:
        """`failed` is called in the thread when `work` has raised, to wake whoever waits for it."""
        self.error: BaseException | None = None
        self._work = work
        self._failed = failed
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the thread, at most so many seconds; return whether it has ended.

        A thread that was never started counts as ended.
        """
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def join(self) -> None:
        """Wait for the thread, and raise the error of its work, if any."""
        self.wait()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self._work()
        # Kept for the code that waits for the thread.
        except BaseException as error:
            self.error = error
            self._failed()
