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

POINT = ["sigma=10", "rho=28", "beta=2.7"]


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
        save_model(make_surrogate(Case(study)), study, directory / mode, {})
    return directory


def predicted(directory: Path, *arguments: str, model: str = "autoregressive") -> Any:
    return in_process(directory, "predict", model, *POINT, "--out", "a.npz", "--json", *arguments)


def fields(directory: Path, *arguments: str) -> Any:
    ran = predicted(directory, *arguments)
    assert ran.returncode == 0, ran.stderr
    with np.load(directory / the_object(ran.stdout)["out"]) as saved:
        return saved["field"]


def test_a_rollout_starts_from_the_solver_s_state_of_a_seed(directory: Path) -> None:
    model = millstream.load(directory / "autoregressive")
    point = dict(zip(model.solver.parameters.names, (10.0, 28.0, 2.7), strict=True))
    values = np.array(list(point.values()))
    for seed in (0, 7):
        first = next(iter(model.solver.solve(values, seed)))
        np.testing.assert_array_equal(fields(directory, "--seed", str(seed))[0], first)
        np.testing.assert_array_equal(model.predict(point, seed=seed).field[0], first)
    # The study's seed is 0.
    np.testing.assert_array_equal(fields(directory), fields(directory, "--seed", "0"))


def test_a_rollout_starts_from_any_state(directory: Path) -> None:
    state = np.arange(3.0).reshape(3, 1)
    np.savez(directory / "state.npz", initial=state)
    found = fields(directory, "--initial", "state.npz")
    np.testing.assert_array_equal(found[0], state)
    model = millstream.load(directory / "autoregressive")
    point = dict(zip(model.solver.parameters.names, (10.0, 28.0, 2.7), strict=True))
    np.testing.assert_array_equal(model.predict(point, initial=state).field, found)
    np.testing.assert_array_equal(
        millstream.predict(directory / "autoregressive", point, initial=state.tolist()).field, found
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--initial", "none.npz"], "none.npz cannot be read: No such file"),
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
