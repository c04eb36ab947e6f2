"""design.csv is whole or not there, and can be added to."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from framework.study.design import Simulation
from framework.study.design_file import DesignFile, DesignRow, read_design

FIRST, SECOND = Simulation(-1, np.array([0.5, 2.0]), 7), Simulation(0, np.array([0.25, 3.0]), 8)


def test_rows_are_written_and_added_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "design.csv"
    file = DesignFile(path, ("a", "b"), ("parent",))
    file.write([(FIRST, ("",))])
    file.add(SECOND, (3,))
    expected = [
        {"simulation": "-1", "seed": "7", "a": "0.5", "b": "2.0", "parent": ""},
        {"simulation": "0", "seed": "8", "a": "0.25", "b": "3.0", "parent": "3"},
    ]
    assert read_design(path) == expected  # though it is still open
    file.close()
    with path.open("a") as text:
        text.write("1,9,0.1")  # killed over it
    assert read_design(path) == expected


def test_a_file_that_cannot_be_finished_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "design.csv"
    file = DesignFile(path, ("a", "b"))
    file.write([(FIRST, ())])
    file.close()
    before = path.read_bytes()

    def rows() -> Iterator[DesignRow]:
        yield SECOND, ()
        raise LookupError("not decided yet")

    with pytest.raises(LookupError):
        file.write(rows())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
