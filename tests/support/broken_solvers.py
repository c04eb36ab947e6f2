"""A sound solver, and solvers that are each broken in one way."""

import itertools
import threading
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from solvers.base import BatchSolver, Field, Grid, Order, Parameter, ParameterSpace, Solver

Values = NDArray[np.float64]


class Decay(BatchSolver):
    """du/dt = -rate u by explicit Euler, on a circle; u is amplitude (1 + d/dx sin x) at first,
    the derivative by central differences."""

    parameters = ParameterSpace(
        Parameter("rate", 0.1, 2.0, prior="log_uniform"), Parameter("amplitude", 1.0, 2.0)
    )
    fields = (Field("u"),)
    order = Order(space=2, time=1)
    uses_seed = True

    def __init__(
        self,
        points: Annotated[int, Ge(2)] = 16,
        stored_steps: Annotated[int, Ge(1)] = 5,
        substeps: Annotated[int, Ge(1)] = 4,
    ) -> None:
        self.grid = Grid((points,), (1 / points,))
        self.stored_steps = stored_steps
        self.substeps = substeps

    def times(self, parameters: Values) -> Values:
        return np.linspace(0, 1, self.stored_steps)

    def initial(self, parameters: Values, seeds: NDArray[np.uint64]) -> Values:
        """The fields [B, 1, *grid] at the first time."""
        h = 2 * np.pi * self.grid.spacing[0]
        shift = np.array([np.random.default_rng(int(seed)).random() for seed in seeds])
        x = h * np.arange(self.grid.shape[0]) + shift[:, None, None]
        slope = (np.sin(x + h) - np.sin(x - h)) / (2 * h)
        start: Values = parameters[:, 1, None, None] * (1 + slope)
        return start

    def solve_batch(
        self, parameters: Values, seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        u = self.initial(parameters, seeds)
        step = 1 / (self.stored_steps - 1) / self.substeps
        yield u.astype(np.float32)
        for _ in range(self.stored_steps - 1):
            for _ in range(self.substeps):
                u = u - step * parameters[:, 0, None, None] * u
            yield u.astype(np.float32)


class WrongShape(Decay):
    def solve(self, parameters: Values, seed: int) -> Iterator[NDArray[np.float32]]:
        return (fields[0] for fields in super().solve(parameters, seed))


class OneStepTooFew(Decay):
    def solve(self, parameters: Values, seed: int) -> Iterator[NDArray[np.float32]]:
        return itertools.islice(super().solve(parameters, seed), self.stored_steps - 1)


class Endless(Decay):
    def solve(self, parameters: Values, seed: int) -> Iterator[NDArray[np.float32]]:
        return itertools.cycle([np.zeros((1, *self.grid.shape), dtype=np.float32)])


class Complex(Decay):
    def solve(self, parameters: Values, seed: int) -> Iterator[NDArray[np.float32]]:
        for fields in super().solve(parameters, seed):
            yield fields * np.complex64(1)  # type: ignore[misc]


class SaysNothingOfItsSeed(Decay):
    uses_seed = False


class OneStartOnly(Decay):
    def initial(self, parameters: Values, seeds: NDArray[np.uint64]) -> Values:
        return super().initial(parameters, 0 * seeds)


class Unseeded(Decay):
    def initial(self, parameters: Values, seeds: NDArray[np.uint64]) -> Values:
        noise: Values = np.random.default_rng().random((len(seeds), 1, *self.grid.shape))
        return noise


class Remembering(Decay):
    """Starts from where the last simulation ended."""

    runs = 0

    def initial(self, parameters: Values, seeds: NDArray[np.uint64]) -> Values:
        self.runs += 1
        return super().initial(parameters, seeds) + self.runs


class NotFinite(Decay):
    """Where the rate is highest and the amplitude lowest."""

    def initial(self, parameters: Values, seeds: NDArray[np.uint64]) -> Values:
        start = super().initial(parameters, seeds)
        start[(parameters[:, 0] > 1.99) & (parameters[:, 1] < 1.01)] = np.nan
        return start


class WrongOrderInTime(Decay):
    order = Order(space=2, time=2)


class WrongOrderInSpace(Decay):
    """One end of its difference is missing."""

    def initial(self, parameters: Values, seeds: NDArray[np.uint64]) -> Values:
        return super().initial(parameters, seeds) + np.sin(self.grid.spacing[0])


class NotSpectral(Decay):
    order = Order(space=np.inf, time=1)


class NoiseOnEveryPoint(Decay):
    def initial(self, parameters: Values, seeds: NDArray[np.uint64]) -> Values:
        drawn = [np.random.default_rng(int(s)).random((1, *self.grid.shape)) for s in seeds]
        return np.stack(drawn)


class BatchDiffers(Decay):
    """Takes the first row's rate for all."""

    def solve_batch(
        self, parameters: Values, seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        rows = parameters.copy()
        rows[:, 0] = parameters[0, 0]
        return super().solve_batch(rows, seeds, device)


class TimesGoBack(Decay):
    def times(self, parameters: Values) -> Values:
        return super().times(parameters)[::-1]


class TooManyTimes(Decay):
    def times(self, parameters: Values) -> Values:
        return np.linspace(0, 1, self.stored_steps + 1)


class RefusesItsBounds(Decay):
    def check(self, parameters: ParameterSpace) -> None:
        raise ValueError("the step is unstable")


class NoGrid(Decay):
    def __init__(self) -> None:
        self.stored_steps, self.substeps = 5, 4


class SpacingOfAnotherGrid(Decay):
    def __init__(self) -> None:
        super().__init__()
        self.grid = Grid((16,), (0.1, 0.1))


class WithLock(Decay):
    """Cannot be pickled once it has settings of this kind."""

    def __init__(self, lock: object = None) -> None:
        super().__init__()
        self.lock = lock


class Imaged(Decay):
    """Its mask shrinks as the threshold rises."""

    masks: Mapping[str, tuple[float, ...]] = MappingProxyType({"high": (0.5, 1.0, 1.5)})

    def observe(
        self, fields: NDArray[np.float32], **settings: float
    ) -> dict[str, NDArray[np.float32] | NDArray[np.bool_]]:
        if set(settings) - {"high"}:
            raise ValueError("no such setting")
        return {"u": fields[0], "high": fields[0] > settings.get("high", 1.0)}


class MaskGrows(Imaged):
    def observe(
        self, fields: NDArray[np.float32], **settings: float
    ) -> dict[str, NDArray[np.float32] | NDArray[np.bool_]]:
        return {**super().observe(fields, **settings), "high": fields[0] < settings.get("high", 1)}


class ObservesASum(Imaged):
    def observe(
        self, fields: NDArray[np.float32], **settings: float
    ) -> dict[str, NDArray[np.float32] | NDArray[np.bool_]]:
        return {**super().observe(fields, **settings), "u": fields[0] / fields[0].sum()}


class Hangs(Solver):
    """Waits for what never happens."""

    parameters = ParameterSpace(Parameter("a", 0.0, 1.0))
    fields = (Field("u"),)
    order = Order(space=1, time=1)
    grid = Grid((4,), (0.25,))
    stored_steps = 3

    def times(self, parameters: Values) -> Values:
        return np.arange(3.0)

    def solve(self, parameters: Values, seed: int) -> Iterator[NDArray[np.float32]]:
        yield np.zeros((1, 4), dtype=np.float32)
        threading.Event().wait()


class Slow(Hangs):
    """Never gets to the end, but from step to step."""

    stored_steps = 10**9

    def times(self, parameters: Values) -> Values:
        return np.arange(2.0)

    def solve(self, parameters: Values, seed: int) -> Iterator[NDArray[np.float32]]:
        while True:
            yield np.zeros((1, 4), dtype=np.float32)
