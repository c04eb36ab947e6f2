"""The store: every simulation of a study in one zarr group, which `xarray.open_zarr` opens.

    parameters [simulation, parameter]     the coordinate `parameter` has their names
    FIELD      [simulation, time, *grid]   one array a field; NaN where nothing was written
    time       [time]                      the stored steps that are kept
    t          [simulation, time]          their times
    complete   [simulation]                whether the simulation is all there, to the last bit

Two kinds of process write, and no chunk is written by both or by two of one kind:

- Each solver actor has a `StoreWriter`. It writes the fields of its simulations; a chunk is of one
  simulation. A simulation is reported only once all of it is written.
- The training process has the `Store`, the one owner: it creates and resizes the arrays, and writes
  parameters, times and then `complete` of what was reported.

So whatever is killed, what is marked complete was written before. Readers go by that mark, never
by the length of an array. A chunk is replaced by renaming a whole new one into its place, and has a
checksum, so that what a disk or a power cut has damaged is noticed when it is read.

Shapes: S simulations, T stored steps, K of them kept, C fields, p parameters, `*grid` the grid's
axes.
"""

import fcntl
import hashlib
import json
import math
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import zarr
import zarr.abc.store
import zarr.storage
from numpy.typing import NDArray
from pydantic import Field, StringConstraints, field_validator
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.chunk_key_encodings import ChunkKeyEncodingLike
from zarr.core.sync import sync
from zarr.errors import GroupNotFoundError

import solvers.base
from framework.component import find, settings_of
from framework.errors import RunError, StudyError
from framework.section import Section
from solvers.base import Solver

if TYPE_CHECKING:  # solver actors need neither the study nor torch, which it imports
    from framework.study import Study

FORMAT = 1
# A chunk of a field is about this large before compression.
CHUNK_BYTES = 4 * 2**20
# A chunk of the other arrays is at most this large and this long: a commit rewrites one of each.
_ROWS_BYTES, _ROWS = 2**18, 8192
# All chunks of an array in one directory: else every simulation makes several.
_CHUNK_KEYS: ChunkKeyEncodingLike = {"name": "default", "separator": "."}
_OWN_ARRAYS = ("parameters", "parameter", "time", "t", "complete", "simulation")

Keep = Literal["all", "last", "none"] | Annotated[int, Field(strict=True, ge=1)]


class StoreConfig(Section):
    """The `store` section of a study."""

    # A directory or a URL; without one stores/NAME.zarr under the current directory.
    path: Annotated[str, StringConstraints(min_length=1)] | None = None
    # Which stored steps; a number n keeps the steps 0, n, 2n ... With `none` there is no store.
    keep: Keep = "all"
    dtype: Literal["float32", "float16"] = "float32"
    compression: Literal["none", "lz4", "zstd"] = "lz4"

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
        """Where the store of a study with this name is: an absolute path, or a URL."""
        return _absolute(self.path or f"stores/{study}.zarr")


def kept_steps(keep: Keep, stored_steps: int) -> NDArray[np.int64]:
    """Which of a simulation's stored steps are kept [K]."""
    if keep == "last":
        return np.array([stored_steps - 1])
    return np.arange(0, stored_steps, keep if isinstance(keep, int) else 1)


def identity(study: "Study", config: StoreConfig) -> dict[str, Any]:
    """What determines the content of a study's store, as plain values named as in the study.

    The number of simulations is part of it only where a longer design has other simulations.
    """
    solver, space = study.solver_factory()(), study.make_design().space
    found = find(study.solver.name, "solver", solvers.base.REGISTERED, Solver)
    settings = settings_of(found, 0).model_validate(study.solver.model_extra)
    design: dict[str, Any] = {
        "sampler": study.design.sampler,
        "bounds": {item.name: [item.low, item.high] for item in space.items},
        "priors": {item.name: item.prior for item in space.items},
    }
    if study.design.sampler == "latin_hypercube":
        design["simulations"] = study.design.simulations
    content = {
        "format": FORMAT,
        "solver": {"name": study.solver.name, **settings.model_dump(mode="json")},
        "fields": {field.name: field.units for field in solver.fields},
        "grid": vars(solver.grid),
        "stored_steps": solver.stored_steps,
        "design": design,
        "seed": study.seed,
        "store": {"keep": config.keep, "dtype": config.dtype},
    }
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def study_hash(identity: dict[str, Any]) -> str:
    """A short name for an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def first_difference(there: dict[str, Any], here: dict[str, Any], prefix: str = "") -> str:
    """The first setting that differs between two identities, with both values; empty if none."""
    for key in dict.fromkeys([*there, *here]):
        one, other = there.get(key), here.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            if found := first_difference(one, other, f"{prefix}{key}."):
                return found
        elif one != other:
            return f"{prefix}{key} is {one} there and {other} here"
    return ""


class StoreWriter:
    """Writes the fields of simulations, a chunk at a time; small, and can be sent elsewhere.

    It passes over held-out simulations (negative ids) and over those that were complete when it
    was made: what is complete is never touched again.
    """

    def __init__(self, path: str, steps: NDArray[np.int64], complete: NDArray[np.bool_]) -> None:
        """`steps` [K]: those that are kept; `complete` [S]."""
        self._path = path
        self._index = {step: index for index, step in enumerate(steps.tolist())}
        self._complete = complete
        self._arrays: list[zarr.Array[Any]] = []  # one a field; opened when they are needed
        self._pending: dict[int, _Pending] = {}

    def append(self, simulation: int, step: int, fields: NDArray[np.float32]) -> None:
        """Take one stored step's fields [C, *grid]; a simulation's steps come in order, from 0.

        Raises ValueError if a number is beyond what the store's dtype can hold, which is the
        simulation's failure, and RunError if the store cannot be written.
        """
        if not self._wanted(simulation):
            return
        if step == 0:
            self.forget(simulation)
        if step not in self._index:
            return
        with self._writing():
            if simulation not in self._pending:
                self._pending[simulation] = _Pending(self._open())
            pending = self._pending[simulation]
            pending.add(fields)
            if pending.full():
                pending.write(simulation, self._arrays)

    def finish(self, simulation: int) -> None:
        """Return once all of the simulation is written. Raises RunError if it cannot be."""
        if not self._wanted(simulation):
            return
        pending = self._pending.pop(simulation)
        assert pending.first + pending.count == len(self._index), "a step is missing"
        with self._writing():
            pending.write(simulation, self._arrays)

    def forget(self, simulation: int) -> None:
        """Drop what is held of a simulation that failed or starts anew."""
        self._pending.pop(simulation, None)

    def _wanted(self, simulation: int) -> bool:
        return simulation >= 0 and not self._complete.item(simulation)

    def _open(self) -> list["zarr.Array[Any]"]:
        if not self._arrays:
            group = zarr.open_group(_zarr_store(self._path), mode="r+")
            # Fields are never all NaN: looking whether a chunk could be left out is in vain.
            self._arrays = [
                _array(group, name).with_config({"write_empty_chunks": True})
                for name in _attributes_of(group)["fields"]
            ]
        return self._arrays

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(_cannot_write(self._path, error)) from error


class _Pending:
    """The steps of one simulation that are not written yet: `count` of them, from `first` on."""

    def __init__(self, arrays: list["zarr.Array[Any]"]) -> None:
        _, *chunk = arrays[0].chunks
        self.first = self.count = 0
        self._capacity: int = chunk[0]
        self._fields = np.empty((len(arrays), *chunk), dtype=arrays[0].dtype)

    def full(self) -> bool:
        return self.count == self._capacity

    def add(self, fields: NDArray[np.float32]) -> None:
        try:
            with np.errstate(over="raise"):
                self._fields[:, self.count] = (
                    _without_tails(fields) if self._fields.dtype == np.float16 else fields
                )
        except FloatingPointError:
            raise ValueError(
                f"it has a value of {np.abs(fields).max():g}, but store.dtype is "
                f"{self._fields.dtype}, which ends at {np.finfo(self._fields.dtype).max:g}: "
                "set store.dtype to float32"
            ) from None
        self.count += 1

    def write(self, simulation: int, arrays: list["zarr.Array[Any]"]) -> None:
        if not self.count:
            return
        steps = slice(self.first, self.first + self.count)
        for array, fields in zip(arrays, self._fields, strict=True):
            array[simulation, steps] = fields[: self.count]
        self.first, self.count = steps.stop, 0


def _without_tails(fields: NDArray[np.float32]) -> NDArray[np.float32]:
    """What becomes the same float16, but with small numbers already rounded as there.

    numpy rounds them itself, but one by one: ten times slower where a field has long tails.
    """
    smallest = np.finfo(np.float16).smallest_normal
    step = np.float32(np.finfo(np.float16).smallest_subnormal)
    return np.where(np.abs(fields) < smallest, np.rint(fields / step) * step, fields)


class Store:
    """The owner of a store; at any time there is one. Its methods may be called from any thread."""

    def __init__(
        self, path: str, group: zarr.Group, solver: Solver, lock: ExitStack | None = None
    ) -> None:
        """Use `Store.open`. `lock` is released by `close`."""
        self.path = path
        self._hash = _attributes_of(group)["hash"]
        self._solver = solver
        self._lock = lock or ExitStack()
        self._steps = _read(group, "time")
        self._arrays = {name: _array(group, name) for name in ("parameters", "t", "complete")}
        complete = _read(group, "complete")
        self._simulations = len(complete)
        self._completed: set[int] = set(np.flatnonzero(complete).tolist())
        self._changed = threading.Condition()
        self._waiting: dict[int, NDArray[np.float64]] = {}  # simulation -> its parameters
        self._error: Exception | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._write_commits, name="store", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls,
        path: str,
        config: StoreConfig,
        identity: dict[str, Any],
        solver: Solver,
        simulations: int,
    ) -> Self:
        """Create a store for this many simulations, or continue one, resizing it if they are more.

        `config` may not keep none. Raises StudyError if there is something else at `path`, or the
        store of a study with another identity, and RunError if another run is writing it.
        """
        path = _absolute(path)
        with ExitStack() as stack:
            try:
                stack.enter_context(_locked(path))
                store = _zarr_store(path)
                _prepare(store, path, config, identity, solver, simulations)
                group = zarr.open_group(store, mode="r+", use_consolidated=False)
            except OSError as error:
                raise StudyError(f"store.path: {_cannot_write(path, error)}") from error
            return cls(path, group, solver, stack.pop_all())

    @property
    def identity(self) -> dict[str, Any]:
        """What to record of the data that something was trained on."""
        return {"path": self.path, "simulations": len(self._completed), "hash": self._hash}

    @property
    def completed(self) -> set[int]:
        """The simulations that are marked complete on disk."""
        with self._changed:
            return set(self._completed)

    def writer(self) -> StoreWriter:
        """For a solver actor; it leaves alone what is complete by now."""
        complete = np.zeros(self._simulations, dtype=bool)
        complete[list(self.completed)] = True
        return StoreWriter(self.path, self._steps, complete)

    def commit(self, simulation: int, parameters: NDArray[np.float64]) -> None:
        """Have a simulation that its `StoreWriter` has finished marked complete; does not wait.

        Raises RunError if commits before it could not be written.
        """
        with self._changed:
            self._raise_error()
            if simulation not in self._completed:
                self._waiting[simulation] = parameters
                self._changed.notify_all()

    def flush(self) -> None:
        """Return once everything committed is on disk. Raises RunError if it cannot be written."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or not self._waiting)
            self._raise_error()

    def close(self) -> None:
        """Write what is committed, if that is possible, and let another run have the store."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._lock.close()

    def bytes(self) -> int:
        """The size on disk."""
        if "://" in self.path:
            return sync(_zarr_store(self.path).getsize_prefix(""))
        return sum(
            os.path.getsize(os.path.join(directory, name))
            for directory, _, names in os.walk(self.path)
            for name in names
        )

    def _raise_error(self) -> None:
        if self._error:
            raise RunError(
                f"{_cannot_write(self.path, self._error)}; of those that were computed "
                f"{len(self._waiting)} are not marked complete"
            ) from self._error

    def _write_commits(self) -> None:
        """Write what is committed, all that waits at once, until the store is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                commits = dict(self._waiting)
            if not commits:
                return
            try:
                self._write(commits)
            # Handed over to whoever commits or flushes next, which raises it.
            except Exception as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._completed |= commits.keys()
                for simulation in commits:
                    del self._waiting[simulation]
                self._changed.notify_all()

    def _write(self, commits: dict[int, NDArray[np.float64]]) -> None:
        rows = np.array(sorted(commits))
        parameters = np.stack([commits[row] for row in rows.tolist()])
        t = np.stack([self._solver.times(values)[self._steps] for values in parameters])
        self._arrays["parameters"].set_orthogonal_selection((rows, slice(None)), parameters)
        self._arrays["t"].set_orthogonal_selection((rows, slice(None)), t)
        # Only now: a reader takes what is complete for whole.
        self._arrays["complete"].set_orthogonal_selection((rows,), np.ones(len(rows), dtype=bool))


class StoreReader:
    """Reads what was complete when it was made. p parameters, K kept steps, as in the store."""

    def __init__(self, path: str) -> None:
        """Raises StudyError if there is no store at `path`, and RunError if it is damaged."""
        self.path = _absolute(path)
        try:
            group = zarr.open_group(_zarr_store(self.path, read_only=True), mode="r")
        except (OSError, ValueError) as error:
            raise StudyError(
                f"{self.path} is not a store that millstream has written: {_reason(error)}"
            ) from None
        self._attributes = _attributes_of(group)
        written = self._attributes.get("millstream_format")
        if written != FORMAT or "hash" not in self._attributes:
            raise StudyError(f"{self.path} is not a store of millstream's format {FORMAT}")
        self.study: dict[str, Any] = self._attributes["study"]  # see `identity` above
        self.field_names = tuple(self._attributes["fields"])
        with self._reading("it"):
            self.complete: NDArray[np.int64] = np.flatnonzero(_read(group, "complete"))
            self.steps: NDArray[np.int64] = _read(group, "time")  # [K]
            self.parameters: NDArray[np.float64] = _read(group, "parameters")  # [S, p]
            self.t: NDArray[np.float64] = _read(group, "t")  # [S, K]
            self._arrays = [_array(group, name) for name in self.field_names]
        self.field_shape = (len(self._arrays), *self._arrays[0].shape[2:])  # [C, *grid]

    @property
    def identity(self) -> dict[str, Any]:
        """What to record of the data that something was trained on."""
        hash = self._attributes["hash"]
        return {"path": self.path, "simulations": len(self.complete), "hash": hash}

    def fields(self, simulation: int) -> NDArray[np.float32]:
        """The fields [K, C, *grid] of a complete simulation. Raises RunError if damaged."""
        fields = np.empty((len(self.steps), *self.field_shape), dtype=np.float32)
        for channel, array in enumerate(self._arrays):
            what = f"{self.field_names[channel]} of simulation {simulation}"
            with self._reading(what):
                fields[:, channel] = array[simulation]
                if not np.isfinite(fields[:, channel]).all():
                    raise ValueError("a chunk is missing")
        return fields

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            raise RunError(
                f"the store {self.path} is damaged, {what} cannot be read: {_reason(error)}; "
                "restore it from a copy, or remove it and simulate again"
            ) from error


def _prepare(
    store: zarr.abc.store.Store,
    path: str,
    config: StoreConfig,
    identity: dict[str, Any],
    solver: Solver,
    simulations: int,
) -> None:
    """See that there is a store of this identity with room for the simulations."""
    remedy = "set store.path to another place, or store.keep to none"
    try:
        group = zarr.open_group(store, mode="r+", use_consolidated=False)
    except GroupNotFoundError:
        if not _is_empty(store):
            raise StudyError(f"store.path is {path}: that is not a store; {remedy}") from None
        group = None
    except (FileExistsError, NotADirectoryError, ValueError):
        raise StudyError(f"store.path is {path}: that is not a store; {remedy}") from None
    if group is not None and "millstream_format" not in group.attrs:
        raise StudyError(f"store.path is {path}: that is not millstream's; {remedy}")
    # The hash is written last: without it whoever created the group was killed over it.
    if group is None or "hash" not in group.attrs:
        _create(store, config, identity, solver, simulations, overwrite=group is not None)
    elif difference := first_difference(_attributes_of(group)["study"], identity):
        raise StudyError(
            f"store.path is {path}, the store of another study: {difference}; {remedy}"
        )
    else:
        _resize(group, simulations)
        if isinstance(store, zarr.storage.LocalStore):
            # What writers left that were killed: in arrays and, of their metadata, in the group.
            for rest in chain(store.root.glob("*.partial"), store.root.glob("*/*.partial")):
                rest.unlink(missing_ok=True)
    # One file then has the shapes of all arrays: who opens the store never sees some resized.
    with warnings.catch_warnings(action="ignore"):
        zarr.consolidate_metadata(store)


def _create(
    store: zarr.abc.store.Store,
    config: StoreConfig,
    identity: dict[str, Any],
    solver: Solver,
    simulations: int,
    overwrite: bool,
) -> None:
    group = zarr.create_group(
        store, overwrite=overwrite, attributes={"millstream_format": FORMAT}, zarr_format=3
    )
    kept, names = kept_steps(config.keep, solver.stored_steps), solver.parameters.names
    _create_fields(group, config, solver, (simulations, len(kept), *solver.grid.shape))
    units = {item.name: item.units for item in solver.parameters.items}
    rows = ("simulation", "parameter"), (simulations, len(names))
    _create_array(group, "parameters", *rows, attributes={"units": units})
    rows = ("simulation", "time"), (simulations, len(kept))
    _create_array(group, "t", *rows, attributes={"units": getattr(solver, "time_units", "1")})
    _create_array(group, "complete", ("simulation",), (simulations,), "bool", False)
    _create_array(group, "time", ("time",), (len(kept),), "int64", 0)[:] = kept
    _create_array(group, "parameter", ("parameter",), (len(names),), "str", "")[:] = np.array(names)
    group.attrs.update(_attributes(config, identity, solver))


def _create_fields(
    group: zarr.Group, config: StoreConfig, solver: Solver, shape: tuple[int, ...]
) -> None:
    """The arrays of the fields, each of shape [S, K, *grid]."""
    step_bytes = np.dtype(config.dtype).itemsize * math.prod(shape[2:])
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
            dtype=config.dtype,
            fill_value=math.nan,
            compressors=_codecs(config.compression, np.dtype(config.dtype).itemsize),
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
    """One of the arrays that the owner writes."""
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


def _attributes(config: StoreConfig, identity: dict[str, Any], solver: Solver) -> dict[str, Any]:
    """What a reader has to know, `hash` among it."""
    kind, ours = type(solver), metadata.version("millstream")
    package = kind.__module__.partition(".")[0]
    version = ours if package == "solvers" else getattr(sys.modules[package], "__version__", None)
    affine = getattr(solver, "affine", None)
    settings = {key: value for key, value in identity["solver"].items() if key != "name"}
    return {
        "coordinates": "t complete",  # which arrays xarray is to take for coordinates
        "millstream_format": FORMAT,
        "millstream_version": ours,
        "solver": {
            "name": identity["solver"]["name"],
            "settings": settings,
            "class": f"{kind.__module__}:{kind.__qualname__}",
            "version": version,
        },
        "fields": identity["fields"],
        "grid": identity["grid"],
        "affine": None if affine is None else np.asarray(affine).tolist(),
        "keep": config.keep,
        "dtype": config.dtype,
        "compression": config.compression,
        "study": identity,
        "hash": study_hash(identity),
    }


def _resize(group: zarr.Group, simulations: int) -> None:
    """Make room for this many simulations; nothing shrinks."""
    for name in (*_attributes_of(group)["fields"], "parameters", "t", "complete"):
        array = _array(group, name)
        if array.shape[0] < simulations:
            array.resize((simulations, *array.shape[1:]))


def _codecs(name: str, size: int) -> list[Any]:
    """Codecs for numbers of `size` bytes, with a checksum as the last.

    Of heat fields lz4 at level 1 makes 63 % of the bytes at hardly a cost, zstd at level 3 makes
    54 % and is three times slower.
    """
    if name == "none":
        return [Crc32cCodec()]
    level = {"lz4": 1, "zstd": 3}[name]
    blosc = BloscCodec(cname=name, clevel=level, shuffle="shuffle", typesize=size)  # type: ignore[arg-type]
    return [blosc, Crc32cCodec()]


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Keep other runs from the store at a local path; a killed run keeps nobody."""
    if "://" in path:
        yield
        return
    name = f"{path}.lock"
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    with open(name, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"another run is writing the store {path} and holds {name}: wait for its end, or "
                "set store.path to another place"
            ) from None
        yield


def _zarr_store(path: str, read_only: bool = False) -> zarr.abc.store.Store:
    if "://" not in path:
        return zarr.storage.LocalStore(path, read_only=read_only)
    try:
        return zarr.storage.FsspecStore.from_url(path, read_only=read_only)
    except (ImportError, ValueError) as error:
        raise StudyError(f"the store {path} cannot be used: {_reason(error)}") from None


def _absolute(path: str) -> str:
    """An absolute local path, which means the same in other processes; or a URL."""
    path = path.removeprefix("file://")
    return path if "://" in path else os.path.abspath(path)


def _is_empty(store: zarr.abc.store.Store) -> bool:
    """Whether there is nothing in the way of a new group; a killed run may have left a rest."""
    if isinstance(store, zarr.storage.LocalStore):
        return all(item.suffix == ".partial" for item in store.root.iterdir())
    return sync(store.is_empty(""))


def _array(group: zarr.Group, name: str) -> "zarr.Array[Any]":
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array


def _attributes_of(group: zarr.Group) -> dict[str, Any]:
    return dict(group.attrs)


def _read(group: zarr.Group, name: str) -> NDArray[Any]:
    return np.asarray(_array(group, name)[:])


def _cannot_write(path: str, error: Exception) -> str:
    return (
        f"the store {path} cannot be written: {_reason(error)}; make room or mend that and go on "
        "with the study: what is complete in it stays"
    )


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
