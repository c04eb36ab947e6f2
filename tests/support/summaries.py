"""The summary of a run, for tests that need one."""

from framework.report.summary import (
    CheckpointFigures,
    SampleCounts,
    SimulationCounts,
    StepCost,
    Summary,
    TrainingFigures,
    Waits,
)
from framework.training.results import Distribution, Scores

# Of a run in which nobody waited and nothing is amiss.
UNEVENTFUL = Summary(
    run_dir="runs/quickstart",
    status="done",
    source=None,
    store=None,
    simulations=SimulationCounts(requested=200, completed=200, quarantined=0),
    quarantined=(),
    samples=SampleCounts(
        produced=10000,
        received=10000,
        unique_trained=10000,
        untrained=0,
        drawn=20000,
        stored=0,
    ),
    training=TrainingFigures(
        steps=2000,
        steps_while_simulating=1800,
        samples_per_second=800.0,
        wait_fraction=0.05,
        loss=0.01,
        seconds=25.0,
        seconds_to_end=98.0,
        device="cpu",
    ),
    surrogate=StepCost(parameters=330752, flops=39_600_000, memory_bytes=5_400_000),
    wait=Waits(solvers=0.0, training=0.0, transport=0.5),
    validation=Scores(
        step=2000,
        simulations=20,
        median_simulation=-3,
        relative_l2=Distribution(mean=0.05, p50=0.04, p90=0.09, p99=0.1, max=0.1),
        nrmse=0.05,
        max=31.2,
        trivial={"mean_field": 0.3, "initial_field": 0.6},
        per_time=(),
    ),
    checkpoint=CheckpointFigures(count=0, seconds=0.0),
    breeding=None,
    model=None,
    mlflow=None,
    seconds=100.0,
)
