"""Samples made from a number, from which their simulation, step and values follow.

Number k is first step k // SIMULATIONS of simulation k % SIMULATIONS.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from framework.stream.samples import Batch, Samples, SampleShape

SIMULATIONS = 3
SHAPE = SampleShape(parameters=3, window=2, fields=(1, 2, 2))


class Altered(Exception):  # noqa: N818 - a finding, not a mistake of ours
    """A sample is not what was put."""


def numbered(numbers: Sequence[int]) -> Samples:
    """Return the samples of these numbers."""
    number = np.array(numbers, dtype=np.int64)

    def values(*shape: int) -> NDArray[np.float32]:
        parts = np.arange(math.prod(shape)).reshape(shape) / 64
        return (number.reshape(-1, *[1] * len(shape)) + parts).astype(np.float32)

    return Samples(
        number % SIMULATIONS,
        number // SIMULATIONS,
        values(SHAPE.parameters),
        values(SHAPE.window),
        values(SHAPE.window, *SHAPE.fields),
    )


def numbers_of(batch: Batch | Samples) -> list[int]:
    """Return the numbers of samples. Raises Altered if the values do not fit the numbers."""
    numbers: list[int] = (batch.first_step * SIMULATIONS + batch.simulation).tolist()
    expected = numbered(numbers)
    for name in ("parameters", "times", "fields"):
        given, found = getattr(expected, name), np.asarray(getattr(batch, name))
        if found.shape != given.shape:
            raise Altered(f"{name} have shape {list(found.shape)}, not {list(given.shape)}")
        differs = (found != given).reshape(len(numbers), -1).any(axis=1)
        if differs.any():
            simulation = batch.simulation[differs.argmax()]
            step = batch.first_step[differs.argmax()]
            raise Altered(
                f"the {name} of simulation {simulation}, step {step} are not what was put"
            )
    return numbers
