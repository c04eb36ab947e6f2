"""What a run's summary says in words: who set the pace, what to change, what is amiss."""

import math
from dataclasses import replace
from typing import Any

import pytest
from places import QUICKSTART
from summaries import UNEVENTFUL

from framework.report.advice import pace
from framework.report.summary import (
    CheckpointFigures,
    FailedSimulation,
    RegisteredModel,
    Summary,
    TrackedRun,
    Waits,
)
from framework.report.text import run_text
from framework.run.measures import redrawn
from framework.study.case import Case
from framework.study.sections import BufferConfig
from framework.study.study import Study


def summary(**changes: Any) -> Summary:
    """Of a run in which nobody waited and nothing is amiss; `part__field` changes a value."""
    made = UNEVENTFUL
    for path, value in changes.items():
        part, _, field = path.partition("__")
        made = (
            replace(made, **{part: replace(getattr(made, part), **{field: value})})
            if field
            else replace(made, **{part: value})
        )
    return made


def words(study: Study | None = None, **changes: Any) -> str:
    """The text of such a run, on one line."""
    case = Case(study or Study.load(QUICKSTART))
    return " ".join(run_text(summary(**changes), case).split())


def test_drawing_again_counts_as_waiting_for_samples() -> None:
    """A wide replay band lets training draw each sample 15 times rather than wait."""
    wait = Waits(solvers=0.0, training=0.01, transport=0.99, redraws=0.9)
    assert pace(wait) == "solvers"
    told = words(Study.load(QUICKSTART, ["buffer.replay=[1, 16]"]), wait=wait)
    assert "training waited 1 % of the time for samples (and drew samples again for 90 %)" in told
    assert "more draws of each sample" not in told


@pytest.mark.parametrize(
    ("least", "received", "drawn", "expected"),
    [(1, 100, 100, 0), (1, 100, 400, 300), (2, 100, 400, 200), (4, 100, 300, 0), (1, 0, 0, 0)],
)
def test_only_draws_beyond_the_least_are_redraws(
    least: float, received: int, drawn: int, expected: float
) -> None:
    buffer = BufferConfig(capacity=10, replay=(least, 8))
    assert redrawn(buffer, received, drawn) == expected


@pytest.mark.parametrize(
    ("solvers", "training", "transport", "expected"),
    [
        (0.0, 0.9, 0.95, "solvers"),
        (0.02, 0.3, 0.5, "solvers"),
        (0.02, 0.6, 0.02, "solvers"),  # and transport is next
        (0.25, 0.7, 0.6, "solvers"),
        (0.95, 0.0, 0.0, "training"),
        (0.3, 0.05, 0.1, "training"),
        (0.7, 0.3, 0.25, "training"),
        (0.8, 0.5, 0.0, "receiver"),
        (0.3, 0.7, 0.1, "receiver"),
        (0.3, 0.3, 0.3, "in turn"),
        (0.0, 0.04, 0.03, "training"),  # the receiver waits for room, and the solvers need not yet
        (0.0, 0.0, 0.2, "all alike"),
        (0.1, 0.14, 0.6, "all alike"),
    ],
)
def test_who_waited_tells_who_set_the_pace(
    solvers: float, training: float, transport: float, expected: str
) -> None:
    assert pace(Waits(solvers, training, transport)) == expected


@pytest.mark.parametrize(
    ("wait", "overrides", "said"),
    [
        (
            Waits(0.01, 0.63, 0.6),
            ["ensemble.address=ray://head:10001", "ensemble.actors=3"],
            [
                "The solvers set the pace: training waited 63 % of the time",
                "ensemble.actors, now 3",
                "ensemble.group_size, now 4",
                "buffer.replay, now [1, 4]",
            ],
        ),
        (
            Waits(0.01, 0.63, 0.6),
            ["ensemble.actors=999"],  # more than any machine has CPUs
            ["ensemble.address, now none", "999 solvers and training take this machine's"],
        ),
        (
            Waits(0.01, 0.63, 0.6),
            ["buffer={kind: fifo, capacity: 100}"],
            ["a reservoir (buffer.kind, now fifo)"],
        ),
        (Waits(0.01, 0.63, 0.6), ["deterministic=true"], ["deterministic: false (now true)"]),
        (Waits(0.1, 0.63, 0.05), [], ["The receiver is next: it waited only 5 % for the solvers"]),
        (
            Waits(0.75, 0.01, 0.0),
            ["ensemble.actors=8", "buffer.replay=[2, 4]"],
            [
                "Training sets the pace: it waited 1 % of the time for samples, the solvers 75 %",
                "a GPU",
                "training.batch_size, now 10",
                "now fno",
                "the first number of buffer.replay, now [2, 4]",
                "no more than 2 of the 8 solvers",
            ],
        ),
        (
            Waits(0.8, 0.5, 0.0),
            ["solver.grid_size=16", "ensemble.actors=999"],
            [
                "The receiver sets the pace",
                "ensemble.group_size, now 4: a message has 0.2 MiB",
                "fewer stored steps (now 50) or grid points (now 16 x 16)",
                "ensemble.actors, now 999",
            ],
        ),
        (
            Waits(0.3, 0.3, 0.3),
            [],
            ["take turns to wait (30 % and 30 %", "buffer.capacity (now 1500)", "[1, 4]"],
        ),
        (Waits(0.0, 0.1, 0.5), [], ["Nobody waited much"]),
    ],
)
def test_the_advice_names_the_study_s_values(
    wait: Waits, overrides: list[str], said: list[str]
) -> None:
    told = words(Study.load(QUICKSTART, overrides), wait=wait)
    for text in said:
        assert text in told
    assert "Beware" not in told


def test_no_advice_for_what_the_study_has_not() -> None:
    on_a_gpu = words(wait=Waits(0.75, 0.01, 0.0), training__device="cuda")
    assert "GPU" not in on_a_gpu
    assert "buffer.replay" not in on_a_gpu  # its first number is 1: less is refused
    assert "solvers (ensemble.actors)" not in on_a_gpu  # one is the least
    groups = Study.load(QUICKSTART, ["ensemble.group_size=24"])
    large = words(groups, wait=Waits(0.8, 0.5, 0.0))
    assert "group_size" not in large  # a message is large enough


def test_a_run_that_simulated_before_it_trained() -> None:
    told = words(training__steps_while_simulating=0)
    assert "over before training began" in told
    assert "buffer.watermark (now 500)" in told
    assert "pace" not in words(training__steps=0)


@pytest.mark.parametrize(
    ("fraction", "produced", "said", "not_said"),
    [
        (0.02, 1000, ["Training sets the pace", "batch_size"], ["buffer.replay", "solvers set"]),
        (0.5, 10000, ["Reading sets the pace", "buffer.capacity (now 1500) of 10000"], []),
        (0.5, 1000, ["Reading sets the pace", "faster disk"], ["buffer.capacity"]),
    ],
)
def test_training_from_a_store(
    fraction: float, produced: int, said: list[str], not_said: list[str]
) -> None:
    told = words(
        source={"path": "stores/heat.zarr"},
        training__wait_fraction=fraction,
        training__steps_while_simulating=0,
        samples__produced=produced,
    )
    assert "stores/heat.zarr" in told
    for text in said:
        assert text in told
    for text in not_said:
        assert text not in told


FAILED = FailedSimulation(
    simulation=17,
    parameters={"initial": 480.0, "left": 101.25},
    step=4,
    error="ValueError: CFL number 1.7\nis above 1",
)


@pytest.mark.parametrize(
    ("changes", "overrides", "said"),
    [
        (
            {"validation__trivial": {"mean_field": 0.04, "initial_field": 0.6}},
            [],
            "the surrogate's error (5.00 %) is not below that of the mean field (4.00 %)",
        ),
        (
            {"samples__untrained": 700},
            ["training.stop={steps: 2000}"],
            "700 samples were computed and not trained on: training.stop (steps: 2000)",
        ),
        ({"samples__drawn": 39500}, [], "samples were drawn 4.0 times each, all that"),
        (
            {"quarantined": (FAILED, FAILED)},
            [],
            "2 simulations were quarantined, so that the surrogate knows nothing there. The first: "
            "17 at step 4 (initial = 480, left = 101.25): ValueError: CFL number 1.7 is above 1",
        ),
        (
            {"checkpoint": CheckpointFigures(9, 8.0)},
            ["checkpoint.every_seconds=10"],
            "training stood still for checkpoints 8 % of the time: write them less often "
            "(checkpoint.every_seconds, now 10)",
        ),
    ],
)
def test_what_is_amiss(changes: dict[str, Any], overrides: list[str], said: str) -> None:
    told = words(Study.load(QUICKSTART, overrides), **changes)
    assert told.count("Beware") == 1
    assert f"Beware: {said}" in told


def test_nothing_amiss_is_nothing_said() -> None:
    checkpoint = CheckpointFigures(2, 4.0)
    assert "Beware" not in words(checkpoint=checkpoint, samples__drawn=30000, validation=None)
    # Drawn as often as permitted, where nothing else is.
    once = Study.load(QUICKSTART, ["buffer.replay=[1, 1]"])
    assert "Beware" not in words(once, samples__drawn=10000)


def test_an_interrupted_run_says_how_to_go_on() -> None:
    told = words(status="interrupted", samples__untrained=700)
    assert told.endswith("To go on: millstream resume runs/quickstart")
    assert "Beware" not in told
    assert "resume" not in words()


def test_the_figures_are_there() -> None:
    case = Case(Study.load(QUICKSTART))
    lines = run_text(
        summary(
            store="stores/quickstart.zarr",
            samples__stored=10000,
            checkpoint=CheckpointFigures(2, 0.4),
            mlflow=TrackedRun("sqlite:///mlflow.db", "0123"),
            model=RegisteredModel("quickstart", "3"),
            validation__trivial={"mean_field": math.nan, "initial_field": 0.6},
        ),
        case,
    ).splitlines()
    assert lines[0] == "runs/quickstart: done after 100 s"
    text = "\n".join(lines)
    for shown in (
        "200 of 200 completed",
        "10000 trained on, 0 not, 20000 drawn",
        "2000 steps on cpu, 1800 of them while simulating, 800 samples/s",
        "solvers 0 % to hand over, training 0 % for samples, receiver 50 % for solvers",
        "330752 parameters; a step takes 39.6 MFLOP and 5.4 MB",
        "relative L2 5.00 %",
        "mean field unknown, initial field 60.00 %",
        "stores/quickstart.zarr, 10000 samples",
        "2, training waited 0.4 s",
        "sqlite:///mlflow.db, run 0123",
        "quickstart, version 3",
    ):
        assert shown in text
    assert max(map(len, lines)) <= 100
