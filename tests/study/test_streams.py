"""Random streams: no two of them coincide."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.study.design import Design
from framework.study.sections import DesignConfig
from framework.study.streams import Stream, derived_seed, generator, sequence
from solvers.base import Parameter, ParameterSpace

numbers = st.integers(0, 2**63 - 1)
names = st.tuples(
    st.integers(0, 2**64 - 1), st.sampled_from(Stream), st.lists(numbers, max_size=3).map(tuple)
)
Name = tuple[int, Stream, tuple[int, ...]]


def state(name: Name) -> list[int]:
    seed, stream, indices = name
    return [int(word) for word in sequence(seed, stream, *indices).generate_state(4, np.uint64)]


@given(names, names)
def test_no_two_streams_coincide(one: Name, other: Name) -> None:
    assert (state(one) == state(other)) == (one == other)


@given(st.integers(0, 2**64 - 1), st.sampled_from(Stream), st.lists(numbers, max_size=2))
def test_an_index_of_0_more_or_less_makes_another_stream(
    seed: int, stream: Stream, indices: list[int]
) -> None:
    """numpy's plain `[seed, 4]` and `[seed, 4, 0]` are one stream: these are not."""
    shorter, longer = (seed, stream, tuple(indices)), (seed, stream, (*indices, 0))
    assert state(shorter) != state(longer)


@given(st.integers(0, 2**63 - 1))
def test_no_epoch_is_drawn_as_a_held_out_simulation(seed: int) -> None:
    held_out = [state((seed, Stream.HELD_OUT, (index,))) for index in range(5)]
    points = [state((seed, Stream.HELD_OUT_POINT, (index,))) for index in range(5)]
    epochs = [state((seed, Stream.EPOCH, (epoch,))) for epoch in range(5)]
    assert len({tuple(item) for item in [*held_out, *points, *epochs]}) == 15


@given(names)
def test_a_stream_is_the_same_whenever_it_is_derived(name: Name) -> None:
    seed, stream, indices = name
    first = generator(seed, stream, *indices).random(3)
    assert (generator(seed, stream, *indices).random(3) == first).all()
    assert derived_seed(seed, stream, *indices) == state(name)[0]


@pytest.mark.parametrize("sampler", ["sobol", "monte_carlo"])
def test_no_two_simulations_of_a_design_have_one_seed(sampler: str) -> None:
    config = DesignConfig.model_validate({"sampler": sampler, "simulations": 500})
    design = Design(config, ParameterSpace(Parameter("a", 0.0, 1.0)), 7)
    seeds = {design.simulation(id).seed for id in range(-500, 500)}
    assert len(seeds) == 1000
