"""A solver that notes in a folder which simulations it runs, by their first parameter."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from light import Light
from numpy.typing import NDArray


class Noting(Light):
    """`Light` that writes a line to the file `ran` in a folder for each simulation."""

    def __init__(
        self, folder: str, grid_size: int = 16, stored_steps: int = 10, final_time: float = 0.1
    ) -> None:
        super().__init__(grid_size, stored_steps, final_time)
        self.folder = Path(folder)

    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        with (self.folder / "ran").open("a") as file:
            file.writelines(f"{values[0]!r}\n" for values in parameters)
        yield from super().solve_batch(parameters, seeds, device)


def noted_in(folder: Path) -> list[str]:
    """The settings of a study for `Noting`."""
    return ["solver.name=noting:Noting", f"solver.folder={folder}"]


def ran(folder: Path) -> list[str]:
    """The simulations that ran since the last call."""
    if not (folder / "ran").exists():
        return []
    lines = (folder / "ran").read_text().splitlines()
    (folder / "ran").unlink()
    return lines
