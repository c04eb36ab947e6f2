"""The store: every simulation of a study in one zarr group, which `xarray.open_zarr` opens.

    parameters [simulation, parameter]     the coordinate `parameter` has their names
    FIELD      [simulation, time, *grid]   one array a field; NaN where nothing was written
    time       [time]                      the stored steps that are kept
    t          [simulation, time]          their times
    resolved   [simulation]                whether grid and time step are fine enough for it
    complete   [simulation]                whether all of the simulation is there

Two kinds of process write, and no chunk is written by both or by two of one kind:

- Each solver actor has a `StoreWriter` (writer.py). It writes the fields of its simulations; a
  chunk belongs to one simulation. A simulation is reported only once all of it is written.
- The training process has the `Store`, the one owner: it creates and resizes the arrays, and writes
  parameters, times, `resolved` and then `complete` of what was reported.

So a simulation marked complete was written before, whatever is killed. Readers (reader.py) go by
that mark, never by the length of an array. A chunk is replaced by renaming a whole new one into its
place. It has a checksum: damage by a disk or a power cut is noticed when the chunk is read.

Shapes: S simulations, T stored steps, K of them kept, C fields, p parameters, `*grid` the grid's
axes.
"""

import os
import threading
import warnings
from contextlib import ExitStack
from typing import Any, Self

import numpy as np
import zarr
import zarr.abc.store
from numpy.typing import NDArray
from zarr.core.sync import sync
from zarr.errors import GroupNotFoundError

from framework.errors import StudyError, WriteError, tell
from framework.files import absolute, locked
from framework.store.attributes import attributes
from framework.store.layout import (
    OF_SIMULATIONS,
    array_of,
    attributes_of,
    cannot_write,
    create,
    is_empty,
    read,
    remove_rests,
    resize,
    zarr_store,
)
from framework.store.writer import StoreWriter
from framework.study.fingerprint import changed
from framework.study.identity import first_difference, streams_version
from framework.study.sections import StoreConfig, kept_steps
from framework.study.static import changed_static_fields
from framework.threads import Background
from solvers.base import Solver


class Store:
    """The only owner of a store at any time. Its methods may be called from any thread."""

    def __init__(
        self, path: str, group: zarr.Group, solver: Solver, lock: ExitStack | None = None
    ) -> None:
        """Own an open store; use `Store.open`. `close` releases the `lock`."""
        self.path = path
        self._hash = attributes_of(group)["hash"]
        self._solver = solver
        self._lock = lock or ExitStack()
        self._steps = read(group, "time")
        self._arrays = {name: array_of(group, name) for name in OF_SIMULATIONS}
        self._complete: NDArray[np.bool_] = read(group, "complete")  # [S], as on disk
        self._changed = threading.Condition()
        self._waiting: dict[int, NDArray[np.float64]] = {}  # simulation -> its parameters
        self._closed = False
        self._thread = Background("store", self._write_commits, self._wake)
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
        """Create a store with room for `simulations`, or continue one and make as much room.

        `config.keep` may not be none. Raises StudyError if there is something else at `path`, or
        the store of a study with another identity, version of random streams or (unless
        `config.accept_code_change`) code of the solver, and BusyError if another run is writing it.
        """
        path = absolute(path)
        remedy = "wait for its end, or set store.path to another place"
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(path, "writing the store", remedy))
                store = zarr_store(path)
                _prepare(store, path, config, identity, solver, simulations)
                group = zarr.open_group(store, mode="r+", use_consolidated=False)
            except OSError as error:
                raise StudyError(f"store.path: {cannot_write(path, error)}") from error
            return cls(path, group, solver, stack.pop_all())

    @property
    def identity(self) -> dict[str, Any]:
        """The identity of the data, as a run that trains on it records it."""
        count = self.count(len(self._complete))
        return {"path": self.path, "simulations": count, "hash": self._hash}

    @property
    def completed(self) -> set[int]:
        """The simulations that are marked complete on disk."""
        with self._changed:
            return set(np.flatnonzero(self._complete).tolist())

    def count(self, below: int) -> int:
        """Count the simulations with an id below this one that are marked complete on disk."""
        with self._changed:
            return int(np.count_nonzero(self._complete[:below]))

    def parameters(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the simulations [n] marked complete on disk, and their parameters [n, p]."""
        with self._changed:
            complete = np.flatnonzero(self._complete)
        return complete, np.asarray(self._arrays["parameters"][:])[complete]

    def writer(self) -> StoreWriter:
        """Make the writer for a solver actor; it does not touch what is complete by now."""
        with self._changed:
            return StoreWriter(self.path, self._steps, self._complete.copy())

    def commit(self, simulation: int, parameters: NDArray[np.float64]) -> None:
        """Mark a simulation complete that its `StoreWriter` has finished; return at once.

        Raises WriteError if earlier commits could not be written.
        """
        with self._changed:
            self._check_written()
            if not self._complete[simulation]:
                self._waiting[simulation] = parameters
                self._changed.notify_all()

    def flush(self) -> None:
        """Return once all commits are on disk. Raises WriteError if they cannot be written."""
        with self._changed:
            self._changed.wait_for(lambda: self._thread.error or not self._waiting)
            self._check_written()

    def close(self) -> None:
        """Write what is committed, if possible, and let another run have the store.

        Raises nothing: `commit` and `flush` report failures of writing.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.wait()
        self._lock.close()

    def bytes(self) -> int:
        """Return the size on disk."""
        if "://" in self.path:
            return sync(zarr_store(self.path).getsize_prefix(""))
        return sum(
            os.path.getsize(os.path.join(directory, name))
            for directory, _, names in os.walk(self.path)
            for name in names
        )

    def _check_written(self) -> None:
        """Raise WriteError if commits could not be written."""
        error = self._thread.error
        if error is not None:
            raise WriteError(
                f"{cannot_write(self.path, error)}; of those that were computed "
                f"{len(self._waiting)} are not marked complete"
            ) from error

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _write_commits(self) -> None:
        """Write commits, always all that wait, until the store is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                commits = dict(self._waiting)
            if not commits:
                return
            self._write(commits)
            with self._changed:
                self._complete[list(commits)] = True
                for simulation in commits:
                    del self._waiting[simulation]
                self._changed.notify_all()

    def _write(self, commits: dict[int, NDArray[np.float64]]) -> None:
        """Write the rows of simulations, given their parameters."""
        rows = np.array(sorted(commits))
        parameters = np.stack([commits[row] for row in rows.tolist()])
        t = np.stack([self._solver.times(values)[self._steps] for values in parameters])
        self._arrays["parameters"].set_orthogonal_selection((rows, slice(None)), parameters)
        self._arrays["t"].set_orthogonal_selection((rows, slice(None)), t)
        resolved = np.array([self._solver.resolved(values) for values in parameters])
        self._arrays["resolved"].set_orthogonal_selection((rows,), resolved)
        # Last: a reader relies on this mark.
        self._arrays["complete"].set_orthogonal_selection((rows,), np.ones(len(rows), dtype=bool))


def _prepare(
    store: zarr.abc.store.Store,
    path: str,
    config: StoreConfig,
    identity: dict[str, Any],
    solver: Solver,
    simulations: int,
) -> None:
    """Make a store of this identity, or make room for the simulations in the one there."""
    remedy = "set store.path to another place, or store.keep to none"
    try:
        group = zarr.open_group(store, mode="r+", use_consolidated=False)
    except GroupNotFoundError:
        if not is_empty(store):
            raise StudyError(f"store.path is {path}: that is not a store; {remedy}") from None
        group = None
    except (FileExistsError, NotADirectoryError, ValueError):
        raise StudyError(f"store.path is {path}: that is not a store; {remedy}") from None
    if group is not None and "millstream_format" not in group.attrs:
        raise StudyError(f"store.path is {path}: that is not millstream's; {remedy}")
    # The hash is written last: without it the process that created the group was killed.
    if group is None or "hash" not in group.attrs:
        steps, overwrite = kept_steps(config.keep, solver.stored_steps), group is not None
        dtype, compression = config.dtype, config.compression
        group = create(store, solver, simulations, steps, dtype, compression, overwrite)
        group.attrs.update(attributes(config, identity, solver))
    elif (there := streams_version(attributes_of(group)["study"])) != streams_version(identity):
        raise StudyError(
            f"store.path is {path}, whose simulations were drawn by version {there} of the random "
            "streams and priors, but this Millstream draws by version "
            f"{streams_version(identity)}: it can be read, but nothing can be added to it; {remedy}"
        )
    elif difference := _difference(attributes_of(group)["study"], identity, solver):
        raise StudyError(
            f"store.path is {path}, the store of another study: {difference}; {remedy}"
        )
    else:
        _compare_code(group, path, config, identity.get("code"))
        resize(group, simulations)
        remove_rests(store)
    # One file then has the shapes of all arrays, so that no reader sees only some of them resized.
    with warnings.catch_warnings(action="ignore"):
        zarr.consolidate_metadata(store)


def _difference(there: dict[str, Any], here: dict[str, Any], solver: Solver) -> str:
    """Return the first difference of two identities but for the code, an empty text if none."""
    apart, noted = {"code"}, there.get("static_fields", {})
    if noted.keys() == solver.static_fields.keys() and not changed_static_fields(noted, solver):
        apart.add("static_fields")  # equal within rounding
    one, other = ({k: v for k, v in part.items() if k not in apart} for part in (there, here))
    return first_difference(one, other)


def _compare_code(
    group: zarr.Group, path: str, config: StoreConfig, code: dict[str, Any] | None
) -> None:
    """Check that the code of the solver is that of the store, or note that both are there.

    `code` is None where it is not known. Raises StudyError.
    """
    there = attributes_of(group)
    before = there["study"].get("code")
    if code is None or before == code:
        return
    if before is None:
        tell(
            f"the store {path} does not say by which code of the solver it was made: its "
            "simulations are taken to be by the code of now"
        )
    elif not config.accept_code_change:
        raise StudyError(
            f"store.path is {path}, whose simulations were computed by other code: "
            f"{changed(before, code)}; restore it, set store.path to another place, or keep "
            "simulations by both here by store.accept_code_change: true (to resume a run, in its "
            "study.yaml)"
        )
    else:
        earlier = there.get("earlier_code", [])
        noted = {id for item in earlier for id in item["simulations"]}
        ids = [id for id in np.flatnonzero(read(group, "complete")).tolist() if id not in noted]
        group.attrs["earlier_code"] = [*earlier, {"code": before, "simulations": ids}]
    group.attrs["study"] = {**there["study"], "code": code}
