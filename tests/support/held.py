"""A solver that a test holds in the middle of a simulation, so that a run is not over too soon."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from light import Light
from numpy.typing import NDArray


class Held(Light):
    """`Light` that waits for the file `go` in a folder once its process has run some groups.

    Whoever waits writes a file PROCESS.held there.
    """

    def __init__(
        self,
        folder: str,
        free_groups: int = 8,
        grid_size: int = 16,
        stored_steps: int = 10,
        final_time: float = 0.1,
    ) -> None:
        super().__init__(grid_size, stored_steps, final_time)
        self.folder = Path(folder)
        self.free_groups = free_groups

    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        self.free_groups -= 1
        for step, fields in enumerate(super().solve_batch(parameters, seeds, device)):
            if step == self.stored_steps // 2 and self.free_groups < 0:
                (self.folder / f"{os.getpid()}.held").touch()
                while not (self.folder / "go").exists():
                    time.sleep(0.01)
            yield fields


def held_in(folder: Path) -> list[str]:
    """The settings of a study for `Held`."""
    return ["solver.name=held:Held", f"solver.folder={folder}"]


def holders(folder: Path) -> list[int]:
    """The processes that have waited."""
    return [int(path.stem) for path in folder.glob("*.held")]


def let_go(folder: Path) -> None:
    """Let all simulations go on, and hold none from now on."""
    (folder / "go").touch()
