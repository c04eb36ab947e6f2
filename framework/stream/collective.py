"""Sums over the ranks of a data-parallel run; with one rank nothing is communicated.

The ranks are those of `torch.distributed`, if whoever started the process has initialised it.
Counts are on the CPU, gradients on the training device: with GPUs the backend is
`cpu:gloo,cuda:nccl`.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the elementwise sum of the ranks' tensors; may change `tensor`."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def sum_counts(*counts: float) -> list[float]:
    """Return the sums of the ranks' counts."""
    if not (dist.is_available() and dist.is_initialized()):
        return [*counts]
    totals: list[float] = sum_over_ranks(torch.tensor(counts, dtype=torch.float64)).tolist()
    return totals


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace every gradient by its sum over ranks, in one message; a missing one is zero."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    real = [
        torch.view_as_real(parameter.grad) if parameter.is_complex() else parameter.grad
        for parameter in parameters
        if parameter.grad is not None
    ]
    flat = sum_over_ranks(torch.cat([gradient.flatten() for gradient in real]))
    totals = torch.split(flat, [gradient.numel() for gradient in real])
    for gradient, total in zip(real, totals, strict=True):
        gradient.copy_(total.view_as(gradient))
