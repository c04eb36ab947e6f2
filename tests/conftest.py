"""What tests of several rooms share."""

import os
import sys
from collections.abc import Iterator

import pytest
import torch
from commands import with_support
from hypothesis import HealthCheck, settings
from ray.cluster_utils import Cluster

# A local Ray leaves RAY_AUTH_MODE=token in the environment of the process that started it. Commands
# that are started from there would ask a token of the cluster below, which has none.
os.environ["RAY_AUTH_MODE"] = "disabled"

# Properties are tried on the same examples everywhere, and may take as long as they take: a busy
# machine fails no test.
settings.register_profile(
    "millstream", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("millstream")


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a Ray that stays between tests, which saves each command 8 s.

    Its processes can import what lies in tests/support.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", with_support()["PYTHONPATH"])
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 8, "include_dashboard": False}
        )
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def on_cluster(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands join the cluster, where they would start a Ray of their own."""
    monkeypatch.setenv("RAY_ADDRESS", cluster)


@pytest.fixture(scope="module")
def module_on_cluster(cluster: str) -> Iterator[None]:
    """The same for all tests of a module, and the fixtures that they share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", cluster)
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Of torch's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def threads_switch_often(one_thread: None) -> Iterator[None]:
    """Python's threads take turns 50 times as often, and so interleave in more ways."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(interval)
