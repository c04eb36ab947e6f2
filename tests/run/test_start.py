"""What a rollout starts from: the solver's first fields, those of another seed, or given ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import in_process, the_object

import millstream
from framework.study.case import Case
from framework.study.study import Study
from framework.training.model import save_model
from framework.training.surrogate import make_surrogate
from solvers.lorenz import Lorenz

VALUES = (10.0, 28.0, 2.7)
POINT = ["sigma=10", "rho=28", "beta=2.7"]
BY_NAME = dict(zip(("sigma", "rho", "beta"), VALUES, strict=True))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two models of Lorenz' equations, whose first state is drawn from a seed."""
    directory = tmp_path_factory.mktemp("start")
    for mode in ("autoregressive", "direct"):
        study = Study.of(
            {
                "name": mode,
                "solver": {"name": "lorenz", "stored_steps": 4, "final_time": 0.3},
                "design": {"simulations": 8},
                "buffer": {"capacity": 100},
                "surrogate": {"name": "mlp", "hidden": [8], "mode": mode},
            }
        )
        case = Case(study)
        save_model(make_surrogate(case), case, directory / mode, {})
    return directory


def predicted(directory: Path, *arguments: str, model: str = "autoregressive") -> Any:
    return in_process(directory, "predict", model, *POINT, "--out", "a.npz", "--json", *arguments)


def fields(directory: Path, *arguments: str) -> Any:
    ran = predicted(directory, *arguments)
    assert ran.returncode == 0, ran.stderr
    with np.load(directory / the_object(ran.stdout)["out"]) as saved:
        return saved["field"]


def as_array(prediction: Any) -> Any:
    """The fields [T, C, *grid] of a dataset."""
    return np.moveaxis(prediction.to_array().values, 0, 1)


def test_a_rollout_starts_from_the_solver_s_state_of_a_seed(directory: Path) -> None:
    model = millstream.load(directory / "autoregressive")
    solver = Lorenz(stored_steps=4, final_time=0.3)
    for seed in (0, 7):
        first = next(iter(solver.solve(np.array(VALUES), seed)))
        np.testing.assert_array_equal(fields(directory, "--seed", str(seed))[0], first)
        np.testing.assert_array_equal(as_array(model.predict(BY_NAME, seed=seed))[0], first)
    # The study's seed is 0.
    np.testing.assert_array_equal(fields(directory), fields(directory, "--seed", "0"))


def test_a_rollout_starts_from_any_state(directory: Path) -> None:
    state = np.arange(3.0).reshape(3, 1)
    np.savez(directory / "state.npz", initial=state)
    found = fields(directory, "--initial", "state.npz")
    np.testing.assert_array_equal(found[0], state)
    model = millstream.load(directory / "autoregressive")
    rolled = model.predict(BY_NAME, initial=state)
    np.testing.assert_array_equal(as_array(rolled), found)
    again = millstream.predict(directory / "autoregressive", BY_NAME, initial=state.tolist())
    np.testing.assert_array_equal(as_array(again), found)
    # A prediction is a state, too, which the next one goes on from at its time.
    middle = rolled.isel(time=1)
    middle.to_zarr(directory / "middle.zarr", mode="w", consolidated=False)
    ran = predicted(directory, "--initial", "middle.zarr", "--times", "0.1,0.2,0.3")
    assert ran.returncode == 0, ran.stderr
    with np.load(directory / "a.npz") as saved:
        np.testing.assert_allclose(saved["field"], found[1:], rtol=1e-5)
    later = model.predict(BY_NAME, times=[0.1, 0.3], initial=middle)
    np.testing.assert_allclose(as_array(later), found[[1, 3]], rtol=1e-5)
    assert later.time.values.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--initial", "none.npz"], "none.npz cannot be read: No such file"),
        (["--initial", "none.zarr"], "none.zarr cannot be read: "),
        (["--initial", "fewer.zarr"], "the initial fields cannot be used: they have no y, z"),
        (
            ["--initial", "text.npz"],
            "text.npz is not a numpy .npz file with an array",
        ),
        (["--initial", "other.npz"], "other.npz is not a numpy .npz file with an array named"),
        (["--initial", "flat.npz"], "have shape [3], but the surrogate starts from [3, 1]"),
        (["--initial", "nan.npz"], "the initial fields are not all finite"),
        (["--initial", "complex.npz"], "the initial fields cannot be used"),
        (["--initial", "flat.npz", "--seed", "1"], "initial fields and a seed are given"),
        (["--seed", "9223372036854775808"], "seed is 9223372036854775808: it has to be from 0"),
    ],
)
def test_what_no_rollout_can_start_from_is_refused(
    directory: Path, arguments: list[str], message: str
) -> None:
    (directory / "text.npz").write_text("no")
    np.savez(directory / "other.npz", field=np.zeros((3, 1)))
    np.savez(directory / "flat.npz", initial=np.zeros(3))
    np.savez(directory / "nan.npz", initial=np.full((3, 1), np.nan))
    np.savez(directory / "complex.npz", initial=np.zeros((3, 1), dtype=complex))
    state = millstream.load(directory / "autoregressive").predict(BY_NAME).isel(time=0)
    state[["x"]].to_zarr(directory / "fewer.zarr", mode="w", consolidated=False)
    (directory / "a.npz").unlink(missing_ok=True)
    ran = predicted(directory, *arguments)
    assert ran.returncode == 2
    assert message in ran.stderr
    assert not (directory / "a.npz").exists()


@pytest.mark.parametrize("arguments", [["--seed", "1"], ["--initial", "flat.npz"]])
def test_a_direct_surrogate_starts_from_nothing(directory: Path, arguments: list[str]) -> None:
    np.savez(directory / "flat.npz", initial=np.zeros(3))
    ran = predicted(directory, *arguments, model="direct")
    assert ran.returncode == 2
    assert "a surrogate in mode direct sees parameters and times alone" in ran.stderr
