"""The parts that a study's commands share, made as the study says. Raises StudyError."""

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
from framework.study.case import Case
from framework.study.design import Design
from framework.study.identity import identity
from framework.study.sections import BufferConfig
from framework.study.streams import Stream, derived_seed
from framework.training.surrogate import samples_per_simulation


def make_batches(case: Case, window: int) -> Buffer | StoredSamples:
    """What is trained from: an empty buffer, or the store that `training.source` names."""
    study, config = case.study, case.study.buffer
    batch_size, shape = study.training.batch_size, case.field_shape
    if study.training.source:
        _check_memory(config, stored_sample_bytes(case, window))
        source = StoreReader(study.training.source)
        check_source(source, identity(case))
        epochs, count = study.training.epochs, study.training.simulations
        return StoredSamples(source, config, batch_size, window, epochs, study.seed, count)
    _check_memory(config, window * case.step_bytes)
    parameters, in_turn = len(case.space), study.deterministic
    seed = derived_seed(study.seed, Stream.BUFFER, 0)
    try:
        return make_buffer(config, batch_size, window, parameters, shape, seed, in_turn)
    except ValueError as error:
        raise StudyError(str(error)) from None


def make_breeding(case: Case, ledger: Ledger) -> BredDesign | None:
    """The design of a study whose simulations are bred; None if it is fixed in advance."""
    study, parameters = case.study, case.solver.parameters
    if study.design.sampler != "breed":
        return None
    return BredDesign(study.design, parameters, study.seed, ledger, study.training.batch_size)


def make_ensemble(
    case: Case, held_out: int, training: int, store: Store | None, design: Design | None = None
) -> Ensemble:
    """Runs so many simulations of each kind, the held-out ones first; writes the others.

    `design`: whose they are; without it, the study's, which then is fixed in advance.
    """
    config, stored_steps, design = (
        case.study.ensemble,
        case.solver.stored_steps,
        design or case.design,
    )
    first, then = map(design.held_out, range(held_out)), map(design.start, range(training))
    ensemble = Ensemble(
        case.make_solver,
        config,
        chain(first, then),
        held_out + training,
        stored_steps,
        steps_per_block(config.group_size, stored_steps, case.step_bytes),
    )
    if store:
        ensemble.store(store.writer())
    return ensemble


def open_store(case: Case, breeding: BredDesign | None = None) -> Store | None:
    """The study's store, new or continued; None if it keeps none. Raises RunError, too.

    Of what was bred, a store that is continued may hold nothing but what `breeding` has decided.
    """
    study = case.study
    if study.store.keep == "none":
        return None
    place = study.store.location(study.name)
    store = Store.open(place, study.store, identity(case), case.solver, study.design.simulations)
    if breeding:
        try:
            breeding.check(store)
        except StudyError:
            store.close()
            raise
    return store


def stored_sample_bytes(case: Case, window: int) -> int:
    """The memory that a sample from a store takes: those of a simulation share its steps."""
    simulation = case.solver.stored_steps * case.step_bytes
    return -(-simulation // samples_per_simulation(case, window))


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
