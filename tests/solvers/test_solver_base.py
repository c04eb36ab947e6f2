"""Parameters, parameter spaces, and what a solver inherits."""

import importlib
import math
from collections.abc import Iterator
from typing import Literal

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from solvers.base import (
    BatchSolver,
    Field,
    Grid,
    Order,
    Parameter,
    ParameterSpace,
    Solver,
)
from solvers.table import TABLE

SPACE = ParameterSpace(
    Parameter("speed", -2.0, 6.0, "m/s"),
    Parameter("rate", 0.01, 100.0, "1/s", prior="log_uniform", minimum=0.0),
)


class Growth(BatchSolver):
    """One field that starts at the seed and grows by `rate` in every step."""

    parameters = ParameterSpace(Parameter("rate", 0.0, 10.0))
    fields = (Field("size"),)
    grid = Grid((3,), (0.5,))
    order = Order(space=1, time=1)
    stored_steps = 4

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.arange(4.0)

    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        for step in range(4):
            size = seeds + step * parameters[:, 0]
            yield np.broadcast_to(size[:, None, None], (len(size), 1, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("low", "high"),
    [(-math.inf, 1.0), (0.0, math.inf), (math.nan, 1.0), (0.0, math.nan), (2.0, 1.0), (1.0, 1.0)],
)
def test_bounds_must_be_finite_and_in_order(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        Parameter("speed", low, high)


def test_a_lower_bound_below_the_minimum_is_refused() -> None:
    Parameter("temperature", 0.0, 1.0, "K", minimum=0.0)
    with pytest.raises(ValueError, match=r"temperature.*-0\.5 K"):
        Parameter("temperature", -0.5, 1.0, "K", minimum=0.0)


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_a_log_uniform_prior_needs_positive_bounds(low: float) -> None:
    Parameter("rate", low, 1.0)
    with pytest.raises(ValueError, match="rate"):
        Parameter("rate", low, 1.0, prior="log_uniform")


def test_a_space_knows_its_names_and_bounds_in_order() -> None:
    assert len(SPACE) == 2
    assert SPACE.names == ("speed", "rate")
    assert SPACE.low.tolist() == [-2.0, 0.01]
    assert SPACE.high.tolist() == [6.0, 100.0]


def test_a_name_used_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="rate"):
        ParameterSpace(Parameter("rate", 0.0, 1.0), Parameter("rate", 0.0, 2.0))


def test_with_bounds_replaces_only_the_named_bounds() -> None:
    changed = SPACE.with_bounds({"rate": (1.0, 4.0)})
    assert changed.items == (
        SPACE.items[0],
        Parameter("rate", 1.0, 4.0, "1/s", prior="log_uniform", minimum=0.0),
    )
    assert SPACE.low.tolist() == [-2.0, 0.01]  # the original is unchanged
    np.testing.assert_allclose(changed.from_unit(np.array([0.5, 0.5])), [2.0, 2.0])


def test_with_bounds_refuses_an_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"sped .*speed, rate"):
        SPACE.with_bounds({"sped": (0.0, 1.0)})


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 1.0), (3.0, 2.0)])
def test_with_bounds_checks_the_new_bounds(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="rate"):
        SPACE.with_bounds({"rate": bounds})


def test_from_unit_maps_ends_to_bounds_and_the_middle_to_the_median() -> None:
    unit = np.array([[[0.0, 0.0], [0.5, 0.5]], [[1.0, 1.0], [0.0, 1.0]]])
    expected = [[[-2.0, 0.01], [2.0, 1.0]], [[6.0, 100.0], [-2.0, 100.0]]]
    np.testing.assert_allclose(SPACE.from_unit(unit), expected, rtol=1e-14)


@given(
    bounds=st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=2, unique=True).map(sorted),
    unit=st.lists(st.floats(0, 1), min_size=2, max_size=20).map(sorted),
    prior=st.sampled_from(["uniform", "log_uniform"]),
)
def test_from_unit_is_monotone_and_within_the_bounds(
    bounds: list[float], unit: list[float], prior: Literal["uniform", "log_uniform"]
) -> None:
    space = ParameterSpace(Parameter("a", bounds[0], bounds[1], prior=prior))
    values = space.from_unit(np.array(unit)[:, None])[:, 0]
    assert (values[1:] >= values[:-1] * (1 - 1e-12)).all()
    assert values[0] >= bounds[0] * (1 - 1e-12)
    assert values[-1] <= bounds[1] * (1 + 1e-12)


@given(unit=arrays(np.float64, (3, 2), elements=st.floats(0, 1)))
def test_to_unit_undoes_from_unit(unit: NDArray[np.float64]) -> None:
    values = SPACE.from_unit(unit)
    np.testing.assert_allclose(SPACE.to_unit(values), unit, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(SPACE.to_unit(values[1]), SPACE.to_unit(values)[1])


def test_to_unit_goes_on_beyond_the_bounds() -> None:
    np.testing.assert_allclose(SPACE.to_unit(np.array([-10.0, 1e4])), [-1.0, 1.5])


def test_one_simulation_of_a_batch_solver_is_a_batch_of_one() -> None:
    fields = list(Growth().solve(np.array([2.0]), seed=5))
    assert [field.shape for field in fields] == [(1, 3)] * 4
    assert {field.dtype for field in fields} == {np.dtype(np.float32)}
    assert [float(field[0, 0]) for field in fields] == [5.0, 7.0, 9.0, 11.0]


def test_the_largest_seed_is_accepted() -> None:
    first = next(iter(Growth().solve(np.array([2.0]), seed=2**64 - 1)))
    assert first[0, 0] == np.float32(2**64)


def test_by_default_the_fields_themselves_are_observed_and_none_is_static() -> None:
    solver = Growth()
    fields = next(iter(solver.solve(np.array([2.0]), seed=5)))
    observed = solver.observe(fields)
    assert list(observed) == ["size"]
    np.testing.assert_array_equal(observed["size"], fields[0])
    assert dict(solver.static_fields) == {}


def test_a_setting_of_what_is_observed_is_refused_where_there_is_none() -> None:
    with pytest.raises(ValueError, match="threshold"):
        Growth().observe(np.zeros((1, 3), dtype=np.float32), threshold=0.5)


def test_by_default_every_simulation_counts_as_resolved() -> None:
    assert Growth().resolved(np.array([2.0]))


def test_with_bounds_keeps_the_kind_of_space() -> None:
    class Reversed(ParameterSpace):
        def with_items(self, *parameters: Parameter) -> ParameterSpace:
            return Reversed(*parameters)

        def from_unit(self, unit: NDArray[np.float64]) -> NDArray[np.float64]:
            return super().from_unit(1 - unit)

        def to_unit(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
            return 1 - super().to_unit(values)

    space = Reversed(Parameter("a", 0.0, 1.0)).with_bounds({"a": (0.0, 4.0)})
    assert space.from_unit(np.array([0.25])) == 3.0


# What `external` runs has to be said.
@pytest.mark.parametrize("name", [name for name in TABLE if name != "external"])
def test_registered_solvers_can_be_made_without_settings(name: str) -> None:
    module, _, attribute = TABLE[name].path.partition(":")
    assert isinstance(getattr(importlib.import_module(module), attribute)(), Solver)
