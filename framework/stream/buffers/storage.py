"""The samples of a buffer, each in a place of its own, in memory allocated once.

Shapes: n samples, w stored steps in each, p parameters, C fields, `*grid` the grid's axes.
"""

import numpy as np
import torch
from torch import Tensor

from framework.stream.buffers.order import Indices
from framework.stream.samples import Batch, Samples, SampleShape


class Storage:
    """Places for `capacity` samples, on the CPU or on a GPU."""

    def __init__(self, capacity: int, shape: SampleShape, device: str) -> None:
        """`device`: a torch device name. Raises RuntimeError if the device has no room."""
        self.simulation: Indices = np.empty(capacity, dtype=np.int64)
        self._first_step: Indices = np.empty(capacity, dtype=np.int64)
        self._device = device
        sizes = ((shape.parameters,), (shape.window,), (shape.window, *shape.fields))
        self._tensors = tuple(
            torch.empty(capacity, *size, dtype=torch.float32, device=device) for size in sizes
        )

    def write(self, places: Indices, samples: Samples) -> None:
        """Copy samples [n] to these places [n]."""
        self.simulation[places] = samples.simulation
        self._first_step[places] = samples.first_step
        arrays = (samples.parameters, samples.times, samples.fields)
        for held, array in zip(self._tensors, arrays, strict=True):
            # The arrays may be views that overlap: numpy copies those directly.
            if held.device.type == "cpu":
                held.numpy()[places] = array
            else:
                held[torch.from_numpy(places)] = torch.tensor(array, device=held.device)

    def read(self, places: Indices) -> Batch:
        """Return copies of the samples at these places [n]."""
        # On a GPU this and `write` run one after another, both being on the default stream.
        index = torch.from_numpy(places).to(self._device)
        parameters, times, fields = (held.index_select(0, index) for held in self._tensors)
        return Batch(self.simulation[places], self._first_step[places], parameters, times, fields)


def as_tensors(samples: Samples | Batch) -> dict[str, Tensor]:
    """Copy the arrays of samples to the CPU as tensors, for a checkpoint."""
    return {
        name: array.cpu() if isinstance(array, Tensor) else torch.tensor(array)
        for name, array in vars(samples).items()
    }


def as_samples(tensors: dict[str, Tensor]) -> Samples:
    """Return the samples that `as_tensors` was given."""
    return Samples(**{name: tensor.numpy() for name, tensor in tensors.items()})
