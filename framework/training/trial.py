"""A trial of a surrogate before a run starts: a small batch, forward and backward, and a rollout.

Shapes: n samples (2, as layers that normalise by the batch need), w stored steps in a sample, K
steps predicted at once, C fields, `*grid` the grid's axes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framework.study.case import Case
from framework.study.streams import Stream, derived_seed
from framework.training.trainer import training_device
from surrogates.base import Surrogate

# With the first of these seeds a surrogate with pushforward trains on its own prediction, with the
# second on the fields; see `Surrogate.losses`.
_SEEDS = (1, 0)
_BATCH = 2  # n


def try_surrogate(surrogate: Surrogate, case: Case) -> None:
    """Train on a sample of noise and predict a few steps, as a run and its scoring would.

    Changes the surrogate's gradients and, if it keeps any, its running statistics: so try one that
    is not used later. Raises ValueError that says what is wrong, and any error of its code.
    """
    precision = case.study.training.precision
    device = training_device()
    surrogate.to(device)
    if precision == "float64":
        surrogate.double()
    if not any(weight.requires_grad for weight in surrogate.parameters()):
        raise ValueError("there is nothing to train: register its layers as attributes")
    parameters, times, fields = (values.to(device) for values in _sample(surrogate, case))
    surrogate.train()
    for seed in _SEEDS if surrogate.pushforward else _SEEDS[:1]:
        torch.manual_seed(derived_seed(seed, Stream.CHECK))
        with (
            _checked_outputs(surrogate),
            torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            window = surrogate.window
            losses = surrogate.losses(parameters, times[:, :window], fields[:, :window])
        _check_losses(losses)
        torch.autograd.backward(losses.sum())
    surrogate.eval()
    with _checked_outputs(surrogate), torch.no_grad():
        predicted = [
            tuple(step.shape) for step in surrogate.rollout(parameters, times, fields[:, 0])
        ]
    wanted = [tuple(fields[:, 0].shape)] * times.shape[1]
    if predicted != wanted:
        raise ValueError(
            f"its rollout yields {len(predicted)} predictions of shape {list(predicted[-1:])}, but "
            f"it has to yield {len(wanted)} of {list(wanted[0])}"
        )


def _sample(surrogate: Surrogate, case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Return simulations' parameters [n, p] and times [n, T], and noise [n, T, C, *grid].

    T is enough for a sample, and for a rollout by more than one bundle.
    """
    steps = min(case.solver.stored_steps, max(surrogate.window, surrogate.bundle + 2))
    values = [case.design.even(id) for id in range(_BATCH)]
    times = [np.asarray(case.solver.times(one), dtype=np.float64)[:steps] for one in values]
    return (
        torch.tensor(np.stack(values), dtype=torch.float32),
        torch.tensor(np.stack(times), dtype=torch.float32),
        torch.randn(_BATCH, steps, *case.field_shape),
    )


@contextmanager
def _checked_outputs(surrogate: Surrogate) -> Iterator[None]:
    """Raise ValueError if `forward` returns fields of a wrong shape or type."""
    problem = surrogate.problem

    def check(module: Any, inputs: tuple[Tensor, Tensor], output: Any) -> None:
        shape = (len(inputs[0]), surrogate.bundle * problem.channels, *problem.grid)
        if not isinstance(output, Tensor):
            raise ValueError(f"forward returns a {type(output).__name__}, not a tensor")
        if tuple(output.shape) != shape:
            raise ValueError(
                f"forward returns {list(output.shape)} for a batch of {shape[0]}, but it has to "
                f"return {list(shape)}: samples, fields of the first of the predicted times, then "
                "of the next, and the grid"
            )
        if not output.is_floating_point():
            raise ValueError(
                f"forward returns {str(output.dtype).removeprefix('torch.')}, but fields are real "
                "numbers: return its real part, or float32"
            )

    hook = surrogate.register_forward_hook(check)
    try:
        yield
    finally:
        hook.remove()


def _check_losses(losses: Any) -> None:
    if not isinstance(losses, Tensor) or tuple(losses.shape) != (_BATCH,):
        found = list(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        raise ValueError(
            f"losses returns {found} for a batch of {_BATCH}, but it has to return [{_BATCH}]"
        )
    if losses.is_complex():
        raise ValueError("losses returns complex numbers, but it has to return real ones")
    if not losses.requires_grad:
        raise ValueError(
            "no gradient reaches its parameters: use them in forward, without detach or no_grad"
        )
