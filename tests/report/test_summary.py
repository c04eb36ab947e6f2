"""A run's summary and its JSON, whose keys are documented and stay as they are."""

import copy
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from summaries import UNEVENTFUL

from framework.report.summary import (
    BreedingFigures,
    FailedSimulation,
    RegisteredModel,
    Summary,
    TrackedRun,
)
from framework.training.results import Distribution, TimeScores

# As a run wrote it before summaries were typed, its numbers made round.
WRITTEN: dict[str, Any] = {
    "run_dir": "runs/small",
    "status": "done",
    "source": {"path": "stores/small.zarr", "simulations": 12, "hash": "f00d"},
    "store": "stores/small.zarr",
    "simulations": {"requested": 12, "completed": 11, "quarantined": 1},
    "quarantined": [
        {"simulation": 3, "parameters": {"left": 101.25}, "step": 4, "error": "ValueError: no"}
    ],
    "samples": {
        "produced": 48,
        "received": 48,
        "unique_trained": 48,
        "untrained": 0,
        "drawn": 68,
        "stored": 48,
    },
    "training": {
        "steps": 17,
        "steps_while_simulating": 10,
        "samples_per_second": 686.0,
        "wait_fraction": 0.25,
        "loss": None,
        "seconds": 0.125,
        "seconds_to_end": 4.0,
        "device": "cpu",
    },
    "surrogate": {"parameters": 112, "flops": 2048, "memory_bytes": 2192},
    "wait": {"solvers": 0.0, "training": 0.375, "transport": 0.25},
    "validation": {
        "step": 17,
        "simulations": 2,
        "median_simulation": -2,
        "relative_l2": {"mean": 0.25, "p50": 0.25, "p90": 0.5, "p99": 0.5, "max": 0.5},
        "nrmse": 0.25,
        "max": 216.5,
        "trivial": {"mean_field": 0.25, "initial_field": None},
        "per_time": [
            {
                "t": 0.0,
                "relative_l2": {"mean": 0.5, "p50": 0.5, "p90": 0.5, "p99": 0.5, "max": None},
                "nrmse": 0.5,
                "max": 216.5,
            }
        ],
    },
    "checkpoint": {"count": 2, "seconds": 0.0078125},
    "breeding": {"bred": 5, "uniform": 7, "seconds": 0.5, "share": 0.125},
    "model": {"name": "small", "version": "1"},
    "mlflow": {"tracking_uri": "sqlite:///mlflow.db", "run_id": None},
    "seconds": 6.5,
}


def test_a_summary_that_was_written_is_read_and_written_as_it_was() -> None:
    summary = Summary.from_json(WRITTEN)
    assert summary.quarantined == (FailedSimulation(3, {"left": 101.25}, 4, "ValueError: no"),)
    assert math.isnan(summary.training.loss)
    assert summary.validation is not None
    assert math.isnan(summary.validation.trivial["initial_field"])
    assert summary.mlflow == TrackedRun("sqlite:///mlflow.db", None)
    # What an earlier version did not write is added.
    expected = copy.deepcopy(WRITTEN)
    expected["validation"] |= {"last_time": None, "one_step": None}
    expected["wait"]["redraws"] = 0.0
    assert json.dumps(summary.to_json()) == json.dumps(expected)


def test_what_a_run_does_not_have_is_null() -> None:
    absent = ("source", "store", "surrogate", "validation", "breeding", "model", "mlflow")
    written = {**WRITTEN, "quarantined": [], **dict.fromkeys(absent)}
    summary = Summary.from_json(written)
    assert summary.breeding is None
    assert summary.to_json() == {**written, "wait": {**WRITTEN["wait"], "redraws": 0.0}}


def test_a_summary_comes_back_from_its_json() -> None:
    scores = UNEVENTFUL.validation
    assert scores is not None
    one = TimeScores(0.5, Distribution(0.1, 0.2, 0.3, 0.4, 0.5), 0.1, 3.0)
    summary = replace(
        UNEVENTFUL,
        quarantined=(FailedSimulation(1, {"a": 2.0}, 3, "no"),),
        validation=replace(scores, per_time=(one, one)),
        breeding=BreedingFigures(1, 2, 3.0, 0.5),
        model=RegisteredModel("a", "1"),
    )
    assert Summary.from_json(json.loads(json.dumps(summary.to_json()))) == summary


@pytest.mark.parametrize("values", [None, [], {}, {"status": "done"}, {**WRITTEN, "samples": 3}])
def test_what_is_no_summary_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match="not the summary of a run"):
        Summary.from_json(values)
