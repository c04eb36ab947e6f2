"""The checks of a solver, in the order in which they run: what it declares, then what it computes.

Shapes: p parameters, C fields, T stored steps, `*grid` the grid's axes.
"""

import pickle
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from framework.check.clock import Clock
from framework.check.findings import Check, Finding, failed, passed, skipped
from framework.check.observed import check_images, check_quantities
from framework.check.orders import check_space_order, check_time_order
from framework.check.refinement import exact_settings
from framework.check.simulated import SEED, Simulated, difference, require_time, stepwise
from framework.study.declared import as_float32, wrong_declarations
from solvers.base import BatchSolver, Order

# How far a simulation in a batch may be from the same one alone, relative to the greatest number: a
# transform or a product uses other instructions for other sizes.
BATCH_TOLERANCE = 2e-5


def solver_checks(subject: Simulated) -> list[Check]:
    """Return all checks of a solver."""
    checks = {
        "declarations": check_declarations,
        "stored times": check_times,
        "its own bounds": check_bounds,
        "to other processes": check_sending,
        "fields and speed": check_fields,
        "same seed, same bits": check_seeds,
        "finite at the bounds": check_corners,
        "solve_batch": check_batch,
        "observe": check_images,
        "identifiable": check_quantities,
        "order in time": check_time_order,
        "order in space": check_space_order,
    }
    needed = (check_declarations, check_times, check_fields)
    return [
        Check(name, partial(check, subject), needed=check in needed)
        for name, check in checks.items()
    ]


def check_declarations(subject: Simulated, clock: Clock) -> Iterator[Finding]:
    """The attributes that `Solver` lists are there and agree with each other."""
    solver = subject.solver
    found = wrong_declarations(solver, ("parameters", "fields", "grid", "order", "stored_steps"))
    if not found and not isinstance(solver.order, Order):
        found = ["order is no Order(space=, time=)"]
    for sentence in found:
        yield failed(sentence, "Set it so; solvers/base.py says what it is.")
    if not found:
        names = ", ".join(field.name for field in solver.fields)
        points = " x ".join(map(str, solver.grid.shape))
        yield passed(f"{len(solver.parameters)} parameters, fields {names} on {points} points")


def check_times(subject: Simulated, clock: Clock) -> Iterator[Finding]:
    """The stored times ascend, are finite, and are as many as the stored steps."""
    solver = subject.solver
    ends = []
    for parameters in (subject.middle, *subject.corners()):
        times = np.asarray(solver.times(parameters))
        at = f"for the parameters {_few(parameters)}"
        if times.shape != (solver.stored_steps,):
            yield failed(
                f"{at} there are times of shape {times.shape}, but stored_steps is "
                f"{solver.stored_steps}",
                "Return as many times as `solve` yields fields, and set stored_steps to that.",
            )
            return
        if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            yield failed(
                f"{at} the times are {_few(times)}",
                "Return finite times in ascending order, no two of them equal.",
            )
            return
        ends += [times[0], times[-1]]
    yield passed(
        f"{solver.stored_steps} ascending times, from {min(ends):g} to {max(ends):g} "
        f"{solver.time_units}"
    )


def check_bounds(subject: Simulated, clock: Clock) -> Iterator[Finding]:
    """`check` accepts the solver's own bounds, and `resolved` answers true or false."""
    solver = subject.solver
    try:
        solver.check(solver.parameters)
    except ValueError as error:
        yield failed(
            f"check refuses the solver's own bounds: {error}",
            "Narrow the bounds in `parameters`, or choose defaults of the settings that can "
            "simulate them.",
        )
        return
    resolved = solver.resolved(subject.middle)
    if not isinstance(resolved, bool | np.bool_):
        yield failed(f"resolved returns {resolved!r}", "Return True or False.")
        return
    yield passed("check accepts them")


def check_sending(subject: Simulated, clock: Clock) -> Iterator[Finding]:
    """The factory can be pickled, and makes the same solver."""
    advice = (
        "Define the class at the top of a module, give it settings that can be pickled, and open "
        "files and libraries in `solve`."
    )
    try:
        again = pickle.loads(pickle.dumps(subject.maker.factory()))()
    except Exception as error:  # whatever the user's class raises
        message = " ".join(str(error).split())
        yield failed(f"its factory cannot be pickled: {message}", advice)
        return
    if again.grid != subject.solver.grid or again.stored_steps != subject.solver.stored_steps:
        yield failed("made once more, it has another grid or other stored steps", advice)
        return
    yield passed("its factory can be pickled")


def check_fields(subject: Simulated, clock: Clock) -> Iterator[Finding]:
    """`solve` yields T fields [C, *grid], in numbers that float32 can hold; measure its speed."""
    solver = subject.solver
    shape = (len(solver.fields), *solver.grid.shape)
    parameters = subject.middle
    steps, types = 0, set()
    started = time.perf_counter()
    for fields in solver.solve(parameters, SEED):
        array = np.asanyarray(fields)
        types.add(str(array.dtype))
        if array.shape != shape:
            yield failed(
                f"stored step {steps} has shape {array.shape}, but fields and grid declare {shape}",
                "Yield [channels, *grid], a channel for each of `fields`, also if it is one: "
                "u[None].",
            )
            return
        try:
            as_float32(fields)
        except ValueError as error:
            yield failed(f"at stored step {steps} it {error}", "Yield real numbers as float32.")
            return
        steps += 1
        if steps > solver.stored_steps:
            break
        require_time(solver, clock, steps)
    seconds = time.perf_counter() - started
    if steps != solver.stored_steps:
        more = "more than " if steps > solver.stored_steps else ""
        yield failed(
            f"solve yields {more}{min(steps, solver.stored_steps)} fields, but stored_steps is "
            f"{solver.stored_steps}",
            "Yield the initial state and then one for each later time in `times`.",
        )
        return
    yield passed(
        f"{steps} stored steps of {list(shape)} {', '.join(sorted(types))}, "
        f"{steps / max(seconds, 1e-9):,.3g} stored fields/s"
    )


def check_seeds(subject: Simulated, clock: Clock) -> Iterator[Finding]:
    """The same parameters and seed give the same bits, whatever ran before, and in a new solver.

    Whether another seed gives other fields is what the solver declares.
    """
    parameters = subject.middle
    first = subject.run(clock, parameters)
    subject.run(clock, next(subject.corners()), SEED - 1)  # would leave a state, if there is one
    again = subject.run(clock, parameters)
    if first.tobytes() != again.tobytes():
        yield failed(
            f"the second run differs from the first by {difference(first, again):.1e} of the "
            "greatest number",
            "Draw random numbers from np.random.default_rng(seed) alone, and keep nothing of one "
            "simulation in the solver for the next.",
        )
        return
    new = Simulated(subject.maker).run(clock, parameters)
    if first.tobytes() != new.tobytes():
        yield failed(
            f"a new solver with the same settings differs by {difference(first, new):.1e}",
            "Draw nothing at random in the constructor, and use no state of the process.",
        )
        return
    differs = first.tobytes() != subject.run(clock, parameters, seed=1).tobytes()
    if differs != subject.solver.uses_seed:
        yield failed(
            f"another seed gives {'other' if differs else 'the same'} fields, but uses_seed is "
            f"{subject.solver.uses_seed}",
            f"Set uses_seed = {differs} in the class, so that users are warned where it matters.",
        )
        return
    yield passed(
        "three runs are equal; another seed "
        + ("gives other fields" if differs else "gives the same fields")
    )


def check_corners(subject: Simulated, clock: Clock) -> Iterator[Finding]:
    """No field has NaN or infinity in the middle or at the corners of the parameters' space."""
    places = [subject.middle, *subject.corners()]
    wrong, longest, ran = [], 0.0, 0
    for parameters in places:
        if ran and longest > clock.left:
            break
        started = clock.spent
        for step, fields in enumerate(stepwise(subject.solver, clock, parameters)):
            if not np.isfinite(fields).all():
                wrong.append((parameters, step))
                break
        longest = max(longest, clock.spent - started)
        ran += 1
    where = f"{ran} of {len(places)} places (the middle and corners)"
    if wrong:
        parameters, step = wrong[0]
        yield failed(
            f"NaN or infinity at {len(wrong)} of {where}; first at {_few(parameters)}, stored "
            f"step {step}",
            "Shorten the time step there, narrow the bounds, or refuse them in `check`.",
        )
        return
    yield passed(f"at {where}" + ("" if ran == len(places) else f" in {clock.limit:g} s"))


def check_batch(subject: Simulated, clock: Clock) -> Iterator[Finding]:
    """A batch of three equals three single simulations, in double precision if possible."""
    solver = subject.maker.make(**exact_settings(subject))
    if not isinstance(solver, BatchSolver):
        yield skipped("it runs one simulation at a time (no BatchSolver)")
        return
    p = len(solver.parameters)
    unit = np.linspace(0.2, 0.8, 3)[:, None] * np.linspace(1.0, 0.8, p)
    parameters = solver.parameters.from_unit(unit)
    seeds = np.array([0, 1, SEED], dtype=np.uint64)
    together = []
    for steps, fields in enumerate(solver.solve_batch(parameters, seeds), 1):
        together.append(np.array(fields, dtype=np.float32))
        require_time(solver, clock, steps)
    alone = np.stack(
        [
            np.stack(list(stepwise(solver, clock, row, int(seed))))
            for row, seed in zip(parameters, seeds, strict=True)
        ],
        1,
    )
    if np.shape(together) != alone.shape:
        yield failed(
            f"solve_batch yields {np.shape(together)} in all, but solve makes it {alone.shape}",
            "Yield [simulations, channels, *grid] at every stored time.",
        )
        return
    found = np.stack(together)
    apart = max(difference(alone[:, i], found[:, i]) for i in range(3))
    if not apart <= BATCH_TOLERANCE:
        yield failed(
            f"a batch of 3 differs from single simulations by {apart:.1e}, more than "
            f"{BATCH_TOLERANCE:g} of the greatest number",
            "Use the parameters and the seed of each row for that row alone, in both methods.",
        )
        return
    equal = found.tobytes() == alone.tobytes()
    yield passed(
        "a batch of 3 has the same bits as 3 single simulations"
        if equal
        else f"a batch of 3 is within {apart:.1e} of 3 single simulations"
    )


def _few(values: NDArray[np.float64]) -> str:
    """Return the first few numbers as text."""
    text = [f"{value:.4g}" for value in values[:12]]
    return f"[{', '.join(text)}{', ...' if len(values) > 12 else ''}]"
