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
from framework.run.ranks.figures import Figures
from framework.study.sections import kept_steps
from framework.tracking.recorder import Tracking


def summarised(measures: Measures, status: str, directory: str, tracking: Tracking) -> Summary:
    """Return the summary of a run as far as it has come."""
    parts, figures = measures.parts, measures.ranks.figures()
    completed = len(measures.ranks.completed())
    names = parts.case.space.names
    checkpoints, registered, uri = parts.checkpoints, tracking.registered, tracking.uri
    return Summary(
        run_dir=directory,
        status=status,
        source=measures.source,
        store=parts.store.path if parts.store else None,
        simulations=SimulationCounts(
            requested=parts.study.design.simulations,
            completed=completed,
            quarantined=sum(not item.simulation.held_out for item in parts.quarantine.items),
        ),
        quarantined=tuple(
            FailedSimulation(**item.describe(names)) for item in parts.quarantine.items
        ),
        samples=_sample_counts(measures, figures),
        training=_training_figures(measures, figures),
        surrogate=measures.cost,
        wait=measures.waits(figures),
        validation=parts.validation.latest,
        checkpoint=CheckpointFigures(checkpoints.count, checkpoints.seconds),
        breeding=_breeding(measures),
        model=RegisteredModel(**registered) if registered else None,
        mlflow=TrackedRun(uri, tracking.run_id) if uri else None,
        seconds=measures.clock.seconds,
    )


def _sample_counts(measures: Measures, figures: Figures) -> SampleCounts:
    parts = measures.parts
    kept = kept_steps(parts.study.store.keep, parts.case.solver.stored_steps)
    return SampleCounts(
        produced=figures.produced,
        # A simulation that started anew was put twice.
        received=min(figures.received, figures.produced),
        unique_trained=figures.unique_trained,
        untrained=figures.untrained,
        drawn=figures.drawn,
        stored=measures.stored() * len(kept),
    )


def _training_figures(measures: Measures, figures: Figures) -> TrainingFigures:
    return TrainingFigures(
        steps=figures.steps,
        steps_while_simulating=figures.while_receiving.steps,
        samples_per_second=ratio(figures.drawn, figures.seconds),
        wait_fraction=ratio(figures.waited, figures.seconds),
        loss=figures.loss,
        seconds=figures.seconds,
        seconds_to_end=measures.clock.seconds_to_end,
        device=measures.ranks.device,
    )


def _breeding(measures: Measures) -> BreedingFigures | None:
    breeding = measures.parts.breeding
    if breeding is None:
        return None
    counts = breeding.counts()
    return BreedingFigures(**counts, share=ratio(counts["seconds"], measures.clock.seconds))
