"""A surrogate that fails to train, with one seed."""

import torch
from torch import Tensor

from framework.study.streams import Stream, derived_seed
from surrogates.mlp import Mlp


class Fragile(Mlp):
    """Diverges in the runs of seed 1."""

    def forward(self, conditions: Tensor, state: Tensor) -> Tensor:
        output = super().forward(conditions, state)
        fails = self.training and torch.initial_seed() == derived_seed(1, Stream.WEIGHTS)
        return output * torch.nan if fails else output
