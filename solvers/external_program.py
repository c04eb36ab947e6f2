"""The process of a program: start it, watch it, and end it with all processes it started."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

# Seconds between the request to end and the kill, waited only while something still runs.
GRACE = 5.0
# How much of the end of a program's standard error is reported.
_TAIL_BYTES = 600

# Reads lines "GROUP DIRECTORY" (GROUP 0: none). When the pipe closes, the solver's process has
# ended: the last group is ended and its directory removed. It runs in the background, so that it is
# no child of the solver's process: Ray kills the children of a process that it kills, but not
# theirs.
_GUARD = f"""
exec 3<&0
(
    trap '' HUP INT TERM
    last=0
    while read -r line; do last=$line; done
    group=${{last%% *}}
    if [ "$group" != 0 ]; then
        kill -s TERM -- "-$group"
        tries=0
        while [ $tries -lt {GRACE:.0f} ] && kill -s 0 -- "-$group"; do
            sleep 1
            tries=$((tries + 1))
        done
        kill -s KILL -- "-$group"
        rm -rf -- "${{last#* }}"
    fi
) <&3 3<&- &
"""


class Guard:
    """Ends a program if the solver's process is killed, and cannot do it itself.

    A guard serves several programs, one after the other: an orphan for every simulation would leave
    a zombie for each where process 1 does not collect them, as in many containers.
    """

    def __init__(self) -> None:
        inner, self._pipe = os.pipe()
        try:
            subprocess.run(
                ["/bin/sh", "-c", _GUARD],
                stdin=inner,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
                check=True,
            )
        finally:
            os.close(inner)

    def __del__(self) -> None:
        os.close(self._pipe)

    def watch(self, group: int, directory: Path) -> None:
        """If this process is killed, end this process group and remove its directory."""
        os.write(self._pipe, f"{group} {directory}\n".encode())

    def release(self) -> None:
        """Watch nothing any more."""
        os.write(self._pipe, b"0\n")


class Program:
    """A command that runs in a process group of its own."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], directory: Path
    ) -> None:
        """Start the command in `directory`, without a shell. Raises OSError if that fails."""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=directory,
            env=environment,
            process_group=0,
        )
        self.group = self._process.pid
        assert self._process.stderr is not None
        self.errors = self._process.stderr.fileno()
        os.set_blocking(self.errors, False)
        self._tail = b""

    def status(self) -> int | None:
        """Return the command's exit status, or minus the signal that ended it; None before.

        The process is not collected yet, so that its group's number is not given to others.
        """
        if self._process.returncode is not None:
            return self._process.returncode
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        result = os.waitid(os.P_PID, self._process.pid, options)
        if result is None:
            return None
        exited = result.si_code == os.CLD_EXITED
        return result.si_status if exited else -result.si_status

    def read_errors(self) -> bool:
        """Read the program's standard error; return whether there was anything."""
        try:
            data = os.read(self.errors, 1 << 16)
        except BlockingIOError:
            return False
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        return bool(data)

    def last_words(self) -> str:
        """Return the end of the program's standard error, in one line; call after `end()`."""
        text = self._tail.decode(errors="replace")
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())

    def end(self) -> None:
        """End the command and all of its group, and read its last words."""
        assert self._process.stderr is not None
        if self._process.stderr.closed:
            return
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while self._runs() and time.monotonic() < deadline:
            self.read_errors()
            time.sleep(0.01)
        self._signal(signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # another user's process may ignore the signal
            self._process.wait(timeout=GRACE)
        for _ in range(16):  # a pipe holds no more; what left the group may write for ever
            if not self.read_errors():
                break
        self._process.stderr.close()

    def _signal(self, number: int) -> None:
        """Signal the group, and the command, which may have left it. It is not collected yet."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, number)
        with suppress(ProcessLookupError, PermissionError):
            os.kill(self._process.pid, number)

    def _runs(self) -> bool:
        """Return whether the command, or any process of its group, still runs."""
        return self.status() is None or _group_runs(self.group)


def _group_runs(group: int) -> bool:
    """Return whether a process of the group still runs; a zombie does not."""
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with suppress(OSError), open(f"/proc/{entry}/stat", "rb") as stat:
                state, _, its_group = stat.read().rpartition(b")")[2].split()[:3]
                if int(its_group) == group and state not in (b"Z", b"X"):
                    return True
    return False
