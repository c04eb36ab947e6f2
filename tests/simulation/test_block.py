"""Blocks are cut into the same samples wherever the boundaries between blocks lie."""

from itertools import pairwise

import numpy as np
import pytest
from blocks import make_block
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from framework.simulation.solver_actor import checksum
from framework.stream.samples import Samples
from framework.stream.windows import WindowCutter


def values(samples: Samples) -> NDArray[np.float32]:
    return samples.fields[:, :, 0, 0]


@given(
    steps=st.integers(1, 12),
    window=st.integers(1, 4),
    cuts=st.sets(st.integers(1, 11)),
    other=st.booleans(),
)
def test_samples_do_not_depend_on_block_boundaries(
    steps: int, window: int, cuts: set[int], other: bool
) -> None:
    cutter = WindowCutter(window)
    edges = [0, *sorted(cut for cut in cuts if cut < steps), steps]
    found: list[tuple[int, list[float], list[float]]] = []
    for first, stop in pairwise(edges):
        if other:  # another simulation between the blocks does not mix in
            cutter.cut(make_block(9, first, stop), last=stop == steps)
        samples = cutter.cut(make_block(3, first, stop), last=stop == steps)
        assert set(samples.simulation.tolist()) <= {3}
        assert samples.parameters.shape == (len(samples), 2)
        for n in range(len(samples)):
            found.append(
                (
                    int(samples.first_step[n]),
                    values(samples)[n].tolist(),
                    samples.times[n].tolist(),
                )
            )
    expected = [
        (
            first,
            [300.0 + step for step in range(first, first + window)],
            [0.5 * step for step in range(first, first + window)],
        )
        for first in range(steps - window + 1)
    ]
    assert found == expected


def test_a_forgotten_simulation_leaves_nothing_behind() -> None:
    cutter = WindowCutter(2)
    cutter.cut(make_block(0, 0, 3), last=False)
    cutter.forget(0)
    samples = cutter.cut(make_block(0, 0, 2, salt=0.5), last=False)
    assert values(samples).tolist() == [[0.5, 1.5]]


@pytest.mark.parametrize("step", [0, 1, 4])
def test_the_rest_of_a_block_keeps_its_steps(step: int) -> None:
    rest = make_block(1, 0, 5).from_step(step)
    expected = make_block(1, step, 5)
    assert rest.first_step == step
    assert len(rest) == 5 - step
    np.testing.assert_array_equal(rest.fields, expected.fields)
    np.testing.assert_array_equal(rest.checksums, expected.checksums)
    np.testing.assert_array_equal(rest.times, expected.times)


def test_checksums_tell_fields_apart() -> None:
    field = np.linspace(0, 1, 12, dtype=np.float32).reshape(1, 3, 4)
    other = field.copy()
    other[0, 2, 1] = np.nextafter(other[0, 2, 1], np.float32(2))
    assert checksum(field) == checksum(field.copy(order="F"))
    assert checksum(field) != checksum(other)
