"""Checkpoints: everything needed to continue a run after any interruption.

A checkpoint is a folder `NUMBER/` with the state (tensors and plain values, read without unpickling
code) and a manifest with its checksum. It is written under another name, flushed to the disk and
then renamed, so that under its own name it is always whole. If the disk has damaged it since, its
checksum shows that, and the previous checkpoint is used.
"""

import json
import os
import shutil
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from framework.errors import DamagedError, StudyError, WriteError, reason, tell
from framework.study import versions
from framework.study.fingerprint import changed
from framework.study.study import Study

# What is said of a checkpoint beside its state.
Manifest = dict[str, Any]


class Checkpointed(Protocol):
    """A part of a run that is kept in its checkpoints."""

    def state(self) -> Any:
        """Return all that the part needs to go on.

        Tensors, arrays, plain values, and dictionaries and lists of them.
        """

    def load_state(self, state: Any) -> None:
        """Go on from what `state` returned, arrays having become tensors."""


class Checkpoints:
    """The checkpoints of one run.

    `count`, and `seconds` that training stood still for them, continue after a resume.
    """

    def __init__(self, directory: Path, study: Study, code: dict[str, Any] | None = None) -> None:
        """`code`: the fingerprint of the solver; None if any other may go on."""
        self.count = 0
        self.seconds = 0.0
        self._directory = directory
        self._study = study
        self._code = code
        self._last = time.monotonic()

    def due(self) -> bool:
        """Return whether enough time has passed since the last checkpoint."""
        return time.monotonic() - self._last >= self._study.checkpoint.every_seconds

    def save(self, parts: Mapping[str, Checkpointed], finished: bool = False) -> None:
        """Write the states of the parts, each under its name. Raises WriteError.

        `finished`: the run has come to its end, from which a longer one can go on.
        """
        started = time.monotonic()
        self.count += 1
        name = f"{self.count:06d}"
        temporary = self._directory / f".{name}"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            state = {name: part.state() for name, part in parts.items()}
            state["checkpoint"] = {"count": self.count, "seconds": self.seconds}
            with (temporary / "state.pt").open("wb") as file:
                torch.save(storable(state), file)
                os.fsync(file.fileno())
            manifest = {
                "format": versions.CHECKPOINT,
                "study": self._study.hash(),
                "length": length(self._study),
                "finished": finished,
                "streams": versions.STREAMS,
                "code": self._code,
            }
            manifest["checksum"] = _checksum(temporary / "state.pt", manifest)
            with (temporary / "manifest.json").open("w") as text:
                text.write(json.dumps(manifest) + "\n")
                text.flush()
                os.fsync(text.fileno())
            temporary.rename(self._directory / name)
            for old in self._all()[: -self._study.checkpoint.keep]:
                shutil.rmtree(old)
        except (OSError, RuntimeError) as error:  # torch raises the latter on a full disk
            shutil.rmtree(temporary, ignore_errors=True)
            raise WriteError(
                f"cannot write the checkpoint {self._directory / name}: {reason(error)}; those "
                "before it are whole: make room, then go on with millstream resume"
            ) from error
        self._last = time.monotonic()
        if not finished:
            self.seconds += self._last - started

    def load(self, parts: Mapping[str, Checkpointed]) -> Manifest | None:
        """Let the parts continue from the last whole checkpoint; return None if there is none.

        They are loaded in the order of `parts`. The checkpoint may be of a shorter study, which
        this one extends. Raises StudyError if it is of another study, format, version of the random
        streams or code of the solver, DamagedError if there are checkpoints and none is whole.
        """
        found = self._all()
        for directory in reversed(found):
            manifest = self._manifest(directory)
            if manifest is not None:
                state: dict[str, Any] = torch.load(directory / "state.pt", weights_only=True)
                self.count = int(directory.name)
                self.seconds = state["checkpoint"]["seconds"]
                for damaged in found[found.index(directory) + 1 :]:
                    shutil.rmtree(damaged)
                for name, part in parts.items():
                    if name in state:  # earlier versions wrote fewer
                        part.load_state(state[name])
                return manifest
            tell(f"the checkpoint {directory} is damaged; going on from the one before")
        if found:
            raise DamagedError(
                f"every checkpoint in {self._directory} is damaged: start the study anew with "
                "millstream train"
            )
        return None

    def finished(self) -> bool:
        """Return whether the last whole checkpoint is one that a longer run can go on from."""
        manifests = filter(None, map(self._manifest, reversed(self._all())))
        return bool(next(manifests, {}).get("finished"))

    def _manifest(self, directory: Path) -> Manifest | None:
        """Return the manifest of a checkpoint, or None if any of its files is damaged."""
        try:
            manifest: Manifest = json.loads((directory / "manifest.json").read_bytes())
            found = manifest.pop("checksum")
            if found != _checksum(directory / "state.pt", manifest):
                return None
        except (OSError, ValueError, LookupError, AttributeError):
            return None
        if manifest["format"] != versions.CHECKPOINT:
            raise StudyError(
                f"{directory} has format {manifest['format']}, but this version of Millstream "
                f"reads {versions.CHECKPOINT}: resume with the version that wrote it"
            )
        if (drawn := manifest.get("streams", 1)) != versions.STREAMS:
            raise StudyError(
                f"{directory} was written by version {drawn} of the random streams and priors, but "
                f"this Millstream draws by version {versions.STREAMS}: the run cannot go on; start "
                "its study anew with millstream train, or use the version that wrote it"
            )
        was = self._study.with_length(manifest["length"]) if "length" in manifest else self._study
        if manifest["study"] not in (was.hash(), was.hash_as_written()):
            raise StudyError(
                f"{directory} is of another study than the study.yaml beside it: restore that "
                "file, or start the changed study anew with millstream train"
            )
        there = manifest.get("code")
        if self._code and there and (difference := changed(there, self._code)):
            raise StudyError(
                f"{directory} is of simulations by other code: {difference}; restore it, or let "
                "the run go on with both by accept_code_change: true in the section store of its "
                "study.yaml"
            )
        return manifest

    def _all(self) -> list[Path]:
        """Return the checkpoints, the oldest first."""
        return sorted(path for path in self._directory.glob("[0-9]*") if path.name.isdigit())


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


def _checksum(path: Path, manifest: dict[str, Any]) -> int:
    """Return the checksum of a state's file and the rest of its manifest."""
    total = zlib.crc32(json.dumps(manifest, sort_keys=True).encode())
    with path.open("rb") as file:
        while piece := file.read(2**22):
            total = zlib.crc32(piece, total)
    return total
