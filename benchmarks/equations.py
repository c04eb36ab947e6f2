"""How fast the spectral solvers run, next to exponax, in float32 on one core.

    python benchmarks/equations.py [--rounds N]

exponax (https://github.com/Ceyron/exponax) solves the same equations with the same kind of method
on JAX. Both run BATCH simulations with the same parameters, which differ from one simulation to the
next, from the same initial states, on the same grid, with the same time step, and keep the same
stored times. A time is that of a whole call, from parameters to stored fields: with coefficients,
without JAX's compilation, which is measured apart. All threads share one core, which is what a
solver actor has by default.

exponax runs twice: with its own scheme of fourth order (`order=4`, the same Runge-Kutta method as
here), and with `order=2`, its default, which evaluates half as often and whose error is larger.

How to read it: a speed-up is exponax's time by ours, the median over the rounds of the rounds' own
ratios, with the quarters below and above; on a shared machine they are steadier than the times.
Above 1 we are faster. An error is the relative L2 distance of the last fields from a run in float64
with steps a fourth as long. The goal is a speed-up of 1 over exponax at the same error.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import exponax as ex
import jax
import jax.numpy as jnp
import numpy as np
import torch
from numpy.typing import NDArray
from table import print_table, spread

from solvers.base import BatchSolver
from solvers.burgers import Burgers
from solvers.gray_scott import GrayScott
from solvers.kuramoto_sivashinsky import KuramotoSivashinsky
from solvers.navier_stokes import NavierStokes

BATCH = 16
Fields = NDArray[np.float32]


@dataclass(frozen=True)
class Equation:
    """An equation in both implementations."""

    name: str
    solver: Callable[..., BatchSolver]  # its settings, but for substeps and precision, are given
    settings: dict[str, Any]
    substeps: int
    # A stepper of exponax from the parameters of one simulation, the step and the order.
    peer: Callable[[Any, float, int], Any]
    # Where exponax has other conventions: fields from ours to its own, and back.
    convert: Callable[[Any], Any] = lambda fields: fields


EQUATIONS = [
    Equation(
        "burgers, 256",
        Burgers,
        {"stored_steps": 26, "final_time": 0.5},
        4,
        lambda p, step, order: ex.stepper.Burgers(
            1, 1.0, 256, step, diffusivity=p[0], conservative=True, order=order
        ),
    ),
    Equation(
        "burgers, 1024",
        Burgers,
        {"points": 1024, "stored_steps": 26, "final_time": 0.5},
        4,
        lambda p, step, order: ex.stepper.Burgers(
            1, 1.0, 1024, step, diffusivity=p[0], conservative=True, order=order
        ),
    ),
    Equation(
        "kuramoto_sivashinsky, 128",
        KuramotoSivashinsky,
        {"stored_steps": 41, "final_time": 20.0},
        5,
        lambda p, step, order: ex.stepper.KuramotoSivashinskyConservative(
            1, 50.0, 128, step, fourth_order_scale=p[0], order=order
        ),
    ),
    Equation(
        "gray_scott, 64 x 64",
        GrayScott,
        {"stored_steps": 6, "final_time": 250.0},
        12,
        lambda p, step, order: ex.stepper.reaction.GrayScott(
            2,
            0.5,
            64,
            step,
            feed_rate=p[0],
            kill_rate=p[1],
            order=order,
            dealiasing_fraction=2 / 3,
        ),
    ),
    Equation(
        "navier_stokes, 64 x 64",
        NavierStokes,
        {"stored_steps": 6, "final_time": 1.0},
        12,
        lambda p, step, order: ex.stepper.KolmogorovFlowVorticity(
            2,
            2 * np.pi,
            64,
            step,
            diffusivity=p[0],
            drag=-0.1,
            injection_mode=4,
            injection_scale=-p[1],
            order=order,
        ),
        # Its first axis is x, and its vorticity has the other sign.
        lambda fields: -fields.swapaxes(-1, -2),
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    # Before JAX starts its threads, which it does with the first array.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    rows = [row(equation, rounds) for equation in EQUATIONS]
    head = ["equation", "steps", "ours ms", "speed-up, order 4", "speed-up, order 2"]
    print_table([*head, "error, ours", "order 4", "order 2", "compiling s"], rows)


def row(equation: Equation, rounds: int) -> Sequence[str]:
    ours, parameters = _ours(equation)
    initial = np.ascontiguousarray(equation.convert(ours()[0]))
    peers = [_peer(equation, order, parameters, initial) for order in (4, 2)]
    compiling, _ = (_seconds(run) for run in peers)
    calls = [ours, *peers]
    seconds = np.array([[_seconds(call) for call in calls] for _ in range(rounds)])

    exact = _run(equation, parameters, 4 * equation.substeps, "float64")[-1]
    finals = [ours()[-1], *(equation.convert(np.asarray(run()[:, -1])) for run in peers)]
    errors = [np.linalg.norm(final - exact) / np.linalg.norm(exact) for final in finals]
    return [
        equation.name,
        str((equation.settings["stored_steps"] - 1) * equation.substeps),
        f"{1e3 * np.median(seconds[:, 0]):.0f}",
        *(spread(seconds[:, i] / seconds[:, 0]) for i in (1, 2)),
        *(f"{error:.0e}" for error in errors),
        f"{compiling:.1f}",
    ]


def _ours(equation: Equation) -> tuple[Callable[[], Fields], NDArray[np.float64]]:
    """A call that returns the fields [T, B, C, *grid], and the parameters [B, p]."""
    space = equation.solver(**equation.settings, substeps=equation.substeps).parameters
    parameters = space.from_unit(np.random.default_rng(0).random((BATCH, len(space))))
    if "advection" in space.names:  # exponax's Burgers has none
        parameters[:, space.names.index("advection")] = 0
    return lambda: _run(equation, parameters, equation.substeps, "float32"), parameters


def _run(
    equation: Equation, parameters: NDArray[np.float64], substeps: int, precision: str
) -> Fields:
    solver = equation.solver(**equation.settings, substeps=substeps, precision=precision)
    return np.stack(list(solver.solve_batch(parameters, np.arange(BATCH, dtype=np.uint64))))


def _peer(
    equation: Equation, order: int, parameters: NDArray[np.float64], initial: Fields
) -> Callable[[], Any]:
    """A call that returns exponax's fields [B, T, C, *grid]."""
    stored = equation.settings["stored_steps"] - 1
    step = equation.settings["final_time"] / stored / equation.substeps

    def simulate(values: jax.Array, state: jax.Array) -> jax.Array:
        stepper = ex.RepeatedStepper(equation.peer(values, step, order), equation.substeps)
        fields: jax.Array = ex.rollout(stepper, stored, include_init=True)(state)
        return fields

    together = jax.jit(jax.vmap(simulate))
    given = jnp.asarray(parameters, jnp.float32), jnp.asarray(initial)
    return lambda: together(*given).block_until_ready()


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
