"""What the project's transport is measured against: other ways to bring frames to a process.

Run as a script, this file is the process that sends: it has one frame, as if a solver had just
computed it, and sends it over and over. The one that receives copies every frame into its place
in `held`, an array like the project's buffer. Nothing says which frame is which and none is
checked: this is what the bytes alone cost.

Shapes: a frame is [size] float32, `held` is [places, size]; frames go to its places in turn.
"""

import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import zmq
from numpy.typing import NDArray

Frames = NDArray[np.float32]

# Bytes that may be under way: as many as the project lets wait to be drawn.
UNDER_WAY = 8 * 2**20
# Bytes of a message of several frames, and of a slot of the ring: the fastest of 64 KiB to 4 MiB.
MESSAGE = 2**20
SLOT = 2**18
# A frame of at least so many bytes goes faster without pyzmq's own copies, a smaller one with.
LARGE = 2**17


def make_frame(size: int) -> Frames:
    """What every contender sends: the same finite numbers in every process."""
    return np.random.default_rng(0).standard_normal(size, dtype=np.float32)


def copy(held: Frames, count: int) -> float:
    """No transport, one process: seconds to copy a frame into `held`, `count` times."""
    frame = make_frame(held.shape[1])
    started = time.perf_counter()
    for number in range(count):
        held[number % len(held)] = frame
    return time.perf_counter() - started


def push_one(held: Frames, count: int) -> float:
    """pyzmq PUSH and PULL over TCP, a frame a message: seconds until `held` has `count` frames."""
    copied = held[0].nbytes < LARGE
    with _pull(held[0].nbytes) as (pull, address), _sender("send_one", address, held, count):
        started = time.perf_counter()
        for number in range(count):
            place = held[number % len(held)]
            if copied:
                pull.recv_into(place)
            else:
                place[:] = np.frombuffer(pull.recv(copy=False).buffer, dtype=np.float32)
        return time.perf_counter() - started


def push_several(held: Frames, count: int) -> float:
    """The same, with as many frames a message as make MESSAGE bytes."""
    size, several = held.shape[1], _several(held.shape[1], MESSAGE)
    with (
        _pull(several * held[0].nbytes) as (pull, address),
        _sender("send_several", address, held, count),
    ):
        started = time.perf_counter()
        for first in range(0, count, several):
            message = np.frombuffer(pull.recv(copy=False).buffer, dtype=np.float32)
            place = first % len(held)
            held[place : place + several] = message.reshape(-1, size)
        return time.perf_counter() - started


def ring(held: Frames, count: int) -> float:
    """A ring of slots in memory that both processes share: seconds until `held` has `count`."""
    size, several = held.shape[1], _several(held.shape[1], SLOT)
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.truncate(_Ring.bytes(size))
        with _sender("send_ring", file.name, held, count):
            shared = _Ring(file.name, size)
            started = time.perf_counter()
            for first in range(0, count, several):
                place = first % len(held)
                held[place : place + several] = shared.filled()
                shared.free()
            return time.perf_counter() - started


@contextmanager
def _pull(message: int) -> Iterator[tuple["zmq.Socket[bytes]", str]]:
    with zmq.Context.instance().socket(zmq.PULL) as pull:
        pull.set_hwm(max(UNDER_WAY // message, 2))
        yield pull, f"tcp://127.0.0.1:{pull.bind_to_random_port('tcp://127.0.0.1')}"


@contextmanager
def _sender(name: str, address: str, held: Frames, count: int) -> Iterator[None]:
    """A process that sends `count` frames as the function of that name does, and now begins."""
    command = [sys.executable, __file__, name, address, str(held.shape[1]), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sender:
        assert sender.stdin
        assert sender.stdout
        sender.stdout.readline()
        sender.stdin.write(b"begin\n")
        sender.stdin.flush()
        yield


# In the process that sends.


def send_one(address: str, size: int, count: int) -> None:
    frame, copied = make_frame(size), 4 * size < LARGE
    with _push(address, 4 * size) as push:
        for _ in range(count):
            push.send(frame, copy=copied)


def send_several(address: str, size: int, count: int) -> None:
    frame, several = make_frame(size), _several(size, MESSAGE)
    with _push(address, 4 * size * several) as push:
        for _ in range(count // several):
            # New for every message: the one before may still be on its way.
            message = np.empty((several, size), dtype=np.float32)
            for place in message:
                place[:] = frame
            push.send(message, copy=False)


def send_ring(path: str, size: int, count: int) -> None:
    frame, shared = make_frame(size), _Ring(path, size)
    _wait_for_word()
    for _ in range(count // len(shared.slots[0])):
        for place in shared.empty():
            place[:] = frame
        shared.fill()


@contextmanager
def _push(address: str, message: int) -> Iterator["zmq.Socket[bytes]"]:
    context = zmq.Context()
    with context.socket(zmq.PUSH) as push:
        push.set_hwm(max(UNDER_WAY // message, 2))
        push.connect(address)
        _wait_for_word()
        yield push
    context.term()  # returns once all is sent


def _wait_for_word() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


class _Ring:
    """Slots of several frames in a file in memory, and how many were ever filled and freed.

    One process fills and the other frees; whoever has to wait gives up the core, again and again.
    """

    def __init__(self, path: str, size: int) -> None:
        slot = (_several(size, SLOT), size)
        slots = max(UNDER_WAY // (4 * slot[0] * size), 2)
        # The counters are a page apart from the slots, and a cache line from each other.
        with open(path, "r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
        self._counts = np.frombuffer(memory, dtype=np.int64, count=16)[::8]
        fields = np.frombuffer(memory, np.float32, slots * slot[0] * size, offset=4096)
        self.slots = fields.reshape(slots, *slot)

    @staticmethod
    def bytes(size: int) -> int:
        """How large the file has to be."""
        return 4096 + max(UNDER_WAY, 2 * 4 * size)

    def empty(self) -> Frames:
        """Wait for a slot to fill."""
        while self._counts[0] - self._counts[1] == len(self.slots):
            os.sched_yield()
        return self.slots[self._counts[0] % len(self.slots)]

    def fill(self) -> None:
        self._counts[0] += 1

    def filled(self) -> Frames:
        """Wait for a slot to read."""
        while self._counts[0] == self._counts[1]:
            os.sched_yield()
        return self.slots[self._counts[1] % len(self.slots)]

    def free(self) -> None:
        self._counts[1] += 1


def _several(size: int, limit: int) -> int:
    """How many frames make about `limit` bytes."""
    return max(limit // (4 * size), 1)


if __name__ == "__main__":
    name, where, frame_size, frames = sys.argv[1:]
    {"send_one": send_one, "send_several": send_several, "send_ring": send_ring}[name](
        where, int(frame_size), int(frames)
    )
