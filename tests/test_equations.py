"""The standard equations against exponax, scipy and analytic solutions, and what they conserve.

exponax (https://github.com/Ceyron/exponax) is another implementation, on JAX, in float64 here.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import exponax as ex  # type: ignore[import-untyped]
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy  # type: ignore[import-untyped]
import torch
from numpy.typing import ArrayLike, NDArray

from solvers.base import BatchSolver
from solvers.burgers import Burgers
from solvers.darcy import Darcy, pressure
from solvers.gray_scott import GrayScott
from solvers.heat import Heat
from solvers.kuramoto_sivashinsky import KuramotoSivashinsky
from solvers.lorenz import Lorenz
from solvers.navier_stokes import NavierStokes

Array = NDArray[np.float64]

jax.config.update("jax_enable_x64", True)

# Each in a size that takes no time.
SMALL: list[BatchSolver] = [
    Burgers(64, 6, 0.2),
    KuramotoSivashinsky(64, stored_steps=5, final_time=2.0),
    GrayScott(32, stored_steps=4, final_time=60.0, substeps=4),
    NavierStokes(32, 4, 0.3, 4),
    Darcy(17),
    Lorenz(6, 0.2),
    Heat(9, 5),
    Heat(9, 5, dimensions=1),
    Heat(7, 4, dimensions=3),
]
RANDOM = [solver for solver in SMALL if not isinstance(solver, Heat)]


def name(solver: BatchSolver) -> str:
    return f"{type(solver).__name__} {len(solver.grid.shape)}-D"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(solver: BatchSolver, parameters: ArrayLike, seed: int = 0) -> Array:
    """The fields [T, C, *grid] of one simulation."""
    return np.stack(list(solver.solve(np.asarray(parameters), seed))).astype(np.float64)


def batch(solver: BatchSolver, parameters: Array) -> NDArray[np.float32]:
    """The fields [T, B, C, *grid] of simulations with the seeds 0, 1, ..."""
    seeds = np.arange(len(parameters), dtype=np.uint64)
    return np.stack(list(solver.solve_batch(parameters, seeds)))


def corners(solver: BatchSolver) -> Array:
    """The parameters [2^p, p] at the corners of the prior."""
    ends = zip(solver.parameters.low, solver.parameters.high, strict=True)
    return np.array(list(itertools.product(*ends)))


def peer(stepper: Any, initial: Array, steps: int) -> Array:
    """exponax's field [C, *grid] after so many steps."""
    run_all = jax.jit(lambda state: jax.lax.fori_loop(0, steps, lambda _, u: stepper(u), state))
    return np.asarray(run_all(jnp.asarray(initial)))


def relative(field: Array, reference: Array) -> float:
    return float(np.linalg.norm(field - reference) / np.linalg.norm(reference))


# Other implementations


def test_burgers_agrees_with_exponax() -> None:
    viscosity = 0.01
    solver = Burgers(128, 3, 0.4, 80, "float64")
    fields = run(solver, [viscosity, 0.0, 0.4], seed=5)
    stepper = ex.stepper.Burgers(
        1, 1.0, 128, 0.0025, diffusivity=viscosity, conservative=True, order=4
    )
    assert relative(fields[-1], peer(stepper, fields[0], 160)) < 1e-6


def test_burgers_with_advection_is_burgers_that_moves() -> None:
    solver = Burgers(64, 5, 0.5, 10)
    still, moving = (run(solver, [0.02, advection, 0.4], seed=5) for advection in (0.0, 0.5))
    for step, field in enumerate(still):  # it moves by 4 points between two stored times
        np.testing.assert_allclose(moving[step], np.roll(field, 4 * step, -1), rtol=0, atol=1e-5)


def test_kuramoto_sivashinsky_agrees_with_exponax() -> None:
    hyperviscosity = 1.3
    solver = KuramotoSivashinsky(128, 50.0, 3, 20.0, 100, "float64")
    fields = run(solver, [hyperviscosity, 0.8], seed=5)
    stepper = ex.stepper.KuramotoSivashinskyConservative(
        1, 50.0, 128, 0.1, fourth_order_scale=hyperviscosity, order=4
    )
    # Where rounding of the initial state to float32 grows by chaos.
    assert relative(fields[-1], peer(stepper, fields[0], 200)) < 1e-5


def test_gray_scott_agrees_with_exponax() -> None:
    feed, kill = 0.035, 0.058
    fields = run(GrayScott(96, 0.5, 3, 120.0, 40, "float64"), [feed, kill], seed=5)
    stepper = ex.stepper.reaction.GrayScott(
        2, 0.5, 96, 1.5, feed_rate=feed, kill_rate=kill, order=4, dealiasing_fraction=2 / 3
    )
    # It keeps one mode less, and has feed and removal outside the exponential.
    assert relative(fields[-1], peer(stepper, fields[0], 80)) < 2e-5


def test_navier_stokes_agrees_with_exponax() -> None:
    viscosity, forcing = 0.04, 1.2
    fields = run(NavierStokes(96, 3, 1.0, 40, "float64"), [viscosity, forcing, 3.0], seed=5)
    stepper = ex.stepper.KolmogorovFlowVorticity(
        2,
        2 * np.pi,
        96,
        0.0125,
        diffusivity=viscosity,
        drag=-0.1,
        injection_mode=4,
        injection_scale=-forcing,
        order=4,
    )
    # Its first axis is x, and its vorticity has the other sign.
    reference = -peer(stepper, -fields[0].swapaxes(1, 2), 80).swapaxes(1, 2)
    assert relative(fields[-1], reference) < 1e-6


def test_lorenz_agrees_with_scipy() -> None:
    sigma, rho, beta = parameters = (10.0, 28.0, 8 / 3)
    solver = Lorenz(21, 2.0, 100)
    fields = run(solver, parameters, seed=5)[:, :, 0]
    reference = scipy.integrate.solve_ivp(
        lambda _, u: (sigma * (u[1] - u[0]), u[0] * (rho - u[2]) - u[1], u[0] * u[1] - beta * u[2]),
        (0.0, 2.0),
        fields[0],
        "DOP853",
        solver.times(np.asarray(parameters)),
        rtol=1e-12,
        atol=1e-12,
    )
    np.testing.assert_allclose(fields, reference.y.T, rtol=0, atol=2e-5)


# Analytic solutions


def test_a_uniform_medium_has_the_analytic_pressure() -> None:
    """The double sine series of -laplacian p = 1, of a twisted bar as well (Timoshenko)."""
    *_, (log_permeability, flow) = run(Darcy(65), [0.1, 0.0])
    assert (log_permeability == 0).all()
    odd, nodes = np.arange(1, 400, 2), np.linspace(0, 1, 65)
    sine = np.sin(np.pi * np.outer(nodes, odd))
    product, square = np.multiply.outer(odd, odd), np.add.outer(odd**2, odd**2)
    exact = sine @ (16 / (np.pi**4 * product * square)) @ sine.T
    assert exact.max() == pytest.approx(0.0736713, abs=1e-6)
    np.testing.assert_allclose(flow, exact, rtol=0, atol=2e-5)


def test_a_manufactured_pressure_is_found_with_second_order() -> None:
    errors = []
    for n in (15, 31, 63):
        x = np.linspace(0, 1, n + 2)
        y = x[:, None]
        medium = np.exp(np.sin(2 * y + x))
        exact = np.sin(np.pi * x) * np.sin(2 * np.pi * y)
        across_x = np.pi * np.cos(np.pi * x) * np.sin(2 * np.pi * y)
        across_y = 2 * np.pi * np.sin(np.pi * x) * np.cos(2 * np.pi * y)
        slope = np.cos(2 * y + x)  # of the medium's logarithm along x, and half of that along y
        source = medium * (5 * np.pi**2 * exact - slope * (across_x + 2 * across_y))
        found = pressure(torch.tensor(medium[None]), torch.tensor(source[None, 1:-1, 1:-1]))
        errors.append(np.abs(found[0].numpy() - exact[1:-1, 1:-1]).max())
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2, atol=0.1)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_heat_from_equal_sides_is_a_product_of_series(dimensions: int) -> None:
    solver = Heat(33, 3, 0.1, 32, dimensions)
    outside, inside = 200.0, 400.0
    sides = [outside] * (2 * dimensions)
    nodes, odd = np.linspace(0, 1, 33), np.arange(1, 60, 2)
    last = run(solver, [inside, *sides])[-1, 0]
    series = 4 / (np.pi * odd) * np.exp(-((odd * np.pi) ** 2) * 0.1)
    along = np.sin(np.pi * np.outer(nodes, odd)) @ series
    product = along
    for _ in range(dimensions - 1):
        product = np.multiply.outer(product, along)
    np.testing.assert_allclose(last, outside + (inside - outside) * product, rtol=0, atol=0.2)


def test_heat_on_a_line_becomes_linear() -> None:
    last = run(Heat(17, 2, 5.0, 200, dimensions=1), [150.0, 420.0, 230.0])[-1, 0]
    np.testing.assert_allclose(last, np.linspace(420, 230, 17), rtol=0, atol=1e-4)


def test_every_side_of_a_cube_has_its_own_temperature() -> None:
    initial, left, right, bottom, top, front, back = range(100, 800, 100)
    solver = Heat(7, 2, dimensions=3)
    assert solver.parameters.names[3:] == ("bottom", "top", "front", "back")
    for field in run(solver, range(100, 800, 100))[:, 0]:
        inside = slice(1, -1)
        for place, temperature in (
            ((inside, inside, 0), left),
            ((inside, inside, -1), right),
            ((inside, 0, inside), bottom),
            ((inside, -1, inside), top),
            ((0, inside, inside), front),
            ((-1, inside, inside), back),
        ):
            assert (field[place] == temperature).all()
        assert field[0, 0, 3] == (front + bottom) / 2
        assert field[-1, -1, -1] == pytest.approx((back + top + right) / 3)
    assert run(solver, range(100, 800, 100))[0, 0, 3, 3, 3] == initial


# What is conserved, and what balances


@pytest.mark.parametrize("solver", [SMALL[0], SMALL[1], SMALL[3]], ids=name)
def test_the_mean_is_conserved(solver: BatchSolver) -> None:
    fields = batch(solver, corners(solver)).astype(np.float64)
    axes = tuple(range(3, fields.ndim))
    assert np.abs(fields.mean(axes)).max() < 1e-6 * np.abs(fields).max()


def change_and_integral(amount: Array, rate: Array, times: Array) -> tuple[float, float]:
    """By how much an amount [T] changed, and the integral of what should have changed it."""
    integral = scipy.integrate.simpson(rate, x=times)
    return float(amount[-1] - amount[0]), float(integral)


def test_burgers_loses_the_energy_that_viscosity_takes() -> None:
    parameters = np.array([0.02, 0.5, 0.4])
    solver = Burgers(128, 101, 0.5, 4)
    u = run(solver, parameters, seed=1)[:, 0]
    slope = np.fft.irfft(2j * np.pi * np.arange(65) * np.fft.rfft(u), 128)
    change, loss = change_and_integral(
        (u**2).mean(1) / 2, -0.02 * (slope**2).mean(1), solver.times(parameters)
    )
    assert change == pytest.approx(loss, rel=1e-4)


def test_gray_scott_changes_by_what_is_fed_and_removed() -> None:
    feed, kill = parameters = np.array([0.03, 0.056])
    solver = GrayScott(32, 0.5, 101, 500.0, 4)
    u, v = run(solver, parameters, seed=1).mean((2, 3)).T
    change, total = change_and_integral(
        u + v, feed * (1 - u) - (feed + kill) * v, solver.times(parameters)
    )
    assert change == pytest.approx(total, rel=1e-4)


def test_navier_stokes_balances_enstrophy() -> None:
    viscosity, forcing, _ = parameters = np.array([0.05, 1.0, 3.0])
    solver = NavierStokes(48, 101, 2.0, 4)
    w = run(solver, parameters, seed=1)[:, 0]
    k = np.fft.fftfreq(48, 1 / 48)
    square = k[:, None] ** 2 + k**2
    palinstrophy = (square * np.abs(np.fft.fft2(w, norm="forward")) ** 2).sum((1, 2))
    push = -4 * forcing * np.cos(4 * 2 * np.pi * np.arange(48) / 48)[:, None]
    rate = (w * push).mean((1, 2)) - viscosity * palinstrophy - 0.1 * (w**2).mean((1, 2))
    change, total = change_and_integral((w**2).mean((1, 2)) / 2, rate, solver.times(parameters))
    assert change == pytest.approx(total, rel=1e-4)


# What holds for all of them


@pytest.mark.parametrize("solver", SMALL, ids=name)
def test_fields_are_finite_and_laid_out_as_declared_over_the_prior(solver: BatchSolver) -> None:
    parameters = corners(solver)
    fields = batch(solver, parameters)
    assert fields.dtype == np.float32
    shape = (len(solver.fields), *solver.grid.shape)
    assert fields.shape == (solver.stored_steps, len(parameters), *shape)
    assert np.isfinite(fields).all()
    times = solver.times(parameters[0])
    assert times.shape == (solver.stored_steps,)
    assert (np.diff(times) > 0).all()
    assert len(solver.grid.spacing) == len(solver.grid.shape)


@pytest.mark.parametrize("solver", SMALL, ids=name)
def test_a_batch_equals_its_simulations_one_by_one(solver: BatchSolver) -> None:
    parameters = solver.parameters.from_unit(
        np.random.default_rng(0).random((3, len(solver.parameters)))
    )
    together = batch(solver, parameters)
    alone = np.stack([run(solver, row, seed) for seed, row in enumerate(parameters)], 1)
    # To rounding: which instructions a transform uses depends on how many there are.
    np.testing.assert_allclose(together, alone, rtol=0, atol=2e-5 * np.abs(alone).max())


@pytest.mark.parametrize("solver", SMALL, ids=name)
def test_the_same_seed_gives_the_same_bits(solver: BatchSolver) -> None:
    parameters = solver.parameters.from_unit(np.full(len(solver.parameters), 0.5))
    parameters.setflags(write=False)  # as those are that come out of Ray's object store
    first, second = (run(solver, parameters, seed=2**64 - 1) for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("solver", RANDOM, ids=name)
def test_another_seed_gives_another_initial_state(solver: BatchSolver) -> None:
    parameters = solver.parameters.from_unit(np.full(len(solver.parameters), 0.5))
    first, second = (next(solver.solve(parameters, seed)) for seed in (0, 1))
    assert np.abs(first - second).max() > 0.01


@pytest.mark.parametrize("kind", [Burgers, KuramotoSivashinsky, NavierStokes])
def test_a_finer_grid_starts_from_the_same_field(kind: type[BatchSolver]) -> None:
    coarse, fine = kind(64), kind(128, substeps=40)  # type: ignore[call-arg]
    parameters = coarse.parameters.from_unit(np.full(len(coarse.parameters), 0.5))
    shared = (slice(None), *[slice(None, None, 2)] * len(coarse.grid.shape))
    first, second = (next(solver.solve(parameters, 3)) for solver in (coarse, fine))
    np.testing.assert_allclose(first, second[shared], rtol=0, atol=1e-5)


# Mistakes


@pytest.mark.parametrize(
    ("kind", "least"),
    [(Burgers, 3), (KuramotoSivashinsky, 2), (GrayScott, 6), (NavierStokes, 7)],
)
def test_an_unstable_step_is_refused(kind: type[BatchSolver], least: int) -> None:
    with pytest.raises(ValueError, match=rf"substeps is 1: .* has to be at least {least}$"):
        kind(substeps=1)  # type: ignore[call-arg]
    stable = kind(substeps=least)  # type: ignore[call-arg]
    fields = batch(stable, corners(stable))
    assert np.isfinite(fields).all()
    assert np.abs(fields).max() < 50


def test_an_unstable_step_of_lorenz_is_refused() -> None:
    with pytest.raises(ValueError, match=r"substeps is 1: .* of 0.2 .* has to be at least 3$"):
        Lorenz(11, 2.0, substeps=1)


def test_a_step_that_only_the_parameters_make_unstable_is_refused() -> None:
    faster = [0.005, 0.0, 5.0]  # an amplitude beyond the solver's own bounds
    with pytest.raises(ValueError, match=r"substeps is 4: .* unstable"):
        run(Burgers(), faster)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Burgers(10**12), r"points is 1000000000000: .* 178,\d+\.\d GiB"),
        (lambda: KuramotoSivashinsky(10**12), "points is 1000000000000: "),
        (lambda: GrayScott(10**6), "points is 1000000: .* 1000000 x 1000000 points"),
        (lambda: NavierStokes(10**6), "points is 1000000: .* 1000000 x 1000000 points"),
        (lambda: Darcy(10**6), "grid_size is 1000000: .* 1000000 x 1000000 points"),
        (lambda: Heat(10**4, dimensions=3), "grid_size is 10000: .* 10000 x 10000 x 10000 points"),
    ],
)
def test_a_grid_too_large_for_memory_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}.*this machine has .* choose a smaller one"):
        make()


def test_an_initial_state_finer_than_the_grid_is_refused() -> None:
    solver = KuramotoSivashinsky(128)
    solver.grid = type(solver.grid)((24,), (1.0,))
    with pytest.raises(ValueError, match=r"24 points is too coarse .* needs at least 25 points"):
        run(solver, [1.0, 0.5])


def test_a_medium_that_cannot_be_solved_for_says_so() -> None:
    medium = torch.full((1, 9, 9), float("nan"), dtype=torch.float64)
    with pytest.raises(ArithmeticError, match="did not converge"):
        pressure(medium, torch.ones((1, 7, 7), dtype=torch.float64))
