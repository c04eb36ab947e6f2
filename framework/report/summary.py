"""The outcome of a training run, as typed plain data; its JSON is `summary.json` and `--json`.

Every field has the name of its key in the JSON. A number that is not finite is null there.
"""

import math
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from framework.training.results import Scores


@dataclass(frozen=True)
class SimulationCounts:
    """Training simulations, without the held-out ones."""

    requested: int
    completed: int
    quarantined: int


@dataclass(frozen=True)
class FailedSimulation:
    """A simulation that was quarantined at a stored step, with its last error."""

    simulation: int
    parameters: dict[str, float]
    step: int
    error: str


@dataclass(frozen=True)
class SampleCounts:
    """Counts of different samples; only `drawn` counts every draw.

    `produced` were delivered by the solvers, or are in the store that is trained from; `received`
    have entered the buffer.
    """

    produced: int
    received: int
    unique_trained: int
    untrained: int
    drawn: int
    stored: int


@dataclass(frozen=True)
class TrainingFigures:
    """Figures of the training loop.

    `seconds` are those of optimiser steps and of waiting for them, since the first batch;
    `seconds_to_end` those of the run until training was done, with the wait for the first batch.
    """

    steps: int
    steps_while_simulating: int
    samples_per_second: float
    wait_fraction: float
    loss: float  # of the last optimiser step, in normalised units
    seconds: float
    seconds_to_end: float
    device: str


@dataclass(frozen=True)
class StepCost:
    """The cost of an optimiser step, see `surrogates.cost.Cost`."""

    parameters: int
    flops: int
    memory_bytes: int


@dataclass(frozen=True)
class Waits:
    """The share (0 to 1) of the time while simulating that each part waited.

    Solvers waited to hand over their steps, training for a batch, transport (the receiver) for the
    solvers. `redraws`: instead of waiting, training drew samples more often than `buffer.replay`
    asks for at least; unknown and 0 in runs made before it was measured.
    """

    solvers: float
    training: float
    transport: float
    redraws: float = 0.0


@dataclass(frozen=True)
class CheckpointFigures:
    """How many checkpoints were written, and the seconds that training stood still for them."""

    count: int
    seconds: float


@dataclass(frozen=True)
class BreedingFigures:
    """How many simulations were bred and how many drawn uniformly.

    `seconds`: the processor time of deciding; `share`: its share of the run.
    """

    bred: int
    uniform: int
    seconds: float
    share: float


@dataclass(frozen=True)
class RegisteredModel:
    """The surrogate as a registered model of MLflow."""

    name: str
    version: str


@dataclass(frozen=True)
class TrackedRun:
    """The run in MLflow; `run_id` is None until MLflow was reached."""

    tracking_uri: str
    run_id: str | None


@dataclass(frozen=True)
class Summary:
    """The outcome of a training run. None stands for a part that the run does not have."""

    run_dir: str
    status: str  # "new", "done", "failed" or "interrupted"
    source: dict[str, Any] | None  # the identity of the store that was trained from
    store: str | None  # the path of the store that was written
    simulations: SimulationCounts
    quarantined: tuple[FailedSimulation, ...]
    samples: SampleCounts
    training: TrainingFigures
    surrogate: StepCost | None
    wait: Waits
    validation: Scores | None
    checkpoint: CheckpointFigures
    breeding: BreedingFigures | None
    model: RegisteredModel | None
    mlflow: TrackedRun | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON; a number that is not finite becomes None."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    @classmethod
    def from_json(cls, values: object) -> "Summary":
        """Return the summary that `to_json` turned into these values.

        A None in place of a number becomes NaN. Raises ValueError if they are not those of a
        summary.
        """
        try:
            summary: Summary = _typed(cls, values)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"this is not the summary of a run: {error!r}") from None
        return summary


@dataclass(frozen=True)
class StoreSummary:
    """The outcome of simulating into a store; `bytes` is the store's size on disk."""

    store: str
    simulations: SimulationCounts
    quarantined: tuple[FailedSimulation, ...]
    bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _typed(kind: Any, value: Any) -> Any:
    """Return a value of JSON as the type that is declared for it."""
    if isinstance(kind, type) and is_dataclass(kind):
        types = get_type_hints(kind)
        # A key that an earlier version did not write has the field's default.
        absent = {field.name for field in fields(kind) if field.default is not MISSING} - {*value}
        return kind(**{key: _typed(types[key], value[key]) for key in types if key not in absent})
    arguments = get_args(kind)
    if get_origin(kind) is UnionType:
        return None if value is None else _typed(arguments[0], value)
    if get_origin(kind) is tuple:
        return tuple(_typed(arguments[0], item) for item in value)
    if get_origin(kind) is dict:
        return {key: _typed(arguments[1], item) for key, item in value.items()}
    if kind is float:
        return math.nan if value is None else float(value)
    return value
