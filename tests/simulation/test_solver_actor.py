"""A group of simulations is cut into blocks; what goes wrong ends no more than it must."""

import functools
import re
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from framework.simulation.block import Block
from framework.simulation.solver_actor import SolverActor, checksum
from framework.study.design import Simulation
from solvers.base import BatchSolver, Field, Grid, Order, Parameter, ParameterSpace, Solver
from solvers.heat import Heat

STEPS = 7


def ramp(start: float, seed: int, step: int) -> NDArray[np.float32]:
    """Two fields on three points: start + step, and the same + seed."""
    return np.array([[start + step] * 3, [start + step + seed] * 3], dtype=np.float32)


class Declared(Solver):
    """Declares the shape of `ramp` and STEPS steps; yields `count` values of `value`."""

    parameters = ParameterSpace(Parameter("start", 0, 100))
    fields = (Field("u"), Field("v"))
    grid = Grid((3,), (1.0,))
    order = Order(1, 1)
    stored_steps = STEPS

    def __init__(
        self, value: Callable[[float, int, int], NDArray[np.generic]] = ramp, count: int = STEPS
    ) -> None:
        self.value = value
        self.count = count

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.arange(STEPS) * float(parameters[0])


class Single(Declared):
    def solve(self, parameters: NDArray[np.float64], seed: int) -> Iterator[NDArray[np.float32]]:
        for step in range(self.count):
            yield self.value(float(parameters[0]), seed, step)  # type: ignore[misc]


class Batch(Declared, BatchSolver):
    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        starts = parameters[:, 0].tolist()
        for step in range(self.count):
            group = zip(starts, seeds.tolist(), strict=True)
            yield np.stack([self.value(start, seed, step) for start, seed in group])


def simulations(*starts: float) -> list[Simulation]:
    """One for each start; ids count from 10, seeds from 30."""
    return [Simulation(10 + i, np.array([start]), 30 + i) for i, start in enumerate(starts)]


def messages(
    solver: Solver, group: Sequence[Simulation], steps_per_block: int, time_limit: float = 60.0
) -> Iterator[list[Block]]:
    for message in SolverActor(lambda: solver, time_limit).run(group, steps_per_block):
        yield message.blocks


def blocks(
    solver: Solver, group: Sequence[Simulation], steps_per_block: int, time_limit: float = 60.0
) -> list[list[Block]]:
    """The blocks of each simulation of the group."""
    sent = [
        block for part in messages(solver, group, steps_per_block, time_limit) for block in part
    ]
    found = [[block for block in sent if block.simulation == item.id] for item in group]
    assert sum(map(len, found)) == len(sent)
    return found


def check_steps(blocks: Sequence[Block], simulation: Simulation, stop: int) -> None:
    """The blocks are the steps of a ramp up to `stop`, with all that belongs to them."""
    start, step = float(simulation.parameters[0]), 0
    for block in blocks:
        assert (block.simulation, block.first_step, block.error) == (simulation.id, step, "")
        assert len(block) == len(block.fields) == len(block.checksums) > 0
        assert block.fields.dtype == np.float32
        assert block.checksums.dtype == np.uint32
        np.testing.assert_array_equal(block.parameters, simulation.parameters)
        for fields, sum_of_fields, at in zip(
            block.fields, block.checksums, block.times, strict=True
        ):
            np.testing.assert_array_equal(fields, ramp(start, simulation.seed, step))
            assert sum_of_fields == checksum(fields)
            assert at == step * start
            step += 1
    assert step == stop


def the_error(blocks: Sequence[Block], simulation: Simulation, step: int) -> str:
    """The error at `step` with which the blocks end; every step before it was sent."""
    *good, failure = blocks
    check_steps(good, simulation, step)
    assert (failure.simulation, failure.first_step) == (simulation.id, step)
    assert len(failure) == len(failure.fields) == len(failure.checksums) == 0
    np.testing.assert_array_equal(failure.parameters, simulation.parameters)
    return failure.error


@given(
    steps_per_block=st.integers(1, STEPS + 2),
    starts=st.lists(st.integers(0, 99), min_size=1, max_size=3),
)
def test_blocks_have_the_length_asked_for_and_the_last_the_rest(
    steps_per_block: int, starts: list[int]
) -> None:
    group = simulations(*starts)
    full, rest = divmod(STEPS, steps_per_block)
    lengths = [steps_per_block] * full + [rest] * (rest > 0)
    sent = list(messages(Batch(), group, steps_per_block))
    assert [[len(block) for block in message] for message in sent] == [
        [length] * len(group) for length in lengths
    ]
    for i, simulation in enumerate(group):
        check_steps([message[i] for message in sent], simulation, STEPS)
    (alone,) = blocks(Single(), group[:1], steps_per_block)
    check_steps(alone, group[0], STEPS)


def test_a_group_gives_the_bits_of_its_simulations_alone() -> None:
    solver = Heat(grid_size=9, stored_steps=STEPS)
    points = np.random.default_rng(0).random((3, len(solver.parameters)))
    group = [Simulation(i, solver.parameters.from_unit(points[i]), i) for i in range(3)]
    for simulation, together in zip(group, blocks(solver, group, 3), strict=True):
        (alone,) = blocks(solver, [simulation], 2)
        np.testing.assert_array_equal(
            np.concatenate([block.checksums for block in together]),
            np.concatenate([block.checksums for block in alone]),
        )


def test_later_blocks_leave_earlier_ones_alone() -> None:
    """Also when the solver yields the same memory again and again, and wants it back."""
    buffer = np.zeros((2, 3), dtype=np.float32)

    def reused(start: float, seed: int, step: int) -> NDArray[np.float32]:
        buffer[:] = ramp(start, seed, step)
        return buffer.T.copy().T if step % 2 else buffer[:]

    (simulation,) = simulations(5)
    (found,) = blocks(Single(reused), [simulation], 2)
    buffer[:] = np.nan
    check_steps(found, simulation, STEPS)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64])
def test_fields_of_any_number_type_are_sent_as_float32(dtype: type[np.generic]) -> None:
    (simulation,) = simulations(5)
    for kind in (Single, Batch):
        (found,) = blocks(kind(lambda *step: ramp(*step).astype(dtype)), [simulation], 3)
        check_steps(found, simulation, STEPS)


def fail_at(step: int, error: BaseException, *now: float) -> NDArray[np.float32]:
    if now[2] == step:
        raise error
    return ramp(now[0], int(now[1]), int(now[2]))


@pytest.mark.parametrize("step", [0, 2, 3, STEPS - 1])
@pytest.mark.parametrize("error", [ZeroDivisionError("of x\nby y"), SystemExit("of x by y")])
@pytest.mark.parametrize(("kind", "starts"), [(Single, [5]), (Batch, [5, 6, 7])])
def test_what_a_solver_raises_comes_after_the_steps_before(
    kind: type[Declared], starts: list[float], error: BaseException, step: int
) -> None:
    group = simulations(*starts)
    solver = kind(functools.partial(fail_at, step, error))
    for simulation, found in zip(group, blocks(solver, group, 3), strict=True):
        line = fail_at.__code__.co_firstlineno + 2
        expected = f"{type(error).__name__}: of x by y ({__file__}:{line})"
        assert the_error(found, simulation, step) == expected


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e300], ids=["NaN", "infinity", "overflow"])
@pytest.mark.parametrize("step", [0, 4, STEPS - 1])
def test_a_value_that_is_no_number_ends_its_simulation_only(step: int, value: float) -> None:
    def broken(start: float, seed: int, now: int) -> NDArray[np.float64]:
        fields = ramp(start, seed, now).astype(np.float64)
        if start == 6 and now == step:
            fields[1, 2] = value
        return fields

    group = simulations(5, 6, 7)
    first, second, third = blocks(Batch(broken), group, 2)
    check_steps(first, group[0], STEPS)
    too_large = "yielded numbers up to 1e+300, but float32 holds up to 3.4e+38: choose other units"
    assert the_error(second, group[1], step) == (
        "yielded NaN or infinity" if not abs(value) < np.inf else too_large
    )
    check_steps(third, group[2], STEPS)


def test_a_solver_is_not_asked_on_once_all_its_simulations_have_ended() -> None:
    asked = []

    def broken(start: float, seed: int, step: int) -> NDArray[np.float32]:
        asked.append(step)
        return np.full((2, 3), np.nan if step + start >= 8 else 0, dtype=np.float32)

    list(messages(Batch(broken), simulations(4, 5), 2))
    assert max(asked) == 4


@pytest.mark.parametrize(("kind", "shape"), [(Single, (2, 4)), (Batch, (6,)), (Single, ())])
def test_fields_of_another_shape_are_refused(kind: type[Declared], shape: tuple[int, ...]) -> None:
    def misshapen(start: float, seed: int, step: int) -> NDArray[np.float32]:
        return ramp(start, seed, step) if step < 4 else np.zeros(shape, dtype=np.float32)

    (simulation,) = simulations(5)
    (found,) = blocks(kind(misshapen), [simulation], 3)
    expected = f"yielded fields of shape {shape}, but declares (2, 3)"
    assert the_error(found, simulation, 4) == expected


@pytest.mark.parametrize("fields", ["heat", [[1.0], [2.0, 3.0]], [[None]]])
def test_what_is_no_array_of_numbers_is_refused(fields: object) -> None:
    class Wrong(Batch):
        def solve_batch(self, *arguments: object) -> Iterator[object]:  # type: ignore[override]
            yield fields

    (simulation,) = simulations(5)
    (found,) = blocks(Wrong(), [simulation], 3)
    assert the_error(found, simulation, 0)


@pytest.mark.parametrize(
    "times", [lambda start: np.arange(start), lambda start: 1 / 0], ids=["too few", "raises"]
)
def test_times_that_are_wrong_end_the_simulation(
    times: Callable[[float], NDArray[np.float64]],
) -> None:
    class Wrong(Single):
        def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
            return times(float(parameters[0]))

    (simulation,) = simulations(5)
    (found,) = blocks(Wrong(), [simulation], 3)
    assert re.search(r"\(5,\)|ZeroDivisionError", the_error(found, simulation, 0))


@pytest.mark.parametrize(("kind", "starts"), [(Single, [5]), (Batch, [5, 6, 7])])
@pytest.mark.parametrize("count", [0, 1, 3, STEPS - 1])
def test_too_few_steps_are_an_error(kind: type[Declared], starts: list[float], count: int) -> None:
    group = simulations(*starts)
    for simulation, found in zip(group, blocks(kind(count=count), group, 3), strict=True):
        expected = f"yielded {count} stored steps, but declares {STEPS}"
        assert the_error(found, simulation, count) == expected


@pytest.mark.parametrize("steps_per_block", [2, STEPS, STEPS + 1])
def test_no_simulation_is_complete_that_fails_after_its_last_step(steps_per_block: int) -> None:
    """Whoever has received every step may take the simulation for a good one."""

    class RaisesInTheEnd(Single):
        def solve(self, *arguments: object) -> Iterator[NDArray[np.float32]]:
            yield from super().solve(*arguments)  # type: ignore[arg-type]
            raise OSError("disk full")

    (simulation,) = simulations(5)
    for solver, expected in (
        (Single(count=STEPS + 2), "yielded at least 8 stored steps, but declares 7"),
        (RaisesInTheEnd(), "OSError: disk full"),
    ):
        (found,) = blocks(solver, [simulation], steps_per_block)
        *good, failure = found
        assert expected in failure.error
        assert failure.first_step == STEPS
        check_steps(good, simulation, (STEPS - 1) // steps_per_block * steps_per_block)


def spin(seconds: float, *now: float) -> NDArray[np.float32]:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return ramp(now[0], int(now[1]), int(now[2]))


def test_a_simulation_that_takes_too_long_is_ended() -> None:
    group = simulations(5, 6)
    # A step of both takes 20 ms: the second one at the latest is past the limit.
    for simulation, found in zip(
        group, blocks(Batch(functools.partial(spin, 0.01)), group, 3, time_limit=0.03), strict=True
    ):
        step = found[-1].first_step
        assert step <= 1
        assert the_error(found, simulation, step) == "took longer than its limit of 0.03 s"


def test_the_time_between_draws_is_not_the_solver_s() -> None:
    (simulation,) = simulations(5)
    found = []
    for message in messages(Single(), [simulation], 1, time_limit=0.5):
        spin(0.1, 0, 0, 0)
        found += message
    check_steps(found, simulation, STEPS)


def constant(value: object) -> Callable[[float, int, int], NDArray[np.generic]]:
    """Yields the fields of a ramp at first, and one array at every later step."""
    return lambda start, seed, step: ramp(start, seed, step) if step < 2 else value  # type: ignore[return-value]


SHAPE = (2, 3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones(SHAPE, dtype=np.complex64), "of the type complex64, but fields are real numbers"),
        (np.ones(SHAPE, dtype=np.complex128), "yield real and imaginary part as two fields"),
        (np.full(SHAPE, None), "of the type object, but fields are real numbers: yield them as fl"),
        (np.full(SHAPE, "1"), "of the type <U1, but fields are real numbers"),
        (np.zeros(SHAPE, dtype="datetime64[s]"), "of the type datetime64[s], but fields are real"),
        (np.ma.masked_less(np.ones(SHAPE), 2), "a masked array, whose mask would be lost"),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, np.ndarray) else "",
)
def test_fields_that_a_cast_would_change_end_the_simulation(
    value: NDArray[np.generic], message: str
) -> None:
    (group,) = simulations(5)
    (sent,) = blocks(Single(constant(value)), [group], 2)
    assert message in the_error(sent, group, 2)


@pytest.mark.parametrize(
    "dtype", [np.bool_, np.int8, np.uint64, np.float16, np.float64, np.longdouble]
)
def test_real_numbers_of_any_type_are_taken(dtype: type[np.generic]) -> None:
    (group,) = simulations(5)
    for solver in (Single, Batch):
        (sent,) = blocks(solver(constant(np.ones(SHAPE, dtype=dtype))), [group], STEPS)
        (block,) = sent
        assert block.fields.dtype == np.float32
        assert (block.fields[2:] == 1).all()


def test_nested_lists_of_numbers_are_taken() -> None:
    (group,) = simulations(5)
    ((block,),) = blocks(Single(constant([[1, 2, 3], [4, 5, 6]])), [group], STEPS)
    assert (block.fields[2:] == [[1, 2, 3], [4, 5, 6]]).all()
