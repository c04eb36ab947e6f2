"""Ray for the length of a command: the cluster that the study names, or a local one."""

import logging
import math
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from framework.errors import ClusterError, StudyError, tell
from framework.study.sections import EnsembleConfig

_ANSWER = 10.0  # s that a cluster's head may take to answer


def check_gpus(config: EnsembleConfig) -> None:
    """Raise StudyError if the solvers need GPUs of this machine, and it has none.

    Ray would wait for one for ever. A cluster may still add machines with GPUs.
    """
    here = _address(config) == "local" and not ray.is_initialized()
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

    A local Ray gets the CPUs of the solvers and `other_cpus`. A Ray that this process had started
    before is used and left as it is. Raises ClusterError.
    """
    if ray.is_initialized():
        yield
        return
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
    tell("starting Ray" if address == "local" else f"joining the Ray cluster at {address}")
    try:
        _check_answers(address)
        with _signals_kept():
            ray.init(address, **options)
    except Exception as error:  # Ray raises many kinds, Exception itself among them
        what = (
            "no local Ray could be started"
            if address == "local"
            else f"no Ray cluster can be joined at {address} (ensemble.address or RAY_ADDRESS)"
        )
        raise ClusterError(f"{what}: {' '.join(str(error).split())}") from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Start Ray in the block, and keep the signals of this process its own.

    Ray replaces the command's handler of SIGTERM by its own, which raises SystemExit. And Ray's
    processes would end with the terminal (SIGHUP), while this one still needs them to end tidily:
    they inherit that SIGHUP is blocked. One that comes meanwhile waits for the end of the block.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    except SystemExit:
        if callable(handler):
            handler(signal.SIGTERM, None)  # may stop the command's work, or raise
        raise KeyboardInterrupt from None
    finally:
        if handler is not None:  # None: not installed from Python, which cannot put it back
            signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


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
