"""The sections of a study: their settings, and the checks that need no solver."""

from typing import Annotated, Any, Literal, Self

import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    field_validator,
    model_validator,
)

from framework.errors import did_you_mean
from framework.files import absolute
from framework.study.buffers import BUFFERS
from framework.study.section import Section

Share = Annotated[float, Ge(0), Le(1)]


class BreedConfig(Section):
    """The `design.breed` section of a study: see docs/explanation/sampling.md."""

    # The standard deviation of a mutation, where every parameter's prior is mapped to [0, 1].
    sigma: Annotated[float, Gt(0), Le(1)] = 0.05
    # The share of simulations that are not bred: of the first, and of the last.
    uniform: tuple[Share, Share] = (0.5, 0.25)
    # How many of the latest samples' losses are remembered.
    window: PositiveInt = 2000
    # Weigh each loss by the prior density of its simulation over the density it was drawn with.
    correct: bool = False

    @model_validator(mode="after")
    def _weights_are_bounded(self) -> Self:
        if self.correct and min(self.uniform) == 0:
            raise ValueError(
                f"correct is true, but uniform is {list(self.uniform)}: a weight is at most 1 over "
                "the share of uniform draws, which so has to be above 0"
            )
        return self


class DesignConfig(Section):
    """The `design` section of a study."""

    # How parameters are chosen; `breed` chooses them near simulations with a high loss.
    sampler: Literal["monte_carlo", "halton", "sobol", "latin_hypercube", "breed"] = "sobol"
    simulations: PositiveInt  # to train on, or to fill a store with
    # Bounds that replace the solver's own: name -> [low, high].
    bounds: dict[str, tuple[float, float]] = Field(default_factory=dict)
    # Settings of the sampler `breed`; other samplers have none.
    breed: BreedConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _breed_has_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("sampler") != "breed":
            return values
        return {**values, "breed": {} if values.get("breed") is None else values["breed"]}

    @model_validator(mode="after")
    def _settings_are_of_the_sampler(self) -> Self:
        if self.breed and self.sampler != "breed":
            raise ValueError(
                f"breed was given, but sampler is {self.sampler}: these are settings of the "
                "sampler breed, and of no other"
            )
        return self


class EnsembleConfig(Section):
    """The `ensemble` section of a study."""

    actors: PositiveInt = 1  # solver processes
    # For each solver process; Ray counts in ten-thousandths.
    cpus_per_actor: Annotated[float, Ge(0.001)] = 1.0
    # The share of a GPU for each actor. If above 0, `solve_batch` is told to compute on device
    # cuda, which in the actor's process is the GPU that Ray gave it. No test of this project has
    # run on one.
    gpus_per_actor: Annotated[NonNegativeFloat, Le(1)] = 0.0
    # Simulations that a solver with `solve_batch` runs at once.
    group_size: PositiveInt = 1
    # The longest that one call of the solver may compute, in seconds.
    time_limit: Annotated[float, Gt(0)] = 3600.0
    # The share of simulations that may be quarantined before the run stops.
    max_quarantined: Annotated[NonNegativeFloat, Le(1)] = 0.05
    # The Ray cluster to join; without it RAY_ADDRESS, and without that a local Ray.
    address: str | None = None

    @field_validator("gpus_per_actor")
    @classmethod
    def _is_countable(cls, value: float) -> float:
        if 0 < value < 0.001:
            raise ValueError(
                f"it is {value:g}, but has to be 0, or at least 0.001 for Ray to count it"
            )
        return value


class BufferConfig(Section):
    """The `buffer` section of a study."""

    # fifo, firo, reservoir, or an import path such as my_package.buffer:Mine.
    kind: str = "reservoir"
    capacity: PositiveInt  # samples
    watermark: NonNegativeInt = 0  # samples
    # Samples drawn per sample received, [least, most], between the first passing of the watermark
    # and the end of reception.
    replay: tuple[float, float] = (1.0, 1.0)
    device: Literal["cpu", "cuda"] = "cpu"  # where the samples are kept

    @field_validator("kind")
    @classmethod
    def _kind_is_known(cls, value: str) -> str:
        if value not in BUFFERS and ":" not in value:
            raise ValueError(
                f"it is {value}, but has to be one of {', '.join(BUFFERS)}, or an import path such "
                f"as my_package.buffer:Mine{did_you_mean(value, BUFFERS)}"
            )
        return value

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        least, most = self.replay
        known = BUFFERS.get(self.kind)
        given = f"replay is [{least}, {most}]"
        if least > most:
            raise ValueError(f"{given}: the least has to come first, then the most")
        if known and not known.redraws and self.replay != (1, 1):
            raise ValueError(
                f"{given}, but a {self.kind} draws every sample exactly 1 time: it has to be "
                "[1, 1], or the kind reservoir"
            )
        if least < 1:
            raise ValueError(f"{given}: the least has to be 1 or more, so that no sample is lost")
        if known and not known.waits and self.watermark:
            raise ValueError(
                f"watermark is {self.watermark}, but a {self.kind} has none: it has to be 0, or "
                "the kind firo or reservoir"
            )
        if self.watermark >= self.capacity:
            raise ValueError(
                f"watermark is {self.watermark}: it has to be below the capacity, "
                f"{self.capacity}, or it is never passed"
            )
        return self


class Stop(Section):
    """When training ends: after optimiser steps, samples drawn, or seconds of training.

    With none of them training ends when it is drained: every simulation has ended and the buffer is
    empty; in a study this is written `stop: drained`. Training always ends there.
    """

    steps: PositiveInt | None = None
    samples: PositiveInt | None = None
    seconds: PositiveFloat | None = None

    @model_validator(mode="before")
    @classmethod
    def _drained(cls, value: Any) -> Any:
        if value == "drained":
            return {}
        if isinstance(value, dict | Stop):
            return value
        raise ValueError("must be drained, or one limit such as {steps: 1000}")

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        if len([limit for limit in (self.steps, self.samples, self.seconds) if limit]) > 1:
            raise ValueError("give only one of steps, samples and seconds")
        return self


class TrainingConfig(Section):
    """The `training` section of a study."""

    # Processes that train, each on a stream of its own; their gradients are summed. Each has a
    # share of the solver processes, and the batch, the buffer and the watermark of the study.
    ranks: PositiveInt = 1
    batch_size: PositiveInt = 10  # of one rank
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    # Linear from 0 to the learning rate over this many optimiser steps, before the schedule.
    warmup_steps: NonNegativeInt = 0
    # `cosine` falls to 0 as the run proceeds towards its stop.
    schedule: Literal["constant", "cosine"] = "constant"
    precision: Literal["float32", "float64", "bfloat16"] = "float32"  # of the network
    stop: Stop = Stop()
    # A trained surrogate to start from, a run or a model: its weights and its normalisation.
    initial: str | None = None
    # A store to train from instead of the stream, `epochs` times on each of its samples.
    source: str | None = None
    epochs: PositiveInt = 1
    # How many of the store's complete simulations to train on, the first ones; all by default.
    simulations: PositiveInt | None = None

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        if self.epochs > 1 and self.source is None:
            raise ValueError(
                f"epochs is {self.epochs}, but a stream passes once: give training.source a "
                "store, or draw samples more often with buffer.replay"
            )
        if self.simulations and self.source is None:
            raise ValueError(
                f"simulations is {self.simulations}, but it is for a store: give training.source "
                "one, or set design.simulations"
            )
        return self


class ValidationConfig(Section):
    """The `validation` section of a study."""

    # Held-out simulations; they are run before the others.
    simulations: int = Field(default=20, ge=2)
    # Optimiser steps between two validations; there is always one at the end.
    every_steps: PositiveInt = 500
    cpus: PositiveFloat = 1.0  # for scoring, which is a Ray task


Keep = Literal["all", "last", "none"] | Annotated[int, Field(strict=True, ge=1)]


class StoreConfig(Section):
    """The `store` section of a study."""

    # A directory or a URL; without one stores/NAME.zarr under the current directory.
    path: Annotated[str, StringConstraints(min_length=1)] | None = None
    # Which stored steps; a number n keeps the steps 0, n, 2n ... With `none` there is no store.
    keep: Keep = "all"
    dtype: Literal["float32", "float16"] = "float32"
    compression: Literal["none", "lz4", "zstd"] = "lz4"
    # Whether to continue a store that other code of the solver has begun. The store then says which
    # simulations are by which code.
    accept_code_change: bool = False

    @field_validator("keep", mode="before")
    @classmethod
    def _keep_is_known(cls, value: Any) -> Any:
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not whole and value not in ("all", "last", "none"):
            raise ValueError(
                f"it is {value!r}, but has to be all, last, none, or a number of steps from 1 on"
            )
        return value

    def location(self, study: str) -> str:
        """Return where the store of a study with this name is: an absolute path or a URL."""
        return absolute(self.path or f"stores/{study}.zarr")


def kept_steps(keep: Keep, stored_steps: int) -> NDArray[np.int64]:
    """Return which of a simulation's stored steps are kept [K]."""
    if keep == "last":
        return np.array([stored_steps - 1])
    return np.arange(0, stored_steps, keep if isinstance(keep, int) else 1)


class TrackingConfig(Section):
    """The `tracking` section of a study."""

    # MLflow's; by default MLFLOW_TRACKING_URI, or else sqlite:///mlflow.db. `none`: no tracking.
    uri: str | None = None
    experiment: Annotated[str, StringConstraints(min_length=1)] = "millstream"  # in MLflow


class CheckpointConfig(Section):
    """The `checkpoint` section of a study."""

    every_seconds: PositiveFloat = 60.0  # between two checkpoints
    keep: PositiveInt = 2  # how many of the last ones
