"""Sums over the ranks of a data-parallel run; with one rank nothing is communicated.

The ranks are those of `torch.distributed`, if whoever started the process has initialised it.
Counts are on the CPU, gradients on the training device: with GPUs the backend is
`cpu:gloo,cuda:nccl`. If a rank has died, or does not answer in time, the others raise
RankLostError.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from framework.errors import RunError

# Gradients are summed in messages of about this size, as soon as all that belong to one are there:
# large enough to be moved at full speed, small enough to be moved while others are computed.
BUCKET_BYTES = 4 * 2**20


class RankLostError(RunError):
    """Another rank has died, or does not answer."""


@contextmanager
def _answered() -> Iterator[None]:
    """Turn torch's error about a rank that does not answer into a RankLostError."""
    try:
        yield
    except RuntimeError as error:
        raise RankLostError(f"another rank does not answer: {str(error).splitlines()[0]}") from None


def alone() -> bool:
    """Return whether there is no other rank."""
    return not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the elementwise sum of the ranks' tensors; may change `tensor`."""
    if not alone():
        with _answered():
            dist.all_reduce(tensor)
    return tensor


def sum_counts(*counts: float) -> list[float]:
    """Return the sums of the ranks' counts."""
    if alone():
        return [*counts]
    totals: list[float] = sum_over_ranks(torch.tensor(counts, dtype=torch.float64)).tolist()
    return totals


class GradientSum:
    """Replaces gradients by their sums over ranks, while the backward pass goes on.

    As in DistributedDataParallel (Li et al., arXiv 2006.15704), gradients are sent in buckets in
    about the order in which they become ready. Unlike it, this takes complex weights, ranks without
    a batch, and weights that a loss does not depend on: a missing gradient counts as zero.

        begin(loss); loss.backward(); finish()    in every rank, in every optimiser step
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.seconds = 0.0  # in `finish`, waiting for what was not summed by then
        self.bytes = 0  # sent by this rank
        self.messages = 0
        self._active = False
        self._buckets = [] if alone() else _in_buckets(parameters)
        self._bucket_of = {id(one): bucket for bucket in self._buckets for one in bucket.parameters}
        self._next = 0  # the bucket to send next: in the same order in all ranks
        self._loss: tuple[Tensor, Any] | None = None
        if not alone():
            for parameter in parameters:
                hooked: Any = parameter  # torch gives this no types
                hooked.register_post_accumulate_grad_hook(self._ready)

    def begin(self, loss: Tensor) -> None:
        """Sum a loss over ranks, and from now on the gradients that become ready."""
        if alone():
            return
        self._active, self._next = True, 0
        for bucket in self._buckets:
            bucket.missing = len(bucket.parameters)
        # A copy: the backward pass still needs the loss.
        self._loss = self._send(loss.detach().clone())

    def finish(self, loss: Tensor) -> Tensor:
        """Wait until all gradients are summed; return the sum of the losses given to `begin`.

        `loss`: that of this rank.
        """
        if self._loss is None:
            return loss.detach()
        began = time.monotonic()
        self._active = False
        self._send_buckets(whole=False)
        total, work = self._loss
        with _answered():
            for bucket in self._buckets:
                bucket.take()
            work.wait()
        self.seconds += time.monotonic() - began
        return total

    def _ready(self, parameter: Tensor) -> None:
        """Count a gradient that is ready; send the buckets that are whole."""
        if self._active:
            self._bucket_of[id(parameter)].missing -= 1
            self._send_buckets(whole=True)

    def _send_buckets(self, whole: bool) -> None:
        """Send the next buckets; with `whole` only while every gradient of them is ready."""
        while self._next < len(self._buckets):
            bucket = self._buckets[self._next]
            if whole and bucket.missing:
                return
            bucket.sent = self._send(bucket.flat())
            self._next += 1

    def _send(self, tensor: Tensor) -> tuple[Tensor, Any]:
        self.bytes += tensor.numel() * tensor.element_size()
        self.messages += 1
        with _answered():
            return tensor, dist.all_reduce(tensor, async_op=True)


class _Bucket:
    """Parameters whose gradients are summed in one message; complex ones as pairs of numbers."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters = parameters
        self.missing = 0  # gradients that are not ready yet
        self.sent: tuple[Tensor, Any] | None = None  # the message, and what to wait for

    def flat(self) -> Tensor:
        """Return all gradients in a row."""
        return torch.cat([gradient.flatten() for gradient in self._gradients()])

    def take(self) -> None:
        """Wait for the sums, and put them in the place of the gradients."""
        assert self.sent is not None
        (total, work), self.sent = self.sent, None
        work.wait()
        gradients = self._gradients()
        parts = torch.split(total, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def _gradients(self) -> list[Tensor]:
        found = []
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            found.append(
                torch.view_as_real(parameter.grad) if parameter.is_complex() else parameter.grad
            )
        return found


def _in_buckets(parameters: Sequence[Tensor]) -> list[_Bucket]:
    """Divide parameters, the last ones first: their gradients are ready first."""
    buckets: list[list[Tensor]] = []
    room = 0
    for parameter in reversed(parameters):
        size = parameter.numel() * parameter.element_size()
        if not buckets or size > room or parameter.real.dtype != buckets[-1][0].real.dtype:
            buckets.append([])
            room = BUCKET_BYTES
        buckets[-1].append(parameter)
        room -= size
    return [_Bucket(bucket) for bucket in buckets]
