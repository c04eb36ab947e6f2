"""The outcome of a run: its summary."""

from framework.report.summary import (
    BreedingFigures,
    CheckpointFigures,
    FailedSimulation,
    RegisteredModel,
    SampleCounts,
    SimulationCounts,
    Summary,
    TrackedRun,
    TrainingFigures,
)
from framework.run.measures import Measures, ratio
from framework.study.sections import kept_steps
from framework.tracking.recorder import Tracking


def summarised(measures: Measures, status: str, directory: str, tracking: Tracking) -> Summary:
    """Return the summary of a run as far as it has come."""
    parts = measures.parts
    names = parts.case.space.names
    checkpoints, registered, uri = parts.checkpoints, tracking.registered, tracking.uri
    return Summary(
        run_dir=directory,
        status=status,
        source=measures.source,
        store=parts.store.path if parts.store else None,
        simulations=SimulationCounts(
            requested=parts.study.design.simulations,
            completed=measures.completed(),
            quarantined=sum(not item.simulation.held_out for item in parts.ensemble.quarantined),
        ),
        quarantined=tuple(
            FailedSimulation(**item.describe(names)) for item in parts.ensemble.quarantined
        ),
        samples=_sample_counts(measures),
        training=_training_figures(measures),
        surrogate=measures.cost,
        wait=measures.waits(),
        validation=parts.validation.latest,
        checkpoint=CheckpointFigures(checkpoints.count, checkpoints.seconds),
        breeding=_breeding(measures),
        model=RegisteredModel(**registered) if registered else None,
        mlflow=TrackedRun(uri, tracking.run_id) if uri else None,
        seconds=measures.seconds,
    )


def _sample_counts(measures: Measures) -> SampleCounts:
    parts, rank = measures.parts, measures.parts.rank
    produced, untrained = measures.samples()
    kept = kept_steps(parts.study.store.keep, rank.ledger.stored_steps)
    return SampleCounts(
        produced=produced,
        # A simulation that started anew was put twice.
        received=min(rank.source.received, produced),
        unique_trained=rank.ledger.unique_trained,
        untrained=untrained,
        drawn=rank.trainer.drawn,
        stored=measures.stored() * len(kept),
    )


def _training_figures(measures: Measures) -> TrainingFigures:
    trainer = measures.parts.rank.trainer
    return TrainingFigures(
        steps=trainer.optimiser_steps,
        steps_while_simulating=measures.steps_while_simulating,
        samples_per_second=ratio(trainer.drawn, trainer.seconds),
        wait_fraction=ratio(trainer.waited, trainer.seconds),
        loss=float(trainer.loss),
        seconds=trainer.seconds,
        seconds_to_end=measures.seconds_to_end,
        device=str(trainer.device),
    )


def _breeding(measures: Measures) -> BreedingFigures | None:
    breeding = measures.parts.breeding
    if breeding is None:
        return None
    counts = breeding.counts()
    return BreedingFigures(**counts, share=ratio(counts["seconds"], measures.seconds))
