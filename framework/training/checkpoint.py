"""Checkpoints: what has to be known to go on after any interruption.

A checkpoint is a folder `NUMBER/` with the state (tensors and plain values, read without unpickling
code) and a manifest with its checksum. It is written under another name, flushed to the disk and
then renamed, so that under its own name it is always whole; should the disk have damaged it, the
checksum tells, and the one before is used.
"""

import json
import os
import shutil
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from framework.errors import RunError, StudyError, reason
from framework.study import versions
from framework.study.sections import CheckpointConfig

_FORMAT = 2


class Checkpoints:
    """The checkpoints of one run. `count` and `seconds` (of writing) go on over resumes."""

    def __init__(self, directory: Path, config: CheckpointConfig, study_hash: str) -> None:
        self.count = 0
        self.seconds = 0.0
        self._directory = directory
        self._config = config
        self._study_hash = study_hash
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether the last one is long enough ago."""
        return time.monotonic() - self._last >= self._config.every_seconds

    def save(self, state: dict[str, Any]) -> None:
        """Write a state of tensors, arrays and plain values. Raises RunError if that fails."""
        started = time.monotonic()
        self.count += 1
        name = f"{self.count:06d}"
        temporary = self._directory / f".{name}"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            state = {**state, "checkpoint": {"count": self.count, "seconds": self.seconds}}
            with (temporary / "state.pt").open("wb") as file:
                torch.save(_tensors(state), file)
                os.fsync(file.fileno())
            manifest = {
                "format": _FORMAT,
                "study": self._study_hash,
                "streams": versions.STREAMS,
            }
            manifest["checksum"] = _checksum(temporary / "state.pt", manifest)
            with (temporary / "manifest.json").open("w") as text:
                text.write(json.dumps(manifest) + "\n")
                text.flush()
                os.fsync(text.fileno())
            temporary.rename(self._directory / name)
            for old in self._all()[: -self._config.keep]:
                shutil.rmtree(old)
        except (OSError, RuntimeError) as error:  # torch raises the latter on a full disk
            shutil.rmtree(temporary, ignore_errors=True)
            raise RunError(
                f"cannot write the checkpoint {self._directory / name}: {reason(error)}; those "
                "before it are whole: make room, then go on with millstream resume"
            ) from error
        self._last = time.monotonic()
        self.seconds += self._last - started

    def load(self) -> dict[str, Any] | None:
        """The state of the last whole checkpoint; None if there never was one.

        Raises StudyError if it is of another study or format, RunError if none is whole.
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
                return state
            print(
                f"millstream: the checkpoint {directory} is damaged; going on from the one before",
                file=sys.stderr,
            )
        if found:
            raise RunError(
                f"every checkpoint in {self._directory} is damaged: start the study anew with "
                "millstream train"
            )
        return None

    def _manifest(self, directory: Path) -> dict[str, Any] | None:
        """The manifest of a checkpoint, or None if anything of it is damaged."""
        try:
            manifest: dict[str, Any] = json.loads((directory / "manifest.json").read_bytes())
            found = manifest.pop("checksum")
            if found != _checksum(directory / "state.pt", manifest):
                return None
        except (OSError, ValueError, LookupError, AttributeError):
            return None
        if manifest["format"] != _FORMAT:
            raise StudyError(
                f"{directory} has format {manifest['format']}, but this version of Millstream "
                f"reads {_FORMAT}: resume with the version that wrote it"
            )
        if (drawn := manifest.get("streams", 1)) != versions.STREAMS:
            raise StudyError(
                f"{directory} was written by version {drawn} of the random streams and priors, but "
                f"this Millstream draws by version {versions.STREAMS}: the run cannot go on; start "
                "its study anew with millstream train, or use the version that wrote it"
            )
        if manifest["study"] != self._study_hash:
            raise StudyError(
                f"{directory} is of another study than the study.yaml beside it: restore that "
                "file, or start the changed study anew with millstream train"
            )
        return manifest

    def _all(self) -> list[Path]:
        """The checkpoints, the oldest first."""
        return sorted(path for path in self._directory.glob("[0-9]*") if path.name.isdigit())


def _tensors(value: Any) -> Any:
    """Arrays as tensors, which are read back without unpickling anything else."""
    if isinstance(value, dict):
        return {key: _tensors(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_tensors(item) for item in value]
    return torch.tensor(value) if isinstance(value, np.ndarray) else value


def _checksum(path: Path, manifest: dict[str, Any]) -> int:
    """Of a state and of what its manifest says of it."""
    total = zlib.crc32(json.dumps(manifest, sort_keys=True).encode())
    with path.open("rb") as file:
        while piece := file.read(2**22):
            total = zlib.crc32(piece, total)
    return total
