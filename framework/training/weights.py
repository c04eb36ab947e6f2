"""Tensors by name in files that hold numbers and nothing else: safetensors, and older .npz."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from framework.errors import StudyError
from surrogates.base import Surrogate

# Where a file's checksums are, in its metadata.
_CHECKSUMS = "crc32"


def arrays_of(surrogate: Surrogate) -> dict[str, NDArray[Any]]:
    """Return the weights and normalisation as numpy arrays, which Ray moves without copying."""
    return {name: tensor.numpy() for name, tensor in surrogate.tensors().items()}


def load_arrays(surrogate: Surrogate, weights: Mapping[str, NDArray[Any]]) -> None:
    """Give a surrogate the weights and normalisation that `arrays_of` returned."""
    surrogate.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors on the CPU as a safetensors file, each with a checksum. Raises OSError."""
    # Not `save_file`, whose files only their owner may read.
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    checksums = {name: _tensor_sum(tensor) for name, tensor in whole.items()}
    path.write_bytes(save(whole, metadata={_CHECKSUMS: json.dumps(checksums)}))


def read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """Read the tensors of FOLDER/NAME.safetensors, or of an older NAME.npz.

    Raises StudyError if neither is there, or it is damaged.
    """
    path = folder / f"{name}.safetensors"
    older = folder / f"{name}.npz"
    if older.exists() and not path.exists():
        path = older
    tensors = _from_npz(path) if path is older else _from_safetensors(path)
    if tensors is None:
        raise StudyError(f"{path} is damaged or not there: get the model again")
    return tensors


def _from_safetensors(path: Path) -> dict[str, Tensor] | None:
    try:
        with safe_open(path, framework="pt") as file:
            checksums = json.loads((file.metadata() or {}).get(_CHECKSUMS, "{}"))
            # Copied into memory of their own, aligned: in the file's mapping, float64 products give
            # other last bits.
            names = file.keys()
            tensors = {name: file.get_tensor(name).clone() for name in names}
    except (OSError, ValueError, SafetensorError):
        return None
    whole = all(_tensor_sum(tensors[name]) == sum for name, sum in checksums.items())
    return tensors if whole and {*checksums} == {*tensors} else None


def _from_npz(path: Path) -> dict[str, Tensor] | None:
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
        if bad is not None:
            return None
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _tensor_sum(tensor: Tensor) -> int:
    return crc32(tensor.contiguous().numpy().tobytes())
