"""The parts that a study's commands share, made as the study says. Raises StudyError."""

import math
import os
from itertools import chain

import torch

from framework.errors import StudyError
from framework.simulation.breeding import BredDesign
from framework.simulation.ensemble import Ensemble, steps_per_block
from framework.store.owner import Store
from framework.store.reader import StoreReader
from framework.stream.buffer import Buffer, make_buffer
from framework.stream.ledger import Ledger
from framework.stream.stored import StoredSamples, check_source
from framework.study.design import Design
from framework.study.identity import identity
from framework.study.sections import BufferConfig
from framework.study.study import Study


def make_batches(study: Study, window: int) -> Buffer | StoredSamples:
    """What is trained from: an empty buffer, or the store that `training.source` names."""
    solver, config = study.solver_factory()(), study.buffer
    batch_size, shape = study.training.batch_size, (len(solver.fields), *solver.grid.shape)
    if study.training.source:
        _check_memory(config, stored_sample_bytes(study))
        source = StoreReader(study.training.source)
        check_source(source, identity(study, study.store))
        epochs, count = study.training.epochs, study.training.simulations
        return StoredSamples(source, config, batch_size, window, epochs, study.seed, count)
    _check_memory(config, 4 * window * math.prod(shape))
    parameters, in_turn = len(solver.parameters), study.deterministic
    try:
        return make_buffer(config, batch_size, window, parameters, shape, study.seed, in_turn)
    except ValueError as error:
        raise StudyError(str(error)) from None


def make_breeding(study: Study, ledger: Ledger) -> BredDesign | None:
    """The design of a study whose simulations are bred; None if it is fixed in advance."""
    if study.design.sampler != "breed":
        return None
    parameters, batch_size = study.solver_factory()().parameters, study.training.batch_size
    return BredDesign(study.design, parameters, study.seed, ledger, batch_size)


def make_ensemble(
    study: Study, held_out: int, training: int, store: Store | None, design: Design | None = None
) -> Ensemble:
    """Runs so many simulations of each kind, the held-out ones first; writes the others.

    `design`: whose they are; without it, the study's, which then is fixed in advance.
    """
    solver, design = study.solver_factory()(), design or study.make_design()
    first, then = map(design.held_out, range(held_out)), map(design.start, range(training))
    step_bytes = 4 * len(solver.fields) * math.prod(solver.grid.shape)
    ensemble = Ensemble(
        study.solver_factory(),
        study.ensemble,
        chain(first, then),
        held_out + training,
        solver.stored_steps,
        steps_per_block(study.ensemble.group_size, solver.stored_steps, step_bytes),
    )
    if store:
        ensemble.store(store.writer())
    return ensemble


def open_store(study: Study, breeding: BredDesign | None = None) -> Store | None:
    """The study's store, new or continued; None if it keeps none. Raises RunError, too.

    Of what was bred, a store that is continued may hold nothing but what `breeding` has decided.
    """
    if study.store.keep == "none":
        return None
    store = Store.open(
        study.store.location(study.name),
        study.store,
        identity(study, study.store),
        study.solver_factory()(),
        study.design.simulations,
    )
    if breeding:
        try:
            breeding.check(store)
        except StudyError:
            store.close()
            raise
    return store


def stored_sample_bytes(study: Study) -> int:
    """The memory that a sample from a store takes: those of a simulation share its steps."""
    solver = study.solver_factory()()
    simulation = 4 * solver.stored_steps * len(solver.fields) * math.prod(solver.grid.shape)
    return -(-simulation // study.samples_per_simulation())


def memory(config: BufferConfig) -> int:
    """What is free where a buffer is to be held, in bytes; of a machine's memory, all there is."""
    if config.device == "cuda":
        return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else 0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _check_memory(config: BufferConfig, sample_bytes: int) -> None:
    """Raise StudyError if the buffer cannot be held where the study wants it."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise StudyError("buffer.device is cuda, but there is no GPU here: set it to cpu")
    free = memory(config)
    needed = config.capacity * sample_bytes
    if needed > free:
        raise StudyError(
            f"buffer.capacity is {config.capacity}: that takes {needed / 2**30:.1f} GiB, "
            f"but there are {free / 2**30:.1f} GiB on {config.device}; lower the capacity"
        )
