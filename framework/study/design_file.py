"""design.csv: the parameters and the seed of every simulation of a run.

A row has the simulation's id, its seed, its parameters by name, and the values of further columns.
"""

import csv
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from framework.files import replacing, writing
from framework.study.design import Simulation

# A simulation, and its values in the further columns.
DesignRow = tuple[Simulation, Sequence[object]]


class DesignFile:
    """Writes the file: the known simulations first, more as they are decided."""

    def __init__(self, path: Path, names: Sequence[str], further: Sequence[str] = ()) -> None:
        """`names` of the parameters; `further` columns after them."""
        self._path = path
        self._header = ["simulation", "seed", *names, *further]
        self._file: IO[str] | None = None

    def write(self, rows: Iterable[DesignRow]) -> None:
        """Write the file anew, whole or not at all; `add` continues it. Raises WriteError."""
        self.close()
        try:
            with replacing(self._path, flush=True) as temporary:
                self._file = temporary.open("w", newline="")
                csv.writer(self._file).writerow(self._header)
                csv.writer(self._file).writerows(_cells(*row) for row in rows)
                self._file.flush()
        except BaseException:
            with suppress(OSError):
                self.close()
            raise

    def add(self, simulation: Simulation, further: Sequence[object]) -> None:
        """Add a row and flush it, so that it survives the process. Raises WriteError."""
        assert self._file is not None
        with writing(self._path):
            csv.writer(self._file).writerow(_cells(simulation, further))
            self._file.flush()

    def close(self) -> None:
        """Close the file; no row can be added any more."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_design(path: Path) -> list[dict[str, str]]:
    """Read the whole rows; one that was cut short belongs to no simulation that started."""
    lines = [line for line in path.read_text().splitlines(True) if line.endswith("\n")]
    return list(csv.DictReader(lines))


def _cells(simulation: Simulation, further: Sequence[object]) -> list[object]:
    return [simulation.id, simulation.seed, *simulation.parameters.tolist(), *further]
