"""The process of a program: start it, watch it, and end it with all processes it started."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from solvers.external_output import Output

# Seconds between the request to end and the kill, waited only while something still runs.
GRACE = 5.0

# Seconds in which a program that stays may end by itself when it is told that there is no more.
PATIENCE = 1

# Reads lines "GROUP SECONDS DIRECTORY" (GROUP 0: none). When the pipe closes, the solver's process
# has ended: after so many seconds the last group is ended, and its directory removed. It runs in
# the background, so that it is no child of the solver's process: Ray kills the children of a
# process that it kills, but not theirs.
_GUARD = f"""
exec 3<&0
(
    trap '' HUP INT TERM
    last=0
    while read -r line; do last=$line; done
    group=${{last%% *}}
    if [ "$group" != 0 ]; then
        last=${{last#* }}
        sleep "${{last%% *}}"
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

    def watch(self, group: int, directory: Path, seconds: int) -> None:
        """If this process is killed, end this process group then, and remove its directory.

        It is given so many `seconds` to end by itself before.
        """
        os.write(self._pipe, f"{group} {seconds} {directory}\n".encode())

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
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=directory,
            env=environment,
            process_group=0,
        )
        self.group = self._process.pid
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._pipes = self._process.stdout, self._process.stderr
        self.output = Output(*(pipe.fileno() for pipe in self._pipes))
        # Can be read once the command has ended; None where the kernel has no such thing.
        self.exit: int | None = None
        with suppress(OSError):
            self.exit = os.pidfd_open(self._process.pid)

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

    def wait(self, seconds: float) -> None:
        """Return once the command has ended by itself, or after so many seconds."""
        deadline = time.monotonic() + seconds
        while self.status() is None and time.monotonic() < deadline:
            time.sleep(0.01)

    def end(self) -> None:
        """End the command and all of its group, and read what it has printed last."""
        if self._pipes[0].closed:
            return
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        self.wait(GRACE)
        if self.status() is None:
            self._signal(signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # another user's process may ignore the signal
            self._process.wait(timeout=GRACE)
        while (left := _group_runs(self.group)) and time.monotonic() < deadline:
            time.sleep(0.01)
        if left:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.group, signal.SIGKILL)
        self.output.finish()
        for pipe in self._pipes:
            pipe.close()
        if self.exit is not None:
            os.close(self.exit)

    def _signal(self, number: int) -> None:
        """Signal the group, and the command, which may have left it. It is not collected yet."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, number)
        with suppress(ProcessLookupError, PermissionError):
            os.kill(self._process.pid, number)


def _group_runs(group: int) -> bool:
    """Return whether a process of the group still runs; a zombie does not.

    While there is one, the number of the group is not given to others, and the group can be
    signalled though the command that it is named after was collected.
    """
    try:
        os.killpg(group, 0)
    except ProcessLookupError:  # as after most programs: all of the others need not be looked at
        return False
    except PermissionError:
        pass
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with suppress(OSError), open(f"/proc/{entry}/stat", "rb") as stat:
                state, _, its_group = stat.read().rpartition(b")")[2].split()[:3]
                if int(its_group) == group and state not in (b"Z", b"X"):
                    return True
    return False
