"""Random streams: no two of them coincide, and all of framework draws from them."""

import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import framework
from framework.study.design import Design
from framework.study.sections import DesignConfig
from framework.study.streams import Stream, derived_seed, generator, sequence
from solvers.base import Parameter, ParameterSpace

ROOT = Path(next(iter(framework.__path__)))
# What makes a generator, or seeds one that is there, by the last part of its name.
MAKERS = {"default_rng", "SeedSequence", "RandomState", "manual_seed", "seed", "PCG64", "Random"}

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


def made_elsewhere() -> list[str]:
    """Where framework makes or seeds a generator without a stream: file:line."""
    places = []
    for path in sorted(ROOT.rglob("*.py")):
        if path == ROOT / "study" / "streams.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and called(node) in MAKERS and not derived(node):
                places.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return places


def called(node: ast.Call) -> str:
    """The last part of the name of what is called."""
    match node.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def derived(node: ast.Call) -> bool:
    """Whether the seed that is given comes from `derived_seed` in the same expression."""
    return any(isinstance(part, ast.Call) and called(part) == "derived_seed" for part in node.args)


def test_every_generator_in_framework_is_derived_from_a_stream() -> None:
    left = ("inverse/", "pictures/coverage.py")  # on their way
    assert [place for place in made_elsewhere() if not place.startswith(left)] == []
