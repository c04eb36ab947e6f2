"""Add simulations where a store has its best answers, to search again.

A store holds the simulations of its study's design. Simulations at other parameters go to a store
of their own beside it, NAME.grown.zarr for NAME.zarr, with the same solver, bounds and layout; it
is indexed and searched alike. Its design is `points`: the parameters of its simulations are those
that it lists; each growth adds some and changes none. The two answers, merged, are the exact answer
over both. As in any store, complete simulations stay whatever is killed.

Shapes: N new simulations, p parameters.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
from numpy.typing import NDArray

from framework.errors import RunError, StudyError
from framework.run.interrupt import Interrupts
from framework.run.simulating import store_all
from framework.simulation.cluster import ray_for
from framework.simulation.dispenser import Dispenser
from framework.simulation.ensemble import Ensemble, steps_per_block
from framework.simulation.failures import Quarantine
from framework.store.owner import Store
from framework.store.reader import StoreReader
from framework.study import versions
from framework.study.design import Simulation
from framework.study.fingerprint import changed, fingerprint
from framework.study.identity import streams_version
from framework.study.sections import EnsembleConfig, StoreConfig
from framework.study.streams import Stream, derived_seed
from solvers.base import Solver


@dataclass(frozen=True)
class Growth:
    """The simulations that were added."""

    path: str  # of the store that has them
    simulations: tuple[int, ...]  # their ids in it
    failed: int  # how many of those asked for failed
    error: str  # the last one
    seconds: float


def grown_path(store: str) -> str:
    """Return the path of the store grown beside a store."""
    return f"{store.removesuffix('.zarr')}.grown.zarr"


def grown_store(reader: StoreReader) -> StoreReader | None:
    """Open the store that was grown from this one; return None if there is no whole one yet.

    Raises StudyError if it was grown from another store, DamagedError if it is damaged.
    """
    try:
        grown = StoreReader(grown_path(reader.path))
    except StudyError:
        return None
    if grown.study["design"].get("grown_from") != reader.identity["hash"]:
        raise StudyError(
            f"{grown.path} was not grown from the store that is at {reader.path} now: move it "
            "elsewhere"
        )
    return grown


def grow(
    reader: StoreReader,
    make_solver: Callable[[], Solver],
    points: NDArray[np.float64],
    config: EnsembleConfig,
) -> Growth:
    """Simulate parameters [N, p] with the solver of a store, into the store beside it.

    Raises StudyError if the store is of another version of random streams and priors, RunError if
    all simulations fail or the store cannot be written, and KeyboardInterrupt if interrupted;
    simulations complete by then stay.
    """
    began = time.monotonic()
    if (drawn := streams_version(reader.study)) != versions.STREAMS:
        raise StudyError(
            f"{reader.path} was drawn by version {drawn} of the random streams and priors, but "
            f"this Millstream draws by version {versions.STREAMS}: it can be asked, but nothing "
            "can be added"
        )
    solver = make_solver()
    _check_code(reader, solver)
    path = grown_path(reader.path)
    there = grown_store(reader)
    taken = set() if there is None else set(there.complete.tolist())
    ids = list(islice((id for id in count() if id not in taken), len(points)))
    size = max(max(ids, default=-1), max(taken, default=-1)) + 1
    store = Store.open(
        path, StoreConfig(**reader.study["store"]), _grown_identity(reader, solver), solver, size
    )
    try:
        if not store.completed.isdisjoint(ids):
            raise RunError(f"another run has just added simulations to {path}: run this again")
        simulations = [
            Simulation(id, point, derived_seed(reader.study["seed"], Stream.SIMULATION, id))
            for id, point in zip(ids, np.asarray(points, dtype=np.float64), strict=True)
        ]
        # However many fail.
        quarantine = Quarantine(len(simulations), 1.0, solver.parameters.names)
        ensemble = _ensemble(make_solver, solver, config, simulations, quarantine, store)
        with Interrupts(ensemble.stop) as interrupts, ray_for(config, 0):
            try:
                store_all(ensemble, store, solver.stored_steps)
            finally:
                ensemble.close()
        if interrupts.received:
            raise KeyboardInterrupt
        added = tuple(id for id in ids if id in store.completed)
    finally:
        store.close()
    failures = quarantine.items
    error = failures[-1].error if failures else ""
    if not added:
        raise RunError(f"none of the {len(points)} simulations succeeded; the last error: {error}")
    return Growth(path, added, len(failures), error, time.monotonic() - began)


def _check_code(reader: StoreReader, solver: Solver) -> None:
    """Raise StudyError if the code of the solver is not that of the store."""
    there, here = reader.study.get("code"), fingerprint(solver)
    if there is not None and (difference := changed(there, here)):
        raise StudyError(
            f"the simulations of {reader.path} were computed by other code: {difference}; restore "
            "it, or ask without --grow"
        )


def _grown_identity(reader: StoreReader, solver: Solver) -> dict[str, object]:
    """Return the identity of the grown store: that of the store, with another design."""
    design = {**reader.study["design"], "sampler": "points", "grown_from": reader.identity["hash"]}
    return {**reader.study, "design": design, "code": fingerprint(solver)}


def _ensemble(
    make_solver: Callable[[], Solver],
    solver: Solver,
    config: EnsembleConfig,
    simulations: Sequence[Simulation],
    quarantine: Quarantine,
    store: Store,
) -> Ensemble:
    """Make an ensemble that runs the simulations."""
    step_bytes = 4 * len(solver.fields) * math.prod(solver.grid.shape)
    ensemble = Ensemble(
        make_solver,
        config,
        Dispenser(simulations, config.group_size).groups(),
        quarantine,
        solver.stored_steps,
        steps_per_block(config.group_size, solver.stored_steps, step_bytes),
    )
    ensemble.store(store.writer())
    return ensemble
