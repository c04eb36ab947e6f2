"""The parts that a study's commands share, made as the study says. Raises StudyError."""

import os
from itertools import chain

import torch

from framework.errors import StudyError
from framework.simulation.breeding import BredDesign
from framework.simulation.decisions import Decisions
from framework.simulation.ensemble import Ensemble, steps_per_block
from framework.store.owner import Store
from framework.store.reader import StoreReader
from framework.stream.buffers.buffer import Buffer
from framework.stream.ledger import Ledger
from framework.stream.samples import SampleShape
from framework.stream.source import Source, StreamSource
from framework.stream.stored import StoredSamples, check_source
from framework.study.buffers import BUFFERS
from framework.study.case import Case
from framework.study.component import load_class, their_mistakes
from framework.study.design import Design
from framework.study.identity import identity
from framework.study.sections import BufferConfig, TrainingConfig
from framework.study.streams import Stream, generator
from framework.training.surrogate import samples_per_simulation
from framework.training.trainer import TrainerSettings


def make_source(case: Case, ledger: Ledger) -> Source:
    """What is trained on: the stream through an empty buffer, or the store of `training.source`."""
    study, config = case.study, case.study.buffer
    if study.training.source:
        _check_memory(config, stored_sample_bytes(case, ledger.window))
        reader = StoreReader(study.training.source)
        check_source(reader, identity(case))
        return StoredSamples(
            reader,
            ledger,
            config.capacity,
            study.training.batch_size,
            study.training.epochs,
            study.seed,
            study.training.simulations,
            config.device,
        )
    shape = SampleShape(len(case.space), ledger.window, case.field_shape)
    _check_memory(config, shape.bytes)
    expected = study.design.simulations * ledger.samples_per_simulation
    return StreamSource(make_buffer(case, shape), ledger, expected)


def make_buffer(case: Case, shape: SampleShape) -> Buffer:
    """An empty buffer of the study's kind."""
    study, config = case.study, case.study.buffer
    path = BUFFERS[config.kind].path if config.kind in BUFFERS else config.kind
    try:
        kind = load_class(
            f"buffer.kind is {config.kind}", path, "framework.stream.buffers.buffer:Buffer"
        )
        with their_mistakes(f"buffer.kind is {config.kind}: making it failed", plain=ValueError):
            buffer: Buffer = kind(
                shape,
                generator(study.seed, Stream.BUFFER, 0),
                config.capacity,
                study.training.batch_size,
                config.watermark,
                config.replay,
                config.device,
                study.deterministic,
            )
    except ValueError as error:
        raise case.mistake(str(error)) from None
    return buffer


def trainer_settings(config: TrainingConfig) -> TrainerSettings:
    """The part of the study's `training` section that the trainer needs."""
    names = ("optimiser", "learning_rate", "weight_decay", "warmup_steps", "schedule", "precision")
    settings = {name: getattr(config, name) for name in names}
    return TrainerSettings(**settings, **config.stop.model_dump())


def make_breeding(case: Case) -> BredDesign | None:
    """The design of a study whose simulations are bred; None if it is fixed in advance."""
    study, parameters = case.study, case.solver.parameters
    if study.design.sampler != "breed":
        return None
    batch_size = study.training.batch_size
    return BredDesign(study.design, parameters, study.seed, Decisions(), batch_size)


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
    stranger = breeding.stranger(*store.parameters()) if breeding else None
    if stranger is not None:
        store.close()
        raise StudyError(
            f"store.path is {store.path}, where simulation {stranger} is one that another run has "
            "bred: set store.path to another place, or store.keep to none"
        )
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
