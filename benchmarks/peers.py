"""What the project's transport is measured against: other ways to bring frames to a process.

A way is an endless stream of the same frame, as if a solver had just computed it, from a process
that waits while nobody takes. Whoever takes has each frame copied into its place in an array like
the project's buffer. Nothing says which frame is which and none is checked: this is what the bytes
alone cost. Run as a script, this file is the process that sends.

Shapes: a frame is [size] float32, `held` is [places, size]; frames go to its places in turn.
"""

import mmap
import os
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod

import numpy as np
import zmq
from numpy.typing import NDArray

Frames = NDArray[np.float32]

# Bytes that may wait to be taken: as many as the project allows.
UNDER_WAY = 32 * 2**20
# Bytes of a message of several frames, and of a slot of the ring: the fastest of 64 KiB to 4 MiB.
MESSAGE_BYTES = 2**20
SLOT_BYTES = 2**18
# A frame of at least so many bytes goes faster without pyzmq's own copies, a smaller one with.
LARGE = 2**17


def make_frame(size: int) -> Frames:
    """What every contender sends: the same finite numbers in every process."""
    return np.random.default_rng(0).standard_normal(size, dtype=np.float32)


class Way(ABC):
    """A way to bring frames to this process."""

    def __init__(self, held: Frames) -> None:
        self.held = held
        self.size = held.shape[1]
        self.place = 0  # of the next frame

    @abstractmethod
    def take(self, count: int) -> None:
        """Return once `count` more frames are held, or a few more than that."""

    @abstractmethod
    def close(self) -> None:
        """End the process that sends, if there is one."""

    def keep(self, frames: Frames) -> None:
        """Copy frames [n, size] to the next places; their number divides that of the places."""
        self.held[self.place : self.place + len(frames)] = frames
        self.place = (self.place + len(frames)) % len(self.held)


class Copy(Way):
    """memcpy: no transport and no other process, only the copy into place."""

    def take(self, count: int) -> None:
        frame = make_frame(self.size)[None]
        for _ in range(count):
            self.keep(frame)

    def close(self) -> None:
        """There is no process to end."""


class PushPull(Way):
    """pyzmq PUSH and PULL over TCP loopback, one frame a message."""

    message_bytes = 0

    def __init__(self, held: Frames) -> None:
        super().__init__(held)
        self._several = _several(self.size, self.message_bytes)
        self._pull: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PULL)
        self._pull.set_hwm(_high_water(self.size, self._several))
        port: int = self._pull.bind_to_random_port("tcp://127.0.0.1")
        self._sender = _start("push", port, self.size, self._several)

    def take(self, count: int) -> None:
        for _ in range(0, count, self._several):
            if 4 * self.size * self._several < LARGE:
                self._pull.recv_into(self.held[self.place])
                self.place = (self.place + 1) % len(self.held)
            else:
                message = self._pull.recv(copy=False)
                frames = np.frombuffer(message.buffer, dtype=np.float32)
                self.keep(frames.reshape(-1, self.size))

    def close(self) -> None:
        _end(self._sender)
        self._pull.close(linger=0)


class PushPullSeveral(PushPull):
    """The same, with as many frames a message as make MESSAGE_BYTES."""

    message_bytes = MESSAGE_BYTES


class Ring(Way):
    """A ring of slots in memory that two processes share."""

    def __init__(self, held: Frames) -> None:
        super().__init__(held)
        self._file = tempfile.NamedTemporaryFile(dir="/dev/shm")  # noqa: SIM115 - see close
        self._file.truncate(_Slots.file_bytes(self.size))
        self._slots = _Slots(self._file.name, self.size)
        self._sender = _start("ring", self._file.name, self.size)

    def take(self, count: int) -> None:
        for _ in range(0, count, self._slots.several):
            self.keep(self._slots.filled())
            self._slots.free()

    def close(self) -> None:
        _end(self._sender)
        self._file.close()


class _Slots:
    """Slots [several, size] in a file in memory, and how many were ever filled and freed."""

    def __init__(self, path: str, size: int) -> None:
        self.several = _several(size, SLOT_BYTES)
        with open(path, "r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
        # Each counter has a cache line of its own.
        self._filled, self._freed = np.frombuffer(memory, np.int64, 16).reshape(2, 8)[:, :1]
        fields = np.frombuffer(memory, np.float32, offset=4096)
        self._slots = fields.reshape(-1, self.several, size)

    @staticmethod
    def file_bytes(size: int) -> int:
        """How long the file has to be."""
        slot = 4 * size * _several(size, SLOT_BYTES)
        return 4096 + slot * max(UNDER_WAY // slot, 2)

    def empty(self) -> Frames:
        """The next slot to fill, once there is one."""
        self._wait(len(self._slots))
        slot: Frames = self._slots[self._filled[0] % len(self._slots)]
        return slot

    def filled(self) -> Frames:
        """The next slot to take, once there is one."""
        self._wait(0)
        slot: Frames = self._slots[self._freed[0] % len(self._slots)]
        return slot

    def fill(self) -> None:
        self._filled += 1

    def free(self) -> None:
        self._freed += 1

    def _wait(self, full: int) -> None:
        """While so many slots are full: let others run, and if it takes long, sleep."""
        tries = 0
        while self._filled[0] - self._freed[0] == full:
            tries += 1
            if tries < 1000:
                os.sched_yield()
            else:
                time.sleep(1e-3)


def _several(size: int, limit: int) -> int:
    """How many frames make about `limit` bytes."""
    return max(limit // (4 * size), 1)


def _high_water(size: int, several: int) -> int:
    """How many messages each side may hold."""
    return max(UNDER_WAY // (4 * size * several), 2)


def _start(*arguments: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, __file__, *map(str, arguments)])


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


# What the process that sends does.


def push(port: str, size: int, several: int) -> None:
    frame, copied = make_frame(size), 4 * size < LARGE
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH)
    socket.set_hwm(_high_water(size, several))
    socket.connect(f"tcp://127.0.0.1:{port}")
    while several == 1:
        socket.send(frame.data, 0, copied)
    while True:
        # New for every message: the one before may still be on its way.
        message = np.empty((several, size), dtype=np.float32)
        for place in message:
            place[:] = frame
        socket.send(message.data, copy=False)


def fill(path: str, size: int) -> None:
    frame, slots = make_frame(size), _Slots(path, size)
    while True:
        for place in slots.empty():
            place[:] = frame
        slots.fill()


if __name__ == "__main__":
    way, address, *numbers = sys.argv[1:]
    if way == "push":
        push(address, *map(int, numbers))
    else:
        fill(address, *map(int, numbers))
