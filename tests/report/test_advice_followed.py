"""Whatever a run advises can be done: a study that follows it is accepted."""

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from summaries import UNEVENTFUL

from framework.errors import StudyError
from framework.report.advice import advise
from framework.report.amiss import amiss
from framework.report.summary import CheckpointFigures, Summary, Waits
from framework.run.ranks.rank import Rank
from framework.study.case import Case
from framework.study.study import Study
from framework.training.surrogate import make_surrogate

pytestmark = pytest.mark.usefixtures("one_thread")

Values = dict[str, Any]


def accept(values: Values) -> Case:
    """Check a study as `train` does before it starts Ray. Raises StudyError."""
    case = Case(Study.of(values))
    Rank(case, make_surrogate(case))
    return case


SURROGATES: list[Values] = [
    {"name": "mlp", "hidden": [4]},
    {"name": "mlp", "hidden": [4], "mode": "autoregressive"},
    {"name": "message_passing", "mode": "autoregressive", "bundle": 2, "hidden": 4, "layers": 1},
]


@st.composite
def studies(draw: st.DrawFn) -> Values:
    """The values of studies that are accepted."""
    kind = draw(st.sampled_from(["fifo", "firo", "reservoir"]))
    batch = draw(st.integers(1, 12))
    watermark = 0 if kind == "fifo" else draw(st.integers(0, 12))
    least = draw(st.integers(1, 4)) if kind == "reservoir" else 1
    most = least + draw(st.integers(0, 3)) if kind == "reservoir" else 1
    deterministic = draw(st.booleans())
    surrogate = draw(st.sampled_from(SURROGATES))
    window = 3 if "bundle" in surrogate else 2
    return {
        "name": "followed",
        "solver": draw(
            st.sampled_from(
                [
                    {"name": "heat", "grid_size": 5, "dimensions": 1},
                    {"name": "lorenz", "substeps": 64},
                ]
            )
            if surrogate["name"] == "mlp"
            else st.just({"name": "heat", "grid_size": 5, "dimensions": 1})
        )
        | {"stored_steps": draw(st.integers(window, window + 1))},
        "design": {"simulations": draw(st.integers(1, 5))},
        "ensemble": {
            "actors": 1 if deterministic else draw(st.integers(1, 300)),
            "group_size": draw(st.integers(1, 4)),
        },
        "buffer": {
            "kind": kind,
            "capacity": watermark + batch + draw(st.integers(0, 2)),
            "watermark": watermark,
            "replay": [least, most],
        },
        "surrogate": surrogate,
        "training": {
            "batch_size": batch,
            "stop": draw(st.sampled_from(["drained", {"steps": 5}, {"samples": 9}])),
        },
        "deterministic": deterministic,
    }


SHARES = st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.8])
SUMMARIES = st.builds(
    lambda waits, while_simulating, checkpoints, untrained, drawn, error: replace(
        UNEVENTFUL,
        wait=Waits(*waits),
        training=replace(UNEVENTFUL.training, steps_while_simulating=while_simulating),
        checkpoint=CheckpointFigures(3, checkpoints),
        samples=replace(UNEVENTFUL.samples, untrained=untrained, drawn=drawn),
        validation=replace(
            UNEVENTFUL.validation,  # type: ignore[type-var]
            relative_l2=replace(UNEVENTFUL.validation.relative_l2, mean=error),  # type: ignore[union-attr]
        ),
    ),
    st.tuples(SHARES, SHARES, SHARES),
    st.sampled_from([0, 100]),
    st.sampled_from([0.0, 50.0]),
    st.sampled_from([0, 7]),
    st.sampled_from([10000, 90000]),
    st.sampled_from([0.05, 5.0]),
)


def change(values: Values, key: str, by: Callable[[Any], Any], default: Any = None) -> None:
    section, _, name = key.rpartition(".")
    part = values.setdefault(section, {}) if section else values
    part[name] = by(part.get(name, default))


def follow(values: Values, piece: str, stored_steps: int) -> None:
    """Do what a piece of advice says, by the least that it may mean."""
    known: list[tuple[str, str, Callable[[Any], Any], Any]] = [
        ("a lower buffer.watermark", "buffer.watermark", lambda n: n - 1, 0),
        ("more simulations \\(design.simulations", "design.simulations", lambda n: n + 1, 0),
        ("more simulations in one call", "ensemble.group_size", lambda n: n + 1, 1),
        ("more solvers at once", "ensemble.actors", lambda n: n + 1, 1),
        ("fewer solvers", "ensemble.actors", lambda n: n - 1, 1),
        ("larger messages", "ensemble.group_size", lambda n: n + 1, 1),
        ("a smaller ensemble.group_size", "ensemble.group_size", lambda n: n - 1, 1),
        ("deterministic: false", "deterministic", lambda _: False, None),
        ("ensemble.address", "ensemble.address", lambda _: "127.0.0.1:6379", None),
        ("a reservoir \\(buffer.kind", "buffer.kind", lambda _: "reservoir", None),
        ("second number of buffer.replay", "buffer.replay", lambda r: [r[0], r[1] + 1], None),
        ("first number of buffer.replay", "buffer.replay", lambda r: [r[0] - 1, r[1]], None),
        ("a wider buffer.replay", "buffer.replay", lambda r: [r[0], r[1] + 1], None),
        ("all that buffer.replay", "buffer.replay", lambda r: [r[0], r[1] + 1], None),
        ("larger batches", "training.batch_size", lambda n: n + 1, 10),
        ("a larger buffer.capacity", "buffer.capacity", lambda n: n + 1, None),
        ("smaller \\(buffer.capacity", "buffer.capacity", lambda n: n - 1, None),
        ("less often \\(checkpoint.every_seconds", "checkpoint.every_seconds", lambda n: n + 1, 60),
        ("With `stop: drained`", "training.stop", lambda _: "drained", None),
        ("change training.learning_rate", "training.learning_rate", lambda r: r / 2, 1e-3),
        ("fewer stored steps", "solver.stored_steps", lambda n: n - 1, stored_steps),
    ]
    found = [item for item in known if re.search(item[0], piece)]
    no_key = ("a GPU", "a smaller surrogate", "grid points", "quarantined", "no more than")
    assert found or any(words in piece for words in no_key), piece
    for _, key, by, default in found:
        change(values, key, by, default)
    if limit := re.search(r"no more than (\d+) of the", piece):
        change(values, "ensemble.actors", lambda _: int(limit[1]))


@settings(max_examples=60)
@given(studies(), SUMMARIES)
def test_all_advice_can_be_followed(values: Values, summary: Summary) -> None:
    case = accept(values)
    for piece in [*advise(summary, case).changes, *amiss(summary, case)]:
        followed = copy.deepcopy(values)
        follow(followed, piece, case.solver.stored_steps)
        accept(followed)


KEYS = [
    "seed", "solver.name", "solver.grid_size", "solver.stored_steps", "solver.final_time",
    "solver.substeps", "design.sampler", "design.simulations", "design.bounds", "ensemble.actors",
    "ensemble.group_size", "ensemble.cpus_per_actor", "ensemble.time_limit",
    "ensemble.max_quarantined", "buffer.kind", "buffer.capacity", "buffer.watermark",
    "buffer.replay", "surrogate.name", "surrogate.hidden", "surrogate.mode", "training.batch_size",
    "training.optimiser", "training.learning_rate", "training.weight_decay", "training.precision",
    "training.warmup_steps", "training.epochs", "training.simulations", "training.stop",
    "training.stop.steps", "training.stop.seconds", "validation.simulations",
    "validation.every_steps", "store.keep", "store.dtype", "tracking.experiment",
    "checkpoint.every_seconds", "checkpoint.keep", "deterministic", "design.bounds.left",
]  # fmt: skip
NUMBERS = st.sampled_from(
    [-1, 0, 1, 2, 0.5, 10**15, 10**19, 10**30, -(10**40), 10**400, 1e30, 1e39, 1e300, 1e-320,
     float("inf"), float("-inf"), float("nan")]
)  # fmt: skip
WRONG = st.one_of(
    NUMBERS,
    st.sampled_from([True, None, "", "a lot", [], {}, {"a": 1}, [[1]], "1e400"]),
    st.lists(NUMBERS, min_size=1, max_size=3),
)
BASE: Values = {
    "name": "wrong",
    "solver": {"name": "heat", "grid_size": 5, "stored_steps": 3, "dimensions": 1},
    "design": {"simulations": 3},
    "buffer": {"capacity": 20, "watermark": 5},
    "surrogate": {"name": "mlp", "hidden": [4]},
    "training": {"batch_size": 4},
}


@settings(max_examples=400)
@given(st.sampled_from(KEYS), WRONG)
def test_a_refusal_names_the_key_that_was_changed(key: str, value: Any) -> None:
    values = copy.deepcopy(BASE)
    *sections, name = key.split(".")
    part = values
    for section in sections:
        part = part.setdefault(section, {})
    part[name] = value
    # What is accepted but needs the machine's memory, or takes long, is not tried here.
    if key in ("surrogate.hidden",) and value in ([10**15], [1e30], [10**15, 1]):
        return
    try:
        accept(values)
    except StudyError as error:
        sentence = str(error)
        assert "\n" not in sentence
        assert name in sentence, (key, value, sentence)
        assert len(sentence) < 1200, (key, value, sentence)
