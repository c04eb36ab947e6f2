"""Where the training ranks of a run find each other: torch.distributed between their processes.

The process that was started serves the meeting, at a port of its own; it outlives any rank.
"""

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

_stores: Any = dist  # torch gives these no types
LOOPBACK = "127.0.0.1"
# How long the ranks wait for each other in one sum. A rank that hangs is noticed long before, by
# its silence; one that has died at once, by its connections.
_PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True)
class Place:
    """Where to meet, and how many."""

    host: str
    port: int
    attempt: int  # ranks that have come back meet apart from those before
    ranks: int

    def meet(self, rank: int) -> None:
        """Wait for the other ranks, and be connected to all of them."""
        if self.host == LOOPBACK:
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        store = _stores.TCPStore(self.host, self.port, is_master=False)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(
            backend,
            store=_stores.PrefixStore(f"attempt-{self.attempt}", store),
            rank=rank,
            world_size=self.ranks,
            timeout=_PATIENCE,
        )


class Meeting:
    """Serves the meetings of a run's ranks, at an address of this machine, until it is dropped."""

    def __init__(self, host: str, ranks: int) -> None:
        self._ranks = ranks
        self._attempts = 0
        listening = socket.create_server((host, 0), backlog=ranks)
        port = listening.getsockname()[1]
        self._server = _stores.TCPStore(
            host,
            port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listening.detach(),
            use_libuv=True,
        )
        self._host, self._port = host, port

    def place(self) -> Place:
        """Return the place of the next attempt."""
        self._attempts += 1
        return Place(self._host, self._port, self._attempts, self._ranks)
