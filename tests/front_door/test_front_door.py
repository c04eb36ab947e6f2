"""Each function of `import millstream` on a small study."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
import yaml
import zarr

import millstream
from solvers.heat import Heat

pytestmark = pytest.mark.usefixtures("module_on_cluster")

STUDY: dict[str, Any] = {
    "name": "rod",
    "solver": {"name": "heat", "dimensions": 1, "grid_size": 16, "stored_steps": 5},
    "design": {"simulations": 8},
    "buffer": {"capacity": 30, "watermark": 10},
    "surrogate": {"name": "mlp", "hidden": [8]},
    "validation": {"simulations": 2},
    "tracking": {"uri": "none"},
}
POINT = {"initial": 150.0, "left": 480.0, "right": 200.0}


@pytest.fixture(scope="module", autouse=True)
def directory(module_on_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current directory of all these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("front_door"))
        yield Path.cwd()


@pytest.fixture(scope="module")
def summary(directory: Path) -> millstream.Summary:
    """What training returned."""
    return millstream.train(STUDY)


@pytest.fixture(scope="module")
def stored(directory: Path) -> millstream.StoreSummary:
    """What simulating returned, of a study that was given as a file."""
    path = directory / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, "name": "simulated"}))
    return millstream.simulate(path)


def test_train_returns_what_came_of_it(summary: millstream.Summary) -> None:
    assert (summary.status, summary.run_dir) == ("done", "runs/rod")
    assert summary.simulations.completed == 8
    assert summary.samples.unique_trained == 40
    assert summary.validation is not None


def test_resume_returns_the_same_of_a_run_that_is_done(summary: millstream.Summary) -> None:
    assert millstream.resume(summary.run_dir) == summary


def test_a_model_is_a_study_a_solver_and_a_trained_network(summary: millstream.Summary) -> None:
    model = millstream.load(summary.run_dir)
    assert model.study.name == "rod"
    assert model.solver.grid == Heat(dimensions=1, grid_size=16).grid
    assert isinstance(model.surrogate, torch.nn.Module)
    assert not model.surrogate.training
    prediction = model.predict(POINT)
    assert prediction.temperature.dims == ("time", "axis_0")
    assert prediction.temperature.shape == (5, 16)
    np.testing.assert_allclose(prediction.t, np.linspace(0, 0.1, 5))
    xarray.testing.assert_identical(millstream.predict(Path(summary.run_dir), POINT), prediction)


@pytest.mark.parametrize(
    ("parameters", "overrides", "message"),
    [
        ({**POINT, "left": math.nan}, [], "left is nan: give a number, left in"),
        ({"initial": 150.0}, [], "the parameter left is missing"),
        (POINT, ["solver.grid_size=32"], "the mlp is bound to its grid of"),
        (POINT, ["solver.final_time=1.0"], "solver.final_time cannot be set"),
        (
            {**POINT, "left": None},
            [],
            "left is nan: give a number",
        ),
        (POINT, "solver.grid_size=32", "overrides is 'solver.grid_size=32'"),
    ],
)
def test_what_cannot_be_predicted_is_refused(
    summary: millstream.Summary, parameters: dict[str, Any], overrides: Any, message: str
) -> None:
    with pytest.raises(millstream.StudyError, match=message):
        millstream.predict(summary.run_dir, parameters, overrides)


def test_a_prediction_outside_of_what_was_trained_on_says_so(summary: millstream.Summary) -> None:
    with pytest.warns(UserWarning, match=r"left is 501, .* within \[100, 500\]") as warned:
        outside = millstream.predict(summary.run_dir, {**POINT, "left": [501.0, 100.0]})
    assert len(warned) == 1
    assert outside.within_bounds.values.tolist() == [False, True]
    assert warned[0].filename == __file__
    assert outside.attrs["warnings"] == str(warned[0].message)
    assert "warnings" not in millstream.predict(summary.run_dir, POINT).attrs


def test_simulate_returns_what_is_stored(stored: millstream.StoreSummary) -> None:
    assert stored.simulations.completed == stored.simulations.requested == 8
    assert stored.quarantined == ()
    assert Path(stored.store) == Path("stores/simulated.zarr").absolute()
    again = millstream.simulate(millstream.Study.load("study.yaml"))
    assert (again.simulations, again.bytes) == (stored.simulations, stored.bytes)


def test_a_store_opens_with_what_is_complete(stored: millstream.StoreSummary) -> None:
    zarr.open_group(stored.store)["complete"][3] = False  # type: ignore[index]
    store = millstream.open_store(stored.store)
    assert store.sizes == {"simulation": 7, "time": 5, "axis_0": 16, "parameter": 3}
    assert store.simulation.values.tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert store.temperature.attrs["units"] == "K"
    point = store.parameters.sel(simulation=4).values
    solver = Heat(dimensions=1, grid_size=16, stored_steps=5)
    expected = np.array(list(solver.solve(point, 0)))[:, 0]
    np.testing.assert_allclose(store.temperature.sel(simulation=4), expected, rtol=1e-6)


def test_what_is_no_store_is_refused(directory: Path) -> None:
    for path in (directory, directory / "stores/none.zarr"):
        with pytest.raises(millstream.StudyError, match="is not a store"):
            millstream.open_store(path)


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({**STUDY, "trainning": {}}, "^trainning is not a setting"),
        ("nowhere.yaml", "^nowhere.yaml cannot be read"),
        (3, "^3 is no study"),
        ({**STUDY, "surrogate": {"name": "fno", "modes": 17}}, "modes is 17, but a grid of"),
    ],
)
def test_a_study_that_cannot_work_is_refused_by_all(study: Any, message: str) -> None:
    for function in (millstream.train, millstream.simulate, millstream.compare):
        with pytest.raises(millstream.StudyError, match=message):
            function(study)


def test_too_few_seeds_are_refused() -> None:
    with pytest.raises(millstream.StudyError, match="seeds is 2"):
        millstream.compare({**STUDY, "training": {"stop": {"steps": 16}}}, seeds=2)


def test_invert_finds_the_simulation_that_was_observed(
    stored: millstream.StoreSummary, directory: Path
) -> None:
    solver = Heat(dimensions=1, grid_size=16, stored_steps=5)
    point = millstream.open_store(stored.store).parameters.sel(simulation=5).values
    *_, last = solver.solve(point, 0)
    np.savez(directory / "seen.npz", **{"temperature": last[0], "temperature.noise": 1.0})
    found = millstream.invert(stored.store, field="seen.npz", top=2)
    best = found["matches"][0]
    assert (best["simulation"], best["step"]) == (5, 4)
    assert list(best["parameters"].values()) == point.tolist()
    assert len(found["matches"]) == 2


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({}, "has to be given once"),
        ({"labels": "a.nii.gz", "field": "b.npz"}, "has to be given once"),
        ({"labels": "a.nii.gz"}, "never guessed"),
        ({"field": "b.npz", "grow": -1}, "grow is -1: input should be greater than or equal to 0"),
        ({"field": "b.npz", "weights": {"t1c": 1.0}}, "are for segmentations"),
    ],
)
def test_a_question_that_contradicts_itself_is_refused(
    question: dict[str, Any], message: str
) -> None:
    with pytest.raises(millstream.StudyError, match=message):
        millstream.invert("stores/none.zarr", **question)
