"""The cost of one optimiser step of a surrogate, counted while computing one.

The floating-point operations of matrix products, convolutions and Fourier transforms are counted;
those done point by point are not, as elsewhere in the field.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class Cost:
    """The cost of an optimiser step with Adam."""

    parameters: int  #: real numbers: a complex weight counts as two
    flops: int  #: of the forward and the backward pass
    #: Weights, normalisation, gradients, Adam's two moments, and what the forward pass keeps for
    #: the backward pass; not the passes' own short-lived arrays, nor the batch.
    memory_bytes: int


def counted(module: torch.nn.Module, loss: Callable[[], Tensor]) -> Cost:
    """Return the cost of the forward and the backward pass of `loss`, computing them once.

    The module's gradients stay as they are.
    """
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    own = {tensor.untyped_storage().data_ptr() for tensor in (*weights, *module.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False, custom_mapping=_FLOPS) as counter:
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            value = loss()
        torch.autograd.grad(value, weights, allow_unused=True)
    size = sum(weight.nbytes for weight in weights)
    buffers = sum(buffer.nbytes for buffer in module.buffers())
    return Cost(
        parameters=sum(weight.numel() * (1 + weight.is_complex()) for weight in weights),
        flops=counter.get_total_flops(),
        memory_bytes=4 * size + buffers + sum(kept.values()),
    )


def counted_flops(compute: Callable[[], object]) -> int:
    """Count the operations of whatever `compute` does, without gradient."""
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_FLOPS) as counter:
        compute()
    return int(counter.get_total_flops())


def _raw(count: Callable[..., int]) -> Callable[..., int]:
    """Make torch's counter pass the tensors themselves, not only their shapes."""
    count._get_raw = True  # type: ignore[attr-defined]
    return count


@_raw
def _product(*arguments: Any, out_val: Any = None, **options: Any) -> int:
    """Count mm, bmm, addmm and baddbmm, by the last two tensors [.., a, b] and [.., b, c]."""
    left, right = [argument for argument in arguments if isinstance(argument, Tensor)][-2:]
    multiply_add = 8 if left.is_complex() else 2
    return multiply_add * left.numel() * int(right.shape[-1])


@_raw
def _fourier(field: Tensor, axes: list[int], *arguments: Any, out_val: Any, **options: Any) -> int:
    """Count 5 n log2 n for each complex transform of n points, half if one side is real.

    Frigo and Johnson 2005, The design and implementation of FFTW3.
    """
    both_complex = field.is_complex() and out_val.is_complex()
    whole = out_val if not out_val.is_complex() else field
    points = math.prod(whole.shape[axis] for axis in axes)
    return round((5 if both_complex else 2.5) * whole.numel() * math.log2(points))


_FLOPS: dict[Any, Callable[..., int]] = {
    **dict.fromkeys((_ATEN.mm, _ATEN.bmm, _ATEN.addmm, _ATEN.baddbmm), _product),
    **dict.fromkeys((_ATEN._fft_r2c, _ATEN._fft_c2r, _ATEN._fft_c2c), _fourier),
}
