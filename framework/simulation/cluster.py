"""Ray for the length of a command: the cluster that the study names, or a local one."""

import logging
import math
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import ray

from framework.errors import ClusterError, StudyError, tell
from framework.simulation.lean_ray import lean
from framework.study.sections import EnsembleConfig
from framework.threads import Background

_ANSWER = 10.0  # s that a cluster's head may take to answer


def check_gpus(config: EnsembleConfig) -> None:
    """Raise StudyError if the solvers need GPUs of this machine, and it has none.

    Ray would wait for one for ever. A cluster may still add machines with GPUs.
    """
    own = _RayThread.begun is not None or not ray.is_initialized()
    here = is_local(config) and own
    if not here or not config.gpus_per_actor:
        return
    import torch  # takes seconds, and few studies need it here

    if not torch.cuda.is_available():
        raise StudyError(
            f"ensemble.gpus_per_actor is {config.gpus_per_actor:g}, but there is no GPU here: set "
            "it to 0, or join a cluster that has GPUs (ensemble.address)"
        )


@contextmanager
def ray_for(config: EnsembleConfig, other_cpus: float) -> Iterator[None]:
    """Join the Ray cluster that the study or RAY_ADDRESS names, or start a local Ray.

    A local Ray gets the CPUs of the solvers and `other_cpus`. One that `ray_begun` has begun to
    start is waited for. A Ray that this process had started before is used and left as it is.
    Raises ClusterError.
    """
    thread, _RayThread.begun = _RayThread.begun, None
    if thread is None:
        if ray.is_initialized():
            _take_sigterm_back()
            yield
            return
        thread = _RayThread(config, other_cpus)
        thread.start()
    address = _address(config)
    tell("starting Ray" if address == "local" else f"joining the Ray cluster at {address}")
    try:
        thread.wait()
        _take_sigterm_back()
        yield
    finally:
        thread.stop()


def _take_sigterm_back() -> None:
    """Let SIGTERM come to its handler in Python alone.

    Ray's own comes first, and has the process aborted 3 s later, however far it is by then.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def ray_begun(
    config: EnsembleConfig, other_cpus: float, modules: Sequence[str] = ()
) -> Iterator[None]:
    """Begin to start a local Ray in the background, for a `ray_for` in the block.

    Its processes import `modules`, which have to be Millstream's own: one that cannot be imported
    would keep the processes from starting. Does nothing where a cluster is named, which may be
    joined only when nothing else is wrong. When the block is left, Ray has ended, or never began.
    """
    if not is_local(config) or ray.is_initialized():
        yield
        return
    _RayThread.begun = thread = _RayThread(config, other_cpus, modules)
    thread.start()
    try:
        yield
    finally:
        _RayThread.begun = None
        thread.stop()


class _RayThread:
    """Starts Ray in a thread of its own, which then stays: Ray's processes end with it.

    So do those of a process that is killed. Ray replaces Python's handler of SIGTERM only in the
    main thread. And its processes would end with the terminal (SIGHUP), while this one still needs
    them to end tidily: they inherit from the thread that SIGHUP is blocked.
    """

    begun: ClassVar["_RayThread | None"] = None  # by `ray_begun`, until `ray_for` takes it over

    def __init__(
        self, config: EnsembleConfig, other_cpus: float, modules: Sequence[str] = ()
    ) -> None:
        self._config = config
        self._other_cpus = other_cpus
        self._modules = modules
        self._started = threading.Event()
        self._over = threading.Event()
        self._thread = Background("ray", self._run, self._started.set)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End Ray and the thread, and wait for that."""
        self._over.set()
        self._thread.wait()

    def wait(self) -> None:
        """Wait until Ray has started. Raises ClusterError."""
        self._started.wait()
        if self._thread.error is not None:
            raise self._thread.error

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        _start(self._config, self._other_cpus, self._modules)
        self._started.set()
        self._over.wait()
        ray.shutdown()


def _start(config: EnsembleConfig, other_cpus: float, modules: Sequence[str]) -> None:
    """Start or join Ray. Raises ClusterError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray frees objects by the hundred: our large messages would wander through gigabytes of shared
    # memory, and every page of it is cleared when it is first written.
    os.environ.setdefault("RAY_free_objects_batch_size", "1")
    address = _address(config)
    # Standard output belongs to the caller, so the workers' output stays in Ray's logs.
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        # A local Ray counts CPUs as the study does: a laptop may run more actors than it has cores.
        cpus = math.ceil(config.actors * config.cpus_per_actor + other_cpus)
        options |= {"num_cpus": cpus, "include_dashboard": False}
    try:
        _check_answers(address)
        with lean(config.actors, ["framework.simulation.solver_actor", *modules]):
            ray.init(address, **options)
    except Exception as error:  # Ray raises many kinds, Exception itself among them
        what = (
            "no local Ray could be started"
            if address == "local"
            else f"no Ray cluster can be joined at {address} (ensemble.address or RAY_ADDRESS)"
        )
        raise ClusterError(f"{what}: {' '.join(str(error).split())}") from None


def is_local(config: EnsembleConfig) -> bool:
    """Return whether a study runs on a Ray of its own, on this machine."""
    return _address(config) == "local"


def _check_answers(address: str) -> None:
    """Raise OSError if an address names a host and a port at which nobody answers.

    Ray itself would try for minutes.
    """
    place = re.fullmatch(r"(?:ray://)?(?P<host>.+):(?P<port>\d+)", address)
    if place is not None:
        host = place["host"].strip("[]")
        socket.create_connection((host, int(place["port"])), timeout=_ANSWER).close()


def _address(config: EnsembleConfig) -> str:
    return config.address or os.environ.get("RAY_ADDRESS") or "local"
