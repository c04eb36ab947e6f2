"""A study: one YAML file that says what to simulate, and what to learn from it.

The checks here need neither the solver nor the surrogate, and import neither; `Case` (case.py) and
`training.surrogate` check the rest.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator

from framework.errors import StudyError
from framework.files import write_text
from framework.study.component import (
    SOLVER,
    SURROGATE,
    Component,
    check_settings,
    explain,
    plain_settings,
)
from framework.study.overrides import override
from framework.study.reading import RepeatedError, read_yaml, write_yaml
from framework.study.section import Section
from framework.study.sections import (
    BufferConfig,
    CheckpointConfig,
    DesignConfig,
    EnsembleConfig,
    StoreConfig,
    TrackingConfig,
    TrainingConfig,
    ValidationConfig,
)


class Study(Section):
    """A whole study. Raises pydantic's ValidationError, or StudyError when read from a file."""

    # Names the run's folder, runs/NAME, and the store, stores/NAME.zarr.
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    # Every random stream is derived from it: parameters, initial weights, what a buffer draws.
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    solver: Component  # what is simulated
    design: DesignConfig  # which simulations
    ensemble: EnsembleConfig = EnsembleConfig()  # on which processes
    buffer: BufferConfig  # what holds the samples
    surrogate: Component  # what learns from them
    training: TrainingConfig = TrainingConfig()  # and how
    validation: ValidationConfig = ValidationConfig()  # how it is judged
    store: StoreConfig = StoreConfig()  # what is kept of the simulations
    tracking: TrackingConfig = TrackingConfig()  # where the run is tracked
    checkpoint: CheckpointConfig = CheckpointConfig()  # what an interrupted run goes on from
    # Two runs, or one that was interrupted, train alike to the bit; needs one solver actor a rank.
    deterministic: bool = False

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Read a YAML file; `overrides` are of the form `section.key=value`, each key given once.

        Raises StudyError.
        """
        values = _read_mapping(Path(path))
        override(values, overrides)
        return cls.of(values, f"{path}: ")

    @classmethod
    def of(cls, values: Mapping[str, Any], prefix: str = "") -> Self:
        """Check a mapping with the sections of a study.

        Raises StudyError, whose message begins with `prefix`.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise StudyError(f"{prefix}{explain(error, cls)}") from None

    def save(self, path: Path) -> None:
        """Write the study with every default filled in. Raises WriteError."""
        write_text(path, write_yaml(self.model_dump(mode="json")))

    @property
    def other_cpus(self) -> float:
        """How many CPUs a run needs beside those of its solvers: to score, and for its ranks."""
        ranks = self.training.ranks
        return self.validation.cpus + (ranks if ranks > 1 else 0)

    def hash(self) -> str:
        """Return a hash of all that decides what is trained, leaving out how and where it runs.

        However a number is written, as 0.2 or 2e-1, as 1 or 1.0, it is the same.
        """
        parts = {
            "solver": plain_settings(self.solver, SOLVER),
            "surrogate": plain_settings(self.surrogate, SURROGATE),
        }
        return self._hash_with(parts)

    def with_length(self, length: dict[str, Any]) -> "Study":
        """Return the same study with another number of `simulations` and another `stop`."""
        values = self.model_dump(mode="json")
        values["design"]["simulations"] = length["simulations"]
        values["training"]["stop"] = length["stop"]
        return Study.model_validate(values)

    def hash_as_written(self) -> str:
        """Return the hash of older runs, for which 1 and 1.0 were different settings."""
        return self._hash_with({})

    def _hash_with(self, parts: dict[str, Any]) -> str:
        how = {"ensemble", "store", "tracking", "checkpoint"}
        values = {**self.model_dump(mode="json", exclude=how), **parts}
        del values["training"]["ranks"]
        if self.training.initial is None:  # as in runs of before there was this setting
            del values["training"]["initial"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @model_validator(mode="after")
    def _components_are_known(self) -> Self:
        check_settings(self.solver, SOLVER)
        check_settings(self.surrogate, SURROGATE)
        return self

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        actors, ranks = self.ensemble.actors, self.training.ranks
        if ranks > actors:
            raise ValueError(
                f"training.ranks is {ranks}, but ensemble.actors is {actors}: each rank needs a "
                "solver process of its own; raise ensemble.actors, or lower training.ranks"
            )
        if self.deterministic and actors > ranks:
            one = "1 only" if ranks == 1 else f"one a rank only, and training.ranks is {ranks}"
            raise ValueError(
                f"deterministic is true, but ensemble.actors is {actors}: samples come in a fixed "
                f"order from {one}"
            )
        if self.design.sampler == "breed" and self.deterministic:
            raise ValueError(
                "deterministic is true, but design.sampler is breed: what it decides depends on "
                "how far training is when a simulation starts; choose another sampler"
            )
        if self.design.sampler == "breed" and self.training.source:
            raise ValueError(
                "design.sampler is breed, but training.source names a store: there are no "
                "simulations to steer; choose another sampler, or train on the stream"
            )
        if self.deterministic and self.training.stop.seconds:
            raise ValueError(
                "deterministic is true, but training.stop.seconds depends on the machine's speed: "
                "stop after steps or samples, or when drained"
            )
        return self


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        values = read_yaml(path.read_text())
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror}") from None
    except RepeatedError as error:
        raise StudyError(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise StudyError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise StudyError(f"{path} is not a study: it has to hold sections such as `solver:`")
    return values
