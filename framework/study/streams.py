"""Random streams: every generator is derived from the study's seed by the name of its stream.

Streams of different names or indices are independent: numpy's `SeedSequence` mixes the seed with
(name, *indices) as its spawn key, and no two of them coincide.
"""

from enum import IntEnum, unique

import numpy as np


@unique
class Stream(IntEnum):
    """The uses of random numbers. A number, once given, is never given to another stream."""

    SIMULATION = 0  # the seed of a training simulation; index: its id
    HELD_OUT = 1  # the seed of a held-out simulation; index: its number
    HELD_OUT_POINT = 2  # the parameters of a held-out simulation; index: its number
    MONTE_CARLO = 3  # the parameters of a training simulation; index: its id
    SEQUENCE = 4  # a quasi-random design
    BREEDING = 5  # the decision on a bred simulation; index: its id
    BUFFER = 6  # which samples are drawn from a buffer; index: the rank
    EPOCH = 7  # the order of a store's simulations; index: the epoch
    PORTION = 8  # the order of the samples in a portion; indices: the epoch and the portion
    WEIGHTS = 9  # the surrogate's initial weights, and what it draws while it trains
    CALIBRATION = 10  # patients to calibrate a posterior with
    AROUND = 11  # simulations around a posterior; index: how many there are already
    REFINEMENT = 12  # the search from the best matches
    PICTURE = 13  # the places that a picture samples
    CHECK = 14  # the inputs of checks of a solver, surrogate or buffer
    STATIC = 15  # weights of the sums that static fields are known by; index: the sum


def sequence(seed: int, stream: Stream, *indices: int) -> np.random.SeedSequence:
    """Return the entropy of one stream. `seed` and `indices` are not negative."""
    return np.random.SeedSequence(seed, spawn_key=(int(stream), *indices))


def generator(seed: int, stream: Stream, *indices: int) -> np.random.Generator:
    """Return a generator of one stream."""
    return np.random.default_rng(sequence(seed, stream, *indices))


def stored_seed(seed: int, version: int, id: int) -> int:
    """Return the seed that a stored training simulation ran with, in a store of any version."""
    if version == 1:
        return int(np.random.SeedSequence([seed, 0, id]).generate_state(1, np.uint64)[0])
    return derived_seed(seed, Stream.SIMULATION, id)


def derived_seed(seed: int, stream: Stream, *indices: int) -> int:
    """Return a seed of 64 bits of one stream, for code that takes a seed and no generator."""
    return int(sequence(seed, stream, *indices).generate_state(1, np.uint64)[0])
