"""What holds for all of the standard equations, and the mistakes that their solvers refuse."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from equations import RANDOM, SMALL, batch, corners, name, run

from solvers.base import BatchSolver
from solvers.burgers import Burgers
from solvers.darcy import Darcy, pressure
from solvers.gray_scott import GrayScott
from solvers.heat import Heat
from solvers.kuramoto_sivashinsky import KuramotoSivashinsky
from solvers.lorenz import Lorenz
from solvers.navier_stokes import NavierStokes

pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.mark.parametrize("solver", [SMALL[0], SMALL[1], SMALL[3]], ids=name)
def test_the_mean_is_conserved(solver: BatchSolver) -> None:
    fields = batch(solver, corners(solver)).astype(np.float64)
    axes = tuple(range(3, fields.ndim))
    assert np.abs(fields.mean(axes)).max() < 1e-6 * np.abs(fields).max()


# Mistakes


@pytest.mark.parametrize(
    ("kind", "least"),
    [(Burgers, 3), (KuramotoSivashinsky, 2), (GrayScott, 5), (NavierStokes, 10)],
)
def test_an_unstable_step_is_refused(kind: type[BatchSolver], least: int) -> None:
    unstable, stable = kind(substeps=1), kind(substeps=least)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=rf"substeps is 1: .* has to be at least {least}$"):
        unstable.check(unstable.parameters)
    stable.check(stable.parameters)
    fields = batch(stable, corners(stable))
    assert np.isfinite(fields).all()
    assert np.abs(fields).max() < 50


def test_an_unstable_step_of_lorenz_is_refused() -> None:
    with pytest.raises(ValueError, match=r"substeps is 1: .* of 0.2 .* has to be at least 4$"):
        Lorenz(11, 2.0, substeps=1).check(Lorenz.parameters)


@pytest.mark.parametrize(
    "bounds",
    [
        {},
        {"rho": (0.0, 1.0)},  # states turn fast at first, though nothing drives them
        {"sigma": (0.0, 0.1), "rho": (0.0, 0.1), "beta": (0.0, 0.1)},
        {"rho": (500.0, 1000.0)},  # far from the origin they turn faster than near it
        {"sigma": (0.1, 10.0), "rho": (10.0, 300.0), "beta": (10.0, 40.0)},
    ],
)
def test_the_longest_permitted_step_of_lorenz_is_stable(
    bounds: dict[str, tuple[float, float]],
) -> None:
    space = Lorenz.parameters.with_bounds(bounds)
    with pytest.raises(ValueError, match="unstable") as refused:
        Lorenz(21, 10.0, substeps=1).check(space)
    solver = Lorenz(21, 10.0, substeps=int(str(refused.value).rpartition(" ")[2]))
    solver.check(space)
    ends, between = [*product((0.0, 1.0), repeat=3)], np.random.default_rng(0).random((8, 3))
    unit = np.concatenate([ends, between])
    *_, last = solver.solve_batch(space.from_unit(unit), np.arange(len(unit), dtype=np.uint64))
    assert np.isfinite(last).all()


@pytest.mark.parametrize(
    ("kind", "wider", "narrower"),
    [
        (Burgers, {"amplitude": (0.2, 5.0)}, {"amplitude": (0.1, 0.2)}),
        (KuramotoSivashinsky, {"amplitude": (0.1, 5.0)}, {"hyperviscosity": (1.9, 2.0)}),
        (GrayScott, {"kill": (0.0, 0.06)}, {"feed": (0.025, 0.03)}),
        (NavierStokes, {"vorticity": (1.0, 40.0)}, {"vorticity": (1.0, 1.2)}),
        (Lorenz, {"rho": (25.0, 2e5)}, {"rho": (1.0, 2.0)}),
    ],
)
def test_a_step_that_wider_bounds_make_unstable_is_refused(
    kind: type[BatchSolver],
    wider: dict[str, tuple[float, float]],
    narrower: dict[str, tuple[float, float]],
) -> None:
    solver = kind()
    with pytest.raises(ValueError, match=r"^substeps is \d+: .* would be unstable"):
        solver.check(solver.parameters.with_bounds(wider))
    solver.check(solver.parameters.with_bounds(narrower))


def test_the_longest_permitted_step_of_a_lively_flow_is_stable() -> None:
    bounds = {"viscosity": (1e-5, 1e-4), "forcing": (5.0, 10.0)}
    space = NavierStokes.parameters.with_bounds(bounds)
    with pytest.raises(ValueError, match="unstable") as refused:
        NavierStokes(32, 7, 9.0, substeps=1).check(space)
    solver = NavierStokes(32, 7, 9.0, substeps=int(str(refused.value).rpartition(" ")[2]))
    solver.check(space)
    fastest = space.from_unit(np.array([[0.0, 1.0, 1.0]] * 4))
    *_, last = solver.solve_batch(fastest, np.arange(4, dtype=np.uint64))
    assert np.isfinite(last).all()


def test_narrower_bounds_permit_longer_steps() -> None:
    solver = Burgers(substeps=1)
    with pytest.raises(ValueError, match="unstable"):
        solver.check(solver.parameters)
    solver.check(solver.parameters.with_bounds({"amplitude": (0.1, 0.15)}))


def test_a_step_that_only_the_parameters_make_unstable_is_refused() -> None:
    faster = [0.005, 0.0, 5.0]  # an amplitude beyond the solver's own bounds
    with pytest.raises(ValueError, match=r"substeps is 4: .* unstable"):
        run(Burgers(), faster)


def test_a_grid_that_leaves_out_what_grows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"points is 32: on a length of 100 .* at least 118$"):
        KuramotoSivashinsky(32, length=100.0).check(KuramotoSivashinsky.parameters)
    KuramotoSivashinsky(118, length=100.0, substeps=8).check(KuramotoSivashinsky.parameters)


@pytest.mark.parametrize("parameters", [[0.3, 0.3], [0.045, 0.0]])
def test_gray_scott_beyond_its_bounds_takes_shorter_steps(parameters: list[float]) -> None:
    with pytest.raises(ValueError, match=r"substeps is 10: .* unstable"):
        run(GrayScott(32), parameters)


def test_lorenz_with_a_fast_decay_takes_shorter_steps() -> None:
    with pytest.raises(ValueError, match=r"substeps is 4: .* unstable"):
        run(Lorenz(), [10.0, 28.0, 600.0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Burgers(10**12), r"1000000000000 points .* 178,\d+\.\d GiB .* smaller points$"),
        (lambda: KuramotoSivashinsky(10**12), "1000000000000 points .* smaller points$"),
        (lambda: GrayScott(10**6), "1000000 x 1000000 points .* smaller points$"),
        (lambda: NavierStokes(10**6), "1000000 x 1000000 points .* smaller points$"),
        (lambda: Darcy(10**6), "1000000 x 1000000 points .* smaller grid_size$"),
        # The transform of a line is a matrix.
        (lambda: Heat(10**6, dimensions=1), "1000000 points .* smaller grid_size$"),
        (lambda: Heat(10**4, dimensions=3), "10000 x 10000 x 10000 points .* smaller grid_size$"),
    ],
)
def test_a_grid_too_large_for_memory_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^one simulation on .*{message}"):
        make()


def test_an_initial_state_finer_than_the_grid_is_refused() -> None:
    solver = KuramotoSivashinsky(128, length=10.0)
    solver.grid = type(solver.grid)((24,), (1.0,))
    with pytest.raises(ValueError, match=r"24 points is too coarse .* needs at least 25 points"):
        run(solver, [1.0, 0.5])


def test_a_medium_that_cannot_be_solved_for_says_so() -> None:
    medium = torch.full((1, 9, 9), float("nan"), dtype=torch.float64)
    with pytest.raises(ArithmeticError, match="did not converge"):
        pressure(medium, torch.ones((1, 7, 7), dtype=torch.float64))
