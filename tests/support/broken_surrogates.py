"""A sound surrogate of a user's, and surrogates that are each broken in one way."""

import math
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from surrogates.base import Mode, Problem, Surrogate


class Sound(Surrogate):
    """A perceptron with one hidden layer."""

    def __init__(self, problem: Problem, mode: Mode = "direct", hidden: int = 64) -> None:
        super().__init__(problem, mode)
        points = math.prod(problem.grid)
        self.first = nn.Linear(self.conditions + self.state_channels * points, hidden)
        self.last = nn.Linear(hidden, self.bundle * problem.channels * points)

    def forward(self, conditions: Tensor, state: Tensor) -> Tensor:
        hidden = self.hidden(torch.cat([conditions, state.flatten(1)], 1))
        output: Tensor = self.last(hidden)
        return output.view(len(output), -1, *self.problem.grid)

    def hidden(self, inputs: Tensor) -> Tensor:
        activated: Tensor = torch.tanh(self.first(inputs))
        return activated


class OnlyLines(Sound):
    """Refuses grids of more than one axis."""

    def __init__(self, problem: Problem, mode: Mode = "direct") -> None:
        if len(problem.grid) > 1:
            raise ValueError("the grid has more than one axis")
        super().__init__(problem, mode)


class RefusesEveryGrid(Sound):
    def __init__(self, problem: Problem, mode: Mode = "direct") -> None:
        raise ValueError("no grid will do")


class FlatOutput(Sound):
    def forward(self, conditions: Tensor, state: Tensor) -> Tensor:
        return super().forward(conditions, state).flatten(1)


class NotFinite(Sound):
    def hidden(self, inputs: Tensor) -> Tensor:
        return super().hidden(inputs) / 0


class MixesSamples(Sound):
    def hidden(self, inputs: Tensor) -> Tensor:
        hidden = super().hidden(inputs)
        return hidden - hidden.mean(0)


class Detached(Sound):
    def hidden(self, inputs: Tensor) -> Tensor:
        return super().hidden(inputs).detach()


class NothingToTrain(Surrogate):
    def forward(self, conditions: Tensor, state: Tensor) -> Tensor:
        channels = self.bundle * self.problem.channels
        return conditions.new_zeros(len(conditions), channels, *self.problem.grid)


class OtherWeights(Sound):
    """Draws its weights from a generator that torch.manual_seed does not set."""

    def __init__(self, problem: Problem, mode: Mode = "direct") -> None:
        super().__init__(problem, mode)
        generator = torch.Generator()
        generator.seed()
        with torch.no_grad():
            self.first.weight.copy_(torch.rand(self.first.weight.shape, generator=generator))


class NotSaved(Sound):
    def __init__(self, problem: Problem, mode: Mode = "direct") -> None:
        super().__init__(problem, mode)
        self.scale = torch.rand(())  # neither a parameter nor a buffer

    def hidden(self, inputs: Tensor) -> Tensor:
        return super().hidden(inputs) * self.scale


class ScaleNotSaved(Sound):
    """Keeps a number of the normalisation for itself."""

    scale = 1.0

    def normalise_fields(self, mean: Tensor, std: Tensor, change: Tensor) -> None:
        super().normalise_fields(mean, std, change)
        self.scale = float(std.mean())

    def hidden(self, inputs: Tensor) -> Tensor:
        return super().hidden(inputs) * self.scale


class OnePrecision(Sound):
    """Has a factor that stays in single precision."""

    def hidden(self, inputs: Tensor) -> Tensor:
        return super().hidden(inputs) @ torch.eye(self.first.out_features)


class UnknownPrecision(Sound):
    precisions = ("float32", "float16")


class IgnoresTheTime(Sound):
    """Cannot learn: it is not told the time."""

    def hidden(self, inputs: Tensor) -> Tensor:
        kept = torch.ones(inputs.shape[1])
        kept[2] = 0
        return super().hidden(inputs * kept)


class Raises(Sound):
    def hidden(self, inputs: Tensor) -> Tensor:
        raise RuntimeError("the device is lost")


class Branches(Sound):
    """Computes one thing or another, as the values are."""

    def hidden(self, inputs: Tensor) -> Tensor:
        hidden = super().hidden(inputs)
        return hidden if hidden.sum() > 0 else -hidden


class Random(Sound):
    """Draws at random while it predicts."""

    def hidden(self, inputs: Tensor) -> Tensor:
        return super().hidden(inputs) * torch.rand(())


class NeverEnds(Sound):
    """Computes for ever, once it has written the file `begun`."""

    def hidden(self, inputs: Tensor) -> Tensor:
        Path("begun").touch()
        while True:
            torch.ones(300, 300) @ torch.ones(300, 300)


# Sound ones that are unusual.


class ZeroAtFirst(Sound):
    """Its last layer starts with zeros."""

    def __init__(self, problem: Problem, mode: Mode = "direct") -> None:
        super().__init__(problem, mode)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)


class DoubleOnly(Sound):
    precisions = ("float64",)

    def hidden(self, inputs: Tensor) -> Tensor:
        assert inputs.dtype == torch.float64
        return super().hidden(inputs)


class SquaresOnly(Sound):
    def __init__(self, problem: Problem, mode: Mode = "direct") -> None:
        if len(set(problem.grid)) < len(problem.grid) or len(problem.grid) == 1:
            super().__init__(problem, mode)
        else:
            raise ValueError("the grid is no square")


class WithDropout(Sound):
    def hidden(self, inputs: Tensor) -> Tensor:
        return nn.functional.dropout(super().hidden(inputs), 0.1, self.training)


class OneMode(Sound):
    """Has no setting `mode`."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem, "autoregressive")


class OneModeNamed(Sound):
    def __init__(self, problem: Problem, mode: Literal["autoregressive"]) -> None:
        super().__init__(problem, mode)
