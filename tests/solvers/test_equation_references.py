"""The standard equations against exponax, scipy and analytic solutions, and what they balance.

exponax (https://github.com/Ceyron/exponax) is another implementation, on JAX, in float64 here.
"""

from typing import Any

import exponax as ex  # type: ignore[import-untyped]
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy  # type: ignore[import-untyped]
import torch
from equations import Array, run

from solvers.burgers import Burgers
from solvers.darcy import Darcy, pressure
from solvers.gray_scott import GrayScott
from solvers.heat import Heat
from solvers.kuramoto_sivashinsky import KuramotoSivashinsky
from solvers.lorenz import Lorenz
from solvers.navier_stokes import NavierStokes

jax.config.update("jax_enable_x64", True)


pytestmark = pytest.mark.usefixtures("one_thread")


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
    # It keeps one mode less.
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


# What balances


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
