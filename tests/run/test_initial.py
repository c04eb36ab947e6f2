"""Training that starts from a trained surrogate."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import SMALL, in_process, once, the_object
from places import QUICKSTART
from safetensors.torch import load_file

pytestmark = pytest.mark.usefixtures("module_on_cluster")

NETWORK = "surrogate={name: mlp, hidden: [16], mode: autoregressive}"


def train(directory: Path, *overrides: str) -> Any:
    settings = once(*SMALL, NETWORK, "store.keep=none", *overrides)
    return in_process(directory, "train", str(QUICKSTART), *settings, "--json")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, module_on_cluster: None) -> Path:
    """A directory with the run runs/small, which has learnt something."""
    directory = tmp_path_factory.mktemp("initial")
    ran = train(directory, "buffer.replay=[16, 16]", "training.learning_rate=3e-3")
    assert ran.returncode == 0, ran.stderr
    return directory


def weights(directory: Path, run: str) -> dict[str, Any]:
    return dict(load_file(directory / "runs" / run / "model/weights.safetensors"))


def test_a_run_goes_on_from_trained_weights_and_their_normalisation(trained: Path) -> None:
    """Hardly trained, it is as good as before; and its bounds are still those of then."""
    ran = train(
        trained,
        *("name=again", "training.initial=runs/small", "training.stop={steps: 1}", "seed=5"),
        *("training.learning_rate=1e-12", "design.bounds={initial: [200, 300]}"),
    )
    assert ran.returncode == 0, ran.stderr
    before, after = weights(trained, "small"), weights(trained, "again")
    assert set(before) == set(after)
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, rtol=1e-6, atol=1e-9, err_msg=name)
    summary = json.loads((trained / "runs/small/summary.json").read_text())
    error = the_object(ran.stdout)["validation"]["one_step"]["mean"]
    assert error < 2 * summary["validation"]["one_step"]["mean"]


def test_a_run_without_a_checkpoint_starts_from_it_again(trained: Path) -> None:
    """As one that was killed early, and as an arm of a comparison."""
    overrides = ["training.initial=runs/small", "training.stop={steps: 1}", "name=killed"]
    ran = train(trained, *overrides, "training.learning_rate=1e-12")
    assert ran.returncode == 0, ran.stderr
    shutil.rmtree(trained / "runs/killed/checkpoints", ignore_errors=True)
    shutil.rmtree(trained / "runs/killed/model")
    (trained / "runs/killed/summary.json").unlink()
    resumed = in_process(trained, "resume", "runs/killed", "--json")
    assert resumed.returncode == 0, resumed.stderr
    before, after = weights(trained, "small"), weights(trained, "killed")
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, rtol=1e-6, atol=1e-9, err_msg=name)


def test_an_interrupted_run_needs_the_initial_model_no_more(trained: Path) -> None:
    (trained / "copy").mkdir()
    for file in (trained / "runs/small/model").iterdir():
        (trained / "copy" / file.name).write_bytes(file.read_bytes())
    ran = train(trained, "name=copied", "training.initial=copy", "training.stop={steps: 3}")
    assert ran.returncode == 0, ran.stderr
    for file in (trained / "copy").iterdir():
        file.unlink()
    resumed = in_process(trained, "resume", "runs/copied", "--json")
    assert resumed.returncode == 0, resumed.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.initial=runs/other"], "runs/other is not the directory of a run"),
        (["surrogate.hidden=[8]"], "surrogate.hidden is [16] there and [8] here"),
        (["surrogate.mode=direct"], "surrogate.mode is autoregressive there and direct here"),
        (["surrogate={name: fno, modes: 4}"], "surrogate.name is mlp there and fno here"),
        (["solver.grid_size=20"], "was trained on a grid of (16, 16): the mlp is bound to it"),
        (
            [
                "solver={name: heat, dimensions: 1, grid_size: 16, stored_steps: 10}",
                "design={simulations: 40}",
            ],
            "solver.parameters.bottom is K there and None here",
        ),
    ],
)
def test_what_cannot_go_on_is_refused(trained: Path, overrides: list[str], message: str) -> None:
    ran = train(trained, "name=refused", *once("training.initial=runs/small", *overrides))
    assert ran.returncode == 2
    assert message in ran.stderr
    assert not (trained / "runs/refused").exists()
