"""The layout of a store on disk: make, resize, find and open its arrays.

Shared by all code that writes or reads a store; owner.py says what the arrays hold. A solver's
process imports this file, so its own imports are few.
Shapes: S simulations, K kept steps, `*grid` the grid's axes.
"""

import math
from itertools import chain
from typing import Any

import numpy as np
import zarr
import zarr.abc.store
import zarr.storage
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.chunk_key_encodings import ChunkKeyEncodingLike
from zarr.core.sync import sync

from framework.errors import StudyError
from framework.study import versions
from solvers.base import Solver

# A chunk of a field is about this large before compression.
CHUNK_BYTES = 4 * 2**20
# A chunk of the other arrays is at most this large and this long: a commit rewrites one of each.
_ROWS_BYTES, _ROWS = 2**18, 8192
# All chunks of an array lie in one directory: otherwise each simulation would make several.
_CHUNK_KEYS: ChunkKeyEncodingLike = {"name": "default", "separator": "."}
# The arrays that the owner writes for every simulation; the last one marks the others as written.
OF_SIMULATIONS = ("parameters", "t", "resolved", "complete")
_OWN_ARRAYS = (*OF_SIMULATIONS, "parameter", "time", "simulation")


def create(
    store: zarr.abc.store.Store,
    solver: Solver,
    simulations: int,
    steps: NDArray[np.int64],
    dtype: str,
    compression: str,
    overwrite: bool,
) -> zarr.Group:
    """Make the arrays of a store, without its attributes; `steps` [K] are the steps to keep.

    Raises StudyError if a field has a name that a store needs for itself.
    """
    group = zarr.create_group(
        store, overwrite=overwrite, attributes={"millstream_format": versions.STORE}, zarr_format=3
    )
    names = solver.parameters.names
    shape = (simulations, len(steps), *solver.grid.shape)
    _create_fields(group, solver, shape, dtype, compression)
    units = {item.name: item.units for item in solver.parameters.items}
    rows = ("simulation", "parameter"), (simulations, len(names))
    _create_array(group, "parameters", *rows, attributes={"units": units})
    rows = ("simulation", "time"), (simulations, len(steps))
    _create_array(group, "t", *rows, attributes={"units": solver.time_units})
    for name in ("resolved", "complete"):
        _create_array(group, name, ("simulation",), (simulations,), "bool", False)
    _create_array(group, "time", ("time",), (len(steps),), "int64", 0)[:] = steps
    _create_array(group, "parameter", ("parameter",), (len(names),), "str", "")[:] = np.array(names)
    return group


def _create_fields(
    group: zarr.Group, solver: Solver, shape: tuple[int, ...], dtype: str, compression: str
) -> None:
    """Make the arrays of the fields, each of `shape` [S, K, *grid]."""
    step_bytes = np.dtype(dtype).itemsize * math.prod(shape[2:])
    # As many chunks as needed, all about as long.
    chunks = math.ceil(shape[1] / max(CHUNK_BYTES // step_bytes, 1))
    for field in solver.fields:
        if field.name in _OWN_ARRAYS or "/" in field.name:
            raise StudyError(
                f"a field of the solver is named {field.name}: a store cannot hold one of that "
                f"name, as its arrays are {', '.join(_OWN_ARRAYS)}; rename it"
            )
        group.create_array(
            field.name,
            shape=shape,
            chunks=(1, math.ceil(shape[1] / chunks), *shape[2:]),
            dtype=dtype,
            fill_value=math.nan,
            compressors=_codecs(compression, np.dtype(dtype).itemsize),
            chunk_key_encoding=_CHUNK_KEYS,
            dimension_names=("simulation", "time", *(f"axis_{n}" for n in range(len(shape) - 2))),
            attributes={"units": field.units},
        )


def _create_array(
    group: zarr.Group,
    name: str,
    dimensions: tuple[str, ...],
    shape: tuple[int, ...],
    dtype: str = "float64",
    fill: float | str = math.nan,
    attributes: dict[str, Any] | None = None,
) -> "zarr.Array[Any]":
    """Make one of the arrays that the owner writes."""
    rows = min(_ROWS_BYTES // (8 * math.prod(shape[1:])), _ROWS)
    if dimensions[0] != "simulation":
        rows = shape[0]
    return group.create_array(
        name,
        shape=shape,
        chunks=(max(rows, 1), *shape[1:]),
        dtype=dtype,
        fill_value=fill,
        compressors=_codecs("lz4", 8),
        chunk_key_encoding=_CHUNK_KEYS,
        dimension_names=dimensions,
        attributes=attributes,
    )


def resize(group: zarr.Group, simulations: int) -> None:
    """Make room for this many simulations; never shrinks."""
    for name in (*attributes_of(group)["fields"], *OF_SIMULATIONS):
        array = array_of(group, name)
        if array.shape[0] < simulations:
            array.resize((simulations, *array.shape[1:]))


def _codecs(name: str, size: int) -> list[Any]:
    """Make the codecs for numbers of `size` bytes; the last one is a checksum.

    lz4 at level 1 leaves 63 % of the bytes of heat fields at hardly any cost; zstd at level 3
    leaves 54 % and is three times slower.
    """
    if name == "none":
        return [Crc32cCodec()]
    level = {"lz4": 1, "zstd": 3}[name]
    blosc = BloscCodec(cname=name, clevel=level, shuffle="shuffle", typesize=size)  # type: ignore[arg-type]
    return [blosc, Crc32cCodec()]


def zarr_store(path: str, read_only: bool = False) -> zarr.abc.store.Store:
    """Make zarr's store for an absolute path or a URL. Raises StudyError."""
    if "://" not in path:
        return zarr.storage.LocalStore(path, read_only=read_only)
    try:
        return zarr.storage.FsspecStore.from_url(path, read_only=read_only)
    except (ImportError, ValueError) as error:
        raise StudyError(f"the store {path} cannot be used: {what_zarr_says(error)}") from None


def is_empty(store: zarr.abc.store.Store) -> bool:
    """Return whether a group can be made here; remains of a killed run do not count."""
    if isinstance(store, zarr.storage.LocalStore):
        return all(item.suffix == ".partial" for item in store.root.iterdir())
    return sync(store.is_empty(""))


def remove_rests(store: zarr.abc.store.Store) -> None:
    """Remove what killed writers have left."""
    if isinstance(store, zarr.storage.LocalStore):
        # Chunks lie in the arrays, metadata in the group.
        for rest in chain(store.root.glob("*.partial"), store.root.glob("*/*.partial")):
            rest.unlink(missing_ok=True)


def array_of(group: zarr.Group, name: str) -> "zarr.Array[Any]":
    """Return the array of this name."""
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array


def attributes_of(group: zarr.Group) -> dict[str, Any]:
    """Return the attributes of the group, as they are now."""
    return dict(group.attrs)


def read(group: zarr.Group, name: str) -> NDArray[Any]:
    """Read the whole of the array of this name."""
    return np.asarray(array_of(group, name)[:])


def cannot_write(path: str, error: BaseException) -> str:
    """Return the part of a sentence that tells the user of an error in writing."""
    return (
        f"the store {path} cannot be written: {what_zarr_says(error)}; make room or mend that and "
        "go on with the study: what is complete in it stays"
    )


def what_zarr_says(error: BaseException) -> str:
    """Return the message of an error of the system or of zarr, on one line."""
    return (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
