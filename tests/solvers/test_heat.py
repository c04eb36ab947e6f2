"""The heat solver against an analytic solution, an exact one in time, and its own symmetries."""

import warnings
from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy  # type: ignore[import-untyped]
from hypothesis import example, given, settings
from numpy.typing import ArrayLike, NDArray

from solvers.heat import Heat

Array = NDArray[np.float64]

# initial, left, right, bottom, top [K]: all different, so that no two can be mixed up unnoticed.
PARAMETERS = (150.0, 420.0, 230.0, 310.0, 480.0)
# Two units in the last place of a float32 near 500 K.
ROUNDING = 6e-5


pytestmark = pytest.mark.usefixtures("one_thread")


def run(solver: Heat, parameters: ArrayLike = PARAMETERS) -> Array:
    """The temperature [T, y, x] of one simulation."""
    fields = np.stack(list(solver.solve(np.asarray(parameters), seed=0)))
    return fields[:, 0].astype(np.float64)


def steady_side(across: Array, along: Array) -> Array:
    """Steady temperature [across, along] [K] with the side across = 0 at 1 K, the others at 0 K.

    The series of sinh(k (1 - across)) / sinh(k), written with decaying exponentials only.
    """
    k = np.pi * np.arange(1, 400, 2)[:, None]
    ratio = np.exp(-k * across) * np.expm1(-2 * k * (1 - across)) / np.expm1(-2 * k)
    series: Array = (4 / k * ratio).T @ np.sin(k * along)
    return series


def analytic(parameters: ArrayLike, nodes: Array, time: float) -> Array:
    """Temperature [y, x] at nodes x nodes, by separation of variables.

    Carslaw & Jaeger, Conduction of Heat in Solids, 2nd ed. (1959), chapter V: the steady state,
    plus the sine series of the initial deviation from it, every mode decaying at its own rate.
    """
    initial, left, right, bottom, top = np.asarray(parameters)
    steady = bottom * steady_side(nodes, nodes) + top * steady_side(1 - nodes, nodes)
    steady += (left * steady_side(nodes, nodes) + right * steady_side(1 - nodes, nodes)).T

    # Sine coefficients [mode in y, mode in x]; those of the steady state by Green's identity.
    mode = np.arange(1, 61)
    sign = (-1.0) ** mode
    one = (1 - sign) / (np.pi * mode)  # the integral of sin(mode pi s) over 0 < s < 1
    rate = np.pi**2 * (mode[:, None] ** 2 + mode**2)
    vertical = np.outer(np.pi * mode * (bottom - sign * top), one)
    horizontal = np.outer(one, np.pi * mode * (left - sign * right))
    coefficients = 4 * (initial * np.outer(one, one) - (vertical + horizontal) / rate)

    sine = np.sin(np.pi * np.outer(nodes, mode))
    field: Array = steady + sine @ (coefficients * np.exp(-rate * time)) @ sine.T
    return field


def semi_discrete(grid_size: int, time: float) -> Array:
    """Temperature [y, x] of the inner nodes under the five-point Laplacian, exact in time."""
    initial, left, right, bottom, top = PARAMETERS
    n, h = grid_size - 2, 1 / (grid_size - 1)
    line = scipy.sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(n, n)) / h**2
    laplacian = scipy.sparse.kronsum(line, line).toarray()
    sides = np.zeros((n, n))
    sides[0] += bottom
    sides[-1] += top
    sides[:, 0] += left
    sides[:, -1] += right
    steady = np.linalg.solve(laplacian, -sides.ravel() / h**2)
    field: Array = steady + scipy.linalg.expm(time * laplacian) @ (initial - steady)
    return field.reshape(n, n)


def test_agrees_with_the_analytic_solution() -> None:
    solver = Heat()
    inner = slice(8, -8)
    nodes = np.linspace(0, 1, 64)[inner]
    temperature = run(solver)
    for step in (10, 25, 49):  # times 0.02, 0.05 and 0.1
        time = solver.times(np.asarray(PARAMETERS))[step]
        error = temperature[step, inner, inner] - analytic(PARAMETERS, nodes, time)
        assert np.abs(error).max() < 0.2  # K; the sides differ by up to 250 K


def heat_in_space() -> tuple[float, list[float]]:
    """Against the analytic solution, at nodes that all grids share; the time step is tiny."""
    nodes = np.linspace(0, 1, 9)[2:7]  # away from the corners, where the temperature jumps
    exact = analytic(PARAMETERS, nodes, 0.05)
    errors = []
    for stride in (1, 2, 4, 8):
        solver = Heat(8 * stride + 1, stored_steps=2, final_time=0.05, substeps=256)
        errors.append(np.abs(run(solver)[-1, ::stride, ::stride][2:7, 2:7] - exact).max())
    return solver.order.space, errors


def heat_in_time() -> tuple[float, list[float]]:
    """Against the same system of ordinary differential equations, solved exactly."""
    exact = semi_discrete(17, 0.1)
    errors = []
    for substeps in (1, 2, 4, 8):
        solver = Heat(17, stored_steps=5, final_time=0.1, substeps=substeps)
        errors.append(np.abs(run(solver)[-1, 1:-1, 1:-1] - exact).max())
    return solver.order.time, errors


@pytest.mark.parametrize("refine", [heat_in_space, heat_in_time])
def test_halving_the_step_shows_the_claimed_order(
    refine: Callable[[], tuple[float, list[float]]],
) -> None:
    claimed, errors = refine()
    observed = np.log2(np.divide(errors[:-1], errors[1:]))
    assert np.abs(observed - claimed).max() < 0.2


def test_layout_of_the_stored_fields() -> None:
    solver = Heat(grid_size=10, stored_steps=7, final_time=0.3)
    fields = list(solver.solve(np.asarray(PARAMETERS), seed=0))
    assert [field.shape for field in fields] == [(1, 10, 10)] * 7
    assert {field.dtype for field in fields} == {np.dtype(np.float32)}
    assert solver.grid.shape == (10, 10)
    assert solver.grid.spacing == pytest.approx((1 / 9, 1 / 9))
    np.testing.assert_allclose(
        solver.times(np.asarray(PARAMETERS)), [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
    )


def test_sides_hold_their_temperature_and_the_inside_starts_at_the_initial_one() -> None:
    value = dict(zip(Heat.parameters.names, PARAMETERS, strict=True))
    temperature = run(Heat(grid_size=10))
    assert (temperature[0, 1:-1, 1:-1] == value["initial"]).all()
    assert (temperature[:, 0, 1:-1] == value["bottom"]).all()
    assert (temperature[:, -1, 1:-1] == value["top"]).all()
    assert (temperature[:, 1:-1, 0] == value["left"]).all()
    assert (temperature[:, 1:-1, -1] == value["right"]).all()
    for row, horizontal in ((0, "bottom"), (-1, "top")):
        for column, vertical in ((0, "left"), (-1, "right")):
            mean = (value[horizontal] + value[vertical]) / 2
            assert (temperature[:, row, column] == mean).all()


@settings(max_examples=50)
@given(st.lists(st.floats(100, 500), min_size=5, max_size=5))
@example([500, 100, 100, 100, 100])
@example([100, 500, 100, 500, 100])
def test_maximum_principle_with_the_default_settings(parameters: list[float]) -> None:
    temperature = run(Heat(), parameters)
    assert temperature.min() >= min(parameters) - 1e-3
    assert temperature.max() <= max(parameters) + 1e-3


def test_heat_content_changes_by_what_flows_through_the_sides() -> None:
    solver = Heat(grid_size=17, stored_steps=201, substeps=16)
    u = run(solver)[40:]  # from 0.02 on, where the flow is smooth enough for Simpson's rule
    times = solver.times(np.asarray(PARAMETERS))[40:]
    content = u[:, 1:-1, 1:-1].sum((1, 2)) * solver.grid.spacing[0] ** 2
    inflow = sum(
        (side - inside)[:, 1:-1].sum(1)
        for side, inside in (
            (u[:, :, 0], u[:, :, 1]),
            (u[:, :, -1], u[:, :, -2]),
            (u[:, 0], u[:, 1]),
            (u[:, -1], u[:, -2]),
        )
    )
    total = scipy.integrate.simpson(inflow, x=times)
    assert content[-1] - content[0] == pytest.approx(total, rel=1e-5)


def test_swapping_left_and_right_mirrors_the_field() -> None:
    initial, left, right, bottom, top = PARAMETERS
    mirrored = run(Heat(), (initial, right, left, bottom, top))
    np.testing.assert_allclose(mirrored, run(Heat())[:, :, ::-1], rtol=0, atol=ROUNDING)


def test_swapping_the_axes_transposes_the_field() -> None:
    initial, left, right, bottom, top = PARAMETERS
    transposed = run(Heat(), (initial, bottom, top, left, right))
    np.testing.assert_allclose(transposed, run(Heat()).swapaxes(1, 2), rtol=0, atol=ROUNDING)


def test_is_linear_in_the_parameters() -> None:
    first, second = np.asarray(PARAMETERS), np.array([220.0, 130.0, 270.0, 190.0, 110.0])
    total = run(Heat(), first) + run(Heat(), second)
    np.testing.assert_allclose(run(Heat(), first + second), total, rtol=0, atol=2 * ROUNDING)


@pytest.mark.parametrize("temperature", [100.0, 273.15, 500.0])
def test_equal_temperatures_stay_constant(temperature: float) -> None:
    np.testing.assert_allclose(run(Heat(), [temperature] * 5), temperature, rtol=0, atol=ROUNDING)


def test_a_batch_equals_its_simulations_one_by_one() -> None:
    parameters = np.random.default_rng(0).uniform(100, 500, (5, 5))
    batch = np.stack(list(Heat().solve_batch(parameters, np.arange(5, dtype=np.uint64))))
    assert batch.shape == (50, 5, 1, 64, 64)
    one_by_one = np.stack([run(Heat(), row) for row in parameters], 1)
    # To rounding: a matrix product may sum in another order when the batch has another size.
    np.testing.assert_allclose(batch[:, :, 0], one_by_one, rtol=0, atol=ROUNDING)


def test_read_only_parameters_are_accepted_without_a_warning() -> None:
    parameters = np.array(PARAMETERS)
    parameters.setflags(write=False)  # as arrays are that come out of Ray's object store
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        next(iter(Heat().solve(parameters, seed=0)))


def test_the_same_parameters_and_seed_give_the_same_bits() -> None:
    parameters = np.asarray(PARAMETERS)
    first, second = (np.stack(list(Heat().solve(parameters, seed=7))) for _ in range(2))
    assert first.tobytes() == second.tobytes()
