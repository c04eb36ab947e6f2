"""What a user is told when there is no Ray to run solvers in."""

import socket
from pathlib import Path

import pytest

from framework.errors import ClusterError
from framework.simulation.cluster import ray_for
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
