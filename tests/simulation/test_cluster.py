"""Ray for a command: how it starts and ends, and what a user is told when there is none."""

import os
import signal
import socket
import sys
import threading
from collections import Counter
from pathlib import Path

import psutil
import pytest
import ray
from waiting import LIMIT, until

from framework.errors import ClusterError
from framework.run.interrupt import Interrupts
from framework.simulation.cluster import ray_begun, ray_for
from framework.study.sections import EnsembleConfig


def test_a_local_ray_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "file" / "below"))
    message = r"no local Ray could be started: .* Not a directory: .*file/below"
    with pytest.raises(ClusterError, match=message), ray_for(EnsembleConfig(), 0):
        pass


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_at_which_nobody_answers_is_told_at_once(scheme: str) -> None:
    with socket.socket() as taken:  # bound, and does not listen
        taken.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        message = rf"no Ray cluster can be joined at {address} \(ensemble.address or RAY_ADDRESS\)"
        config = EnsembleConfig(address=address)
        with pytest.raises(ClusterError, match=f"{message}: .*refused"), ray_for(config, 0):
            pass


class MistakeError(Exception):
    """Something wrong that is found while Ray starts."""


def family() -> dict[int, psutil.Process]:
    return {child.pid: child for child in psutil.Process().children(recursive=True)}


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.usefixtures("no_cluster")
def test_a_mistake_found_while_ray_starts_is_raised_and_leaves_no_process(
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = family()

    def find_mistake() -> None:
        until(lambda: any(child.name() == "gcs_server" for child in family().values()))
        raise MistakeError

    with pytest.raises(MistakeError), ray_begun(EnsembleConfig(), 0):
        find_mistake()
    assert not {*family()} - {*before}
    assert not ray.is_initialized()
    assert capfd.readouterr().err == ""  # nobody was told of Ray


@pytest.mark.usefixtures("on_cluster")
def test_a_sigterm_leaves_the_process_as_long_as_it_needs_to_end() -> None:
    stopped = threading.Event()
    with Interrupts(stopped.set), ray_for(EnsembleConfig(), 0):
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopped.wait(LIMIT)
        assert signal.setitimer(signal.ITIMER_REAL, 0) == (0, 0)  # nothing is to abort it


@pytest.mark.usefixtures("no_cluster")
def test_a_local_ray_has_solvers_its_two_servers_and_no_more(
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = family()

    class Imported:  # inside a function: Ray's processes cannot import this file
        def modules(self) -> list[str]:
            return sorted(sys.modules)

    with ray_begun(EnsembleConfig(actors=2), 1, ["solvers.heat"]):
        with ray_for(EnsembleConfig(actors=2), 1):
            assert "millstream: starting Ray" in capfd.readouterr().err
            # An actor finds a process that has imported what it needs, and has to wait for none.
            actor = ray.remote(Imported).remote()
            modules = ray.get(actor.modules.remote())
            assert "solvers.heat" in modules
            assert "torch" not in modules  # 160 MB and 2 s of a processor
            mine = [child for pid, child in family().items() if pid not in before]
            names = Counter(child.name() for child in mine if child.name() != "cat")
            workers = {name: count for name, count in names.items() if name.startswith("ray::")}
            assert {*names} - {*workers} == {"gcs_server", "raylet"}
            assert sum(workers.values()) == 2
            (raylet,) = (child for child in mine if child.name() == "raylet")
            raylet.kill()
            # What stands in for its agents ends with it.
            until(lambda: not any(child.is_running() and child.name() == "cat" for child in mine))
        assert not ray.is_initialized()
    assert not {*family()} - {*before}
