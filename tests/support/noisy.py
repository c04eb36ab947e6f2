"""A solver that writes to standard output in every way there is, early and late."""

import atexit
import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
from light import Light
from numpy.typing import NDArray

WAYS = ("python", "descriptor", "library", "original", "child", "at exit", "thread")


def make_noise() -> None:
    """Write a line in every way; all that does not need a flush from Python."""
    print("noise: python", flush=True)
    os.write(1, b"noise: descriptor\n")
    ctypes.CDLL(None).printf(b"noise: library\n")  # in C's buffer until the process ends
    if sys.__stdout__ is not None:
        print("noise: original", file=sys.__stdout__, flush=True)
    subprocess.run(["echo", "noise: child"], check=True)


def keep_printing() -> None:
    while True:
        print("noise: thread", flush=True)
        time.sleep(0.001)


class Noisy(Light):
    """`Light` that makes noise where it is made, where it simulates, and as its process ends."""

    def __init__(
        self, grid_size: int = 16, stored_steps: int = 10, final_time: float = 0.1
    ) -> None:
        super().__init__(grid_size, stored_steps, final_time)
        make_noise()
        atexit.register(print, "noise: at exit", flush=True)
        threading.Thread(target=keep_printing, daemon=True).start()

    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        make_noise()
        yield from super().solve_batch(parameters, seeds, device)
