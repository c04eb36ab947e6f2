"""The checks of a surrogate: on grids of one to three axes, in both modes, and that it learns.

Shapes: n samples, K steps predicted at once, C fields, `*grid` the grid's axes.
"""

import io
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from framework.check.clock import Clock
from framework.check.findings import Check, Finding, failed, passed, skipped
from framework.check.fitting import check_fit
from framework.check.maker import Maker
from framework.check.trial import GRIDS, MODES, Data, Trial, find_trial, rollout
from surrogates.base import Mode, Surrogate

# How far a sample alone may be predicted from the same one in a batch, relative to the greatest.
_BATCH_TOLERANCE = 1e-4
_BATCHES = 3  # batches in which a parameter may get its gradient


def surrogate_checks(maker: Maker[Surrogate]) -> list[Check]:
    """Return all checks of a surrogate."""
    cases = [(axes, mode) for axes in range(1, len(GRIDS) + 1) for mode in MODES]
    return [
        Check("any grid", partial(check_any, maker), needed=True),
        *(
            Check(f"{axes}-D {mode}", partial(check_trial, maker, axes, mode))
            for axes, mode in cases
        ),
        Check("precisions", partial(check_precisions, maker)),
        *(Check(f"learns, {mode}", partial(check_fit, maker, mode)) for mode in MODES),
    ]


def check_any(maker: Maker[Surrogate], clock: Clock) -> Iterator[Finding]:
    """The constructor accepts a grid of one to three axes in one of the modes."""
    try:
        trial = _first_trial(maker)
    except ValueError as error:
        yield failed(
            f"refused on grids of one to three axes, in both modes: {error}",
            "Accept one of them, or give settings with which it does.",
        )
        return
    grid = " x ".join(map(str, trial.problem.grid))
    yield passed(f"made for {grid} points in mode {trial.mode}")


def check_trial(maker: Maker[Surrogate], axes: int, mode: Mode, clock: Clock) -> Iterator[Finding]:
    """Outputs, gradients and saving on one grid in one mode; reports the optimiser step's cost."""
    try:
        trial = find_trial(maker, axes, mode)
    except ValueError as error:
        yield skipped(f"not offered: {error}")
        return
    surrogate = trial.surrogate()
    data = trial.data(surrogate)
    wrong = next(_wrong_shapes(surrogate, data), None) or next(_wrong(trial, surrogate, data), None)
    if wrong is not None:
        yield wrong
        return
    cost = surrogate.cost(len(data.times))
    started = time.perf_counter()
    surrogate.train().losses(*data.window(surrogate.window)).mean().backward()  # type: ignore[no-untyped-call]
    seconds = time.perf_counter() - started
    grid = " x ".join(map(str, trial.problem.grid))
    yield passed(
        f"shapes, gradients and saving on {grid} points; {cost.parameters:,} weights; a step on "
        f"{len(data.times)} samples takes {cost.flops / 1e6:,.3g} MFLOP, {1e3 * seconds:.3g} ms"
    )


def _wrong_shapes(surrogate: Surrogate, data: Data) -> Iterator[Finding]:
    """Yield what is wrong with the shape that `forward` returns, which is checked first."""
    problem = surrogate.problem
    shapes: list[tuple[int, ...]] = []
    hook = surrogate.register_forward_hook(lambda *call: shapes.append(tuple(call[-1].shape)))
    try:
        surrogate.losses(*data.window(surrogate.window))
    except RuntimeError:
        if not shapes:  # in the network itself
            raise
    finally:
        hook.remove()
    n, outputs = len(data.times), surrogate.bundle * problem.channels
    if shapes[-1] != (n, outputs, *problem.grid):
        yield failed(
            f"forward returns {list(shapes[-1])}, not {[n, outputs, *problem.grid]}",
            "Return [n, K C, *grid]: all fields of the first of the K times, then of the next.",
        )


def _wrong(trial: Trial, surrogate: Surrogate, data: Data) -> Iterator[Finding]:
    """Yield everything else that is wrong."""
    yield from _wrong_batches(surrogate, data)
    yield from _dead_weights(trial, surrogate)
    yield from _wrong_saving(trial, surrogate, data)


def _wrong_batches(surrogate: Surrogate, data: Data) -> Iterator[Finding]:
    """Yield predictions that are not finite or depend on the other samples of a batch."""
    together = rollout(surrogate, data)
    if not together.isfinite().all():
        yield failed(
            "predictions have NaN or infinity before any training",
            "Start with smaller weights; inputs lie between about -1 and 1.",
        )
    for n in (1, 2):
        alone = rollout(surrogate, data.first(n))
        apart = float((alone - together[:n]).abs().max() / together.abs().max())
        if not apart <= _BATCH_TOLERANCE:
            yield failed(
                f"{n} of {len(together)} samples are predicted otherwise without the rest, by "
                f"{apart:.1e}",
                "Treat each sample by itself: no normalisation over the batch, no reshaping that "
                "mixes samples.",
            )
    loss = surrogate.train().losses(*data.window(surrogate.window))
    if loss.shape != (len(data.times),) or not loss.isfinite().all():
        yield failed(
            f"losses are {loss.tolist()}",
            "Return one finite loss for each sample, if you override.",
        )


def _dead_weights(trial: Trial, surrogate: Surrogate) -> Iterator[Finding]:
    """Yield parameters that get no gradient in any of a few batches."""
    dead = {name for name, weight in surrogate.named_parameters() if weight.requires_grad}
    if not dead:
        yield failed("there is no parameter to train", "Register layers as attributes.")
    count = len(dead)
    surrogate.train()
    for seed in range(_BATCHES):
        surrogate.zero_grad()
        batch = trial.data(surrogate, seed=seed).window(surrogate.window)
        surrogate.losses(*batch).mean().backward()  # type: ignore[no-untyped-call]
        dead -= {
            name
            for name, weight in surrogate.named_parameters()
            if weight.grad is not None and bool(weight.grad.abs().sum() > 0)
        }
        with torch.no_grad():  # behind a layer that starts with zeros there are gradients later
            for weight in surrogate.parameters():
                if weight.grad is not None:
                    weight.sub_(0.1 * weight.grad)
    if dead:
        yield failed(
            f"no gradient reaches {len(dead)} of {count} parameters: {', '.join(sorted(dead)[:5])}",
            "Use them in forward, without detach or no_grad on the way, or remove them.",
        )


def _wrong_saving(trial: Trial, surrogate: Surrogate, data: Data) -> Iterator[Finding]:
    """Yield what is wrong with saving, and with initial weights of the same seed."""
    if not _same(trial.surrogate(3).tensors(), trial.surrogate(3).tensors()):
        yield failed(
            "two surrogates of the same seed start with different weights",
            "Draw weights from torch's global generator alone.",
        )
    file = io.BytesIO()
    arrays_of = {name: value.numpy() for name, value in surrogate.tensors().items()}
    np.savez(file, allow_pickle=False, **arrays_of)
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        saved = {name: torch.from_numpy(arrays[name]) for name in arrays}
    again = trial.fresh(5)
    again.load_state_dict(saved, assign=True)
    if not torch.equal(rollout(again, data), rollout(surrogate, data)):
        yield failed(
            "a new surrogate with the saved tensors predicts something else",
            "Register what decides the output as a parameter or a buffer (register_buffer), and "
            "draw nothing at random while predicting.",
        )


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def check_precisions(maker: Maker[Surrogate], clock: Clock) -> Iterator[Finding]:
    """An optimiser step in each of the precisions that the class names keeps weights finite."""
    trial = _first_trial(maker)
    precisions = trial.surrogate().precisions
    for precision in precisions:
        if precision not in ("float32", "float64", "bfloat16"):
            yield failed(
                f"precisions names {precision}", "Choose among float32, float64 and bfloat16."
            )
            return
        surrogate = trial.surrogate().train()
        if precision == "float64":
            surrogate.double()
        optimiser = torch.optim.Adam(surrogate.parameters())
        batch = trial.data(surrogate).window(surrogate.window)
        try:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                loss = surrogate.losses(*batch).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        except RuntimeError as error:
            wrong = " ".join(str(error).split())
        else:
            if all(value.isfinite().all() for value in surrogate.tensors().values()):
                continue
            wrong = f"the loss is {float(loss)}, the weights are not finite after it"
        yield failed(
            f"a step in {precision} fails: {wrong}",
            f"Leave {precision} out of `precisions`, or let every tensor take the type of the "
            "inputs.",
        )
        return
    yield passed(f"an optimiser step in {', '.join(precisions)}")


def _first_trial(maker: Maker[Surrogate]) -> Trial:
    """Return a trial in the first mode and number of axes accepted. Raises ValueError."""
    refused = ValueError()
    for axes in range(1, len(GRIDS) + 1):
        for mode in MODES:
            try:
                return find_trial(maker, axes, mode)
            except ValueError as error:
                refused = error
    raise refused
