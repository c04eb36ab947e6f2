"""Make the parts that a study's commands share, from its settings. Raises StudyError."""

import os
from collections.abc import Collection
from itertools import chain
from pathlib import Path

import torch

from framework.errors import StudyError
from framework.simulation.breeding import BredDesign
from framework.simulation.decisions import Decisions
from framework.simulation.dispenser import Dispenser, Groups, Owner
from framework.simulation.ensemble import Ensemble, steps_per_block
from framework.simulation.failures import Quarantine, Verdicts
from framework.simulation.solver_actor import Writer
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


def make_source(case: Case, ledger: Ledger, rank: int = 0) -> Source:
    """Make the source of batches: a stream through an empty buffer, or `training.source`.

    Each of several ranks has a part of that store.
    """
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
            (rank, study.training.ranks),
        )
    shape = SampleShape(len(case.space), ledger.window, case.field_shape)
    _check_memory(config, shape.bytes)
    expected = study.design.simulations * ledger.samples_per_simulation
    return StreamSource(make_buffer(case, shape, rank), ledger, expected)


def make_buffer(case: Case, shape: SampleShape, rank: int = 0) -> Buffer:
    """Make an empty buffer of the study's kind."""
    study, config = case.study, case.study.buffer
    path = BUFFERS[config.kind].path if config.kind in BUFFERS else config.kind
    try:
        kind = load_class(
            f"buffer.kind is {config.kind}", path, "framework.stream.buffers.buffer:Buffer"
        )
        with their_mistakes(f"buffer.kind is {config.kind}: making it failed", plain=ValueError):
            buffer: Buffer = kind(
                shape,
                generator(study.seed, Stream.BUFFER, rank),
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
    """Return the part of the study's `training` section that the trainer needs."""
    names = ("optimiser", "learning_rate", "weight_decay", "warmup_steps", "schedule", "precision")
    settings = {name: getattr(config, name) for name in names}
    return TrainerSettings(**settings, **config.stop.model_dump())


def make_breeding(case: Case) -> BredDesign | None:
    """Make the design of a study whose simulations are bred; None if it is fixed in advance."""
    study, parameters = case.study, case.solver.parameters
    if study.design.sampler != "breed":
        return None
    batch_size = study.training.batch_size
    return BredDesign(study.design, parameters, study.seed, Decisions(), batch_size)


def make_dispenser(
    case: Case,
    held_out: int,
    training: int,
    ended: Collection[int] = (),
    design: Design | None = None,
    owner: Owner = lambda number, group: None,
) -> Dispenser:
    """Make the dispenser of so many held-out and training simulations, the held-out ones first.

    `design` says what to simulate; by default it is the study's own, which is fixed in advance.
    `ended` and `owner`: see `Dispenser`.
    """
    design = design or case.design
    first, then = map(design.held_out, range(held_out)), map(design.start, range(training))
    return Dispenser(chain(first, then), case.study.ensemble.group_size, ended, owner)


def make_quarantine(case: Case, simulations: int) -> Quarantine:
    """Make the quarantine of so many simulations."""
    return Quarantine(simulations, case.study.ensemble.max_quarantined, case.space.names)


def make_ensemble(
    case: Case,
    groups: Groups,
    verdicts: Verdicts,
    writer: Writer | None,
    programs: Path | None,
    actors: int | None = None,
) -> Ensemble:
    """Make an ensemble of `actors` processes; by default it has all of the study's.

    Training simulations are written by `writer`, and what programs print to files in the folder
    `programs`.
    """
    config, stored_steps = case.study.ensemble, case.solver.stored_steps
    if actors is not None:
        config = config.model_copy(update={"actors": actors})
    ensemble = Ensemble(
        case.make_solver,
        config,
        groups,
        verdicts,
        stored_steps,
        steps_per_block(config.group_size, stored_steps, case.step_bytes),
    )
    if writer:
        ensemble.store(writer)
    if programs:
        ensemble.keep_output(programs)
    return ensemble


def open_store(case: Case, breeding: BredDesign | None = None) -> Store | None:
    """Open the study's store, new or continued; return None if it keeps none.

    With `breeding`, a continued store may only hold simulations that it has decided. Raises
    RunError, too.
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
    """Return the memory of a sample from a store; samples of a simulation share its steps."""
    simulation = case.solver.stored_steps * case.step_bytes
    return -(-simulation // samples_per_simulation(case, window))


def memory(config: BufferConfig) -> int:
    """Return the bytes available to a buffer: a GPU's free memory, or all memory of the machine."""
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
