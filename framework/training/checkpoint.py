"""Checkpoints: everything needed to continue a run after any interruption.

A checkpoint is a folder `NUMBER/` of states (tensors and plain values, read without unpickling
code) and a manifest with their checksums:

    run.pt         what the run as a whole keeps
    rank-K.pt      what training rank K keeps: surrogate, optimiser, buffer, ledger
    manifest.json

It is written under another name, `.NUMBER`, flushed to the disk and then renamed, so that under its
own name it is always whole. If the disk has damaged it since, a checksum shows that, and the
checkpoint before it is used.
"""

import json
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from framework.errors import DamagedError, StudyError, WriteError, reason, tell
from framework.study import versions
from framework.study.fingerprint import changed
from framework.study.study import Study

# What is said of a checkpoint beside its states.
Manifest = dict[str, Any]
# States by the names of the parts that they are of.
States = dict[str, Any]
RUN = "run.pt"
# The one file of states before there were several ranks.
_OLDER = "state.pt"


def rank_file(rank: int) -> str:
    """Return the name of the file that a rank's states are in."""
    return f"rank-{rank}.pt"


class Checkpointed(Protocol):
    """A part of a run that is kept in its checkpoints."""

    def state(self) -> Any:
        """Return all that the part needs to go on: a copy, which may be written later.

        Tensors, arrays, plain values, and dictionaries and lists of them.
        """

    def load_state(self, state: Any) -> None:
        """Go on from what `state` returned, arrays having become tensors."""


@dataclass(frozen=True)
class Found:
    """A whole checkpoint."""

    folder: Path
    manifest: Manifest

    @property
    def ranks(self) -> int:
        """How many ranks wrote it."""
        return sum(name != RUN for name in self.manifest["files"])

    @property
    def finished(self) -> bool:
        """Whether the run had come to its end, from which a longer one can go on."""
        return bool(self.manifest["finished"])

    @property
    def simulations(self) -> int:
        """How many training simulations the run was asked for."""
        return int(self.manifest["length"]["simulations"])

    def read(self, name: str) -> States:
        """Return the states in one of its files."""
        states: States = torch.load(self.folder / name, weights_only=True)
        return states


class Checkpoints:
    """The checkpoints of one run.

    `count`, and `seconds` that training stood still for them, continue after a resume.
    """

    def __init__(self, directory: Path, study: Study, code: dict[str, Any] | None = None) -> None:
        """`code`: the fingerprint of the solver; None if any other may go on."""
        self.count = 0
        self.seconds = 0.0
        self._directory = directory.absolute()  # ranks may run in other directories
        self._study = study
        self._code = code
        self._last = time.monotonic()

    def due(self) -> bool:
        """Return whether enough time has passed since the last checkpoint was begun."""
        return time.monotonic() - self._last >= self._study.checkpoint.every_seconds

    def begin(self) -> Path:
        """Return an empty folder to write the files of the next checkpoint in. Raises WriteError.

        It is no checkpoint until it is published.
        """
        self._last = time.monotonic()
        folder = self._directory / f".{self.count + 1:06d}"
        with checkpoint_written(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        return folder

    def publish(self, folder: Path, checksums: Mapping[str, int], finished: bool = False) -> None:
        """Make the folder that `begin` returned the last checkpoint. Raises WriteError.

        `checksums`: by the names of its files, as `write_states` returned them. `finished`: the run
        has come to its end, from which a longer one can go on.
        """
        with checkpoint_written(folder):
            manifest = {
                "format": versions.CHECKPOINT,
                "study": self._study.hash(),
                "length": length(self._study),
                "finished": finished,
                "streams": versions.STREAMS,
                "code": self._code,
                "files": dict(checksums),
            }
            manifest["checksum"] = _manifest_sum(manifest)
            with (folder / "manifest.json").open("w") as text:
                text.write(json.dumps(manifest) + "\n")
                text.flush()
                os.fsync(text.fileno())
            folder.rename(self._directory / folder.name.removeprefix("."))
            self.count += 1
            for old in self._all()[: -self._study.checkpoint.keep]:
                shutil.rmtree(old)

    def find(self) -> Found | None:
        """Return the last whole checkpoint; None if there is none. Later ones are removed.

        It may be of a shorter study, which this one extends. Raises StudyError if it is of another
        study, format, version of the random streams or code of the solver, DamagedError if there
        are checkpoints and none is whole.
        """
        there = self._all()
        for folder in reversed(there):
            if (manifest := self._manifest(folder)) is not None:
                self.count = int(folder.name)
                for damaged in there[there.index(folder) + 1 :]:
                    shutil.rmtree(damaged)
                return Found(folder, manifest)
            tell(f"the checkpoint {folder} is damaged; going on from the one before")
        if there:
            raise DamagedError(
                f"every checkpoint in {self._directory} is damaged: start the study anew with "
                "millstream train"
            )
        return None

    def finished(self) -> bool:
        """Return whether the last whole checkpoint is one that a longer run can go on from."""
        manifests = filter(None, map(self._manifest, reversed(self._all())))
        return bool(next(manifests, {}).get("finished"))

    def state(self) -> dict[str, float]:
        """Return the seconds until now, for `load_state`."""
        return {"seconds": self.seconds}

    def load_state(self, state: dict[str, float]) -> None:
        """Go on from what `state` returned."""
        self.seconds = state["seconds"]

    def _manifest(self, directory: Path) -> Manifest | None:
        """Return the manifest of a checkpoint, or None if any of its files is damaged."""
        try:
            manifest: Manifest = json.loads((directory / "manifest.json").read_bytes())
            whole = manifest.pop("checksum") == _manifest_sum(manifest)
            if whole or (directory / _OLDER).exists():
                self._check_format(directory, manifest["format"])
            files = manifest["files"].items()
            if not whole or any(checksum(directory / name) != there for name, there in files):
                return None
        except StudyError:
            raise
        except (OSError, ValueError, LookupError, AttributeError, TypeError):
            return None
        if manifest["streams"] != versions.STREAMS:
            raise StudyError(
                f"{directory} was written by version {manifest['streams']} of the random streams "
                f"and priors, but this Millstream draws by version {versions.STREAMS}: the run "
                "cannot go on; start its study anew with millstream train, or use the version that "
                "wrote it"
            )
        if manifest["study"] != self._study.with_length(manifest["length"]).hash():
            raise StudyError(
                f"{directory} is of another study than the study.yaml beside it: restore that "
                "file, or start the changed study anew with millstream train"
            )
        there = manifest["code"]
        if self._code and there and (difference := changed(there, self._code)):
            raise StudyError(
                f"{directory} is of simulations by other code: {difference}; restore it, or let "
                "the run go on with both by accept_code_change: true in the section store of its "
                "study.yaml"
            )
        return manifest

    def _check_format(self, directory: Path, format: object) -> None:
        """Raise StudyError if a manifest is not of the format that is read here."""
        if format != versions.CHECKPOINT:
            raise StudyError(
                f"{directory} has format {format}, but this version of Millstream reads "
                f"{versions.CHECKPOINT}: resume with the version that wrote it"
            )

    def _all(self) -> list[Path]:
        """Return the checkpoints, the oldest first."""
        return sorted(path for path in self._directory.glob("[0-9]*") if path.name.isdigit())


@contextmanager
def checkpoint_written(place: Path) -> Iterator[None]:
    """Turn errors of writing a checkpoint into a WriteError; it is removed then."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch raises the latter on a full disk
        folder = place if place.is_dir() else place.parent
        shutil.rmtree(folder, ignore_errors=True)
        raise WriteError(
            f"cannot write the checkpoint {folder.with_name(folder.name.removeprefix('.'))}: "
            f"{reason(error)}; those before it are whole: make room, then go on with millstream "
            "resume"
        ) from error


def write_states(path: Path, states: States) -> int:
    """Write states into a file of a checkpoint; return its checksum. Raises WriteError."""
    with checkpoint_written(path):
        with path.open("wb") as file:
            torch.save(storable(states), file)
            os.fsync(file.fileno())
        return checksum(path)


def states_of(parts: Mapping[str, Checkpointed]) -> States:
    """Return the states of parts, by their names."""
    return {name: part.state() for name, part in parts.items()}


def load_states(parts: Mapping[str, Checkpointed], states: States) -> None:
    """Let parts go on from states, in the order of `parts`."""
    for name, part in parts.items():
        part.load_state(states[name])


def length(study: Study) -> dict[str, Any]:
    """Return the settings that a longer run may change, see `Study.with_length`."""
    return {
        "simulations": study.design.simulations,
        "stop": study.training.stop.model_dump(mode="json"),
    }


def storable(value: Any) -> Any:
    """Turn arrays into tensors, which are read back without unpickling anything else."""
    if isinstance(value, dict):
        return {key: storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [storable(item) for item in value]
    return torch.tensor(value) if isinstance(value, np.ndarray) else value


def checksum(path: Path) -> int:
    """Return the checksum of a file."""
    total = 0
    with path.open("rb") as file:
        while piece := file.read(2**22):
            total = zlib.crc32(piece, total)
    return total


def _manifest_sum(manifest: Manifest) -> int:
    """Return the checksum of a manifest that has none yet."""
    return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())
