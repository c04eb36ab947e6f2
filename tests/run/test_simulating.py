"""Simulations into a store without training, and training from it afterwards."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from commands import MILLSTREAM, SMALL, in_process, once, the_object, with_support
from light import Light
from places import QUICKSTART
from waiting import LIMIT, until

pytestmark = pytest.mark.usefixtures("module_on_cluster")


@pytest.fixture(scope="module")
def simulated(
    module_on_cluster: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A directory with a store that was interrupted once, and what the second command printed."""
    directory = tmp_path_factory.mktemp("simulated")
    arguments = ["simulate", str(QUICKSTART), *SMALL, "--json"]
    process = subprocess.Popen(
        [MILLSTREAM, *arguments[:2], *once(*SMALL, "design.simulations=20000"), "--json"],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=with_support(),
    )
    until(lambda: any((directory / "stores/small.zarr").glob("temperature/c.*")), process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert "interrupted: the same command goes on" in errors
    interrupted = the_object(output)["simulations"]
    assert interrupted["requested"] == 20000
    assert interrupted["completed"] < 20000
    ran = in_process(directory, *arguments)
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    return directory, the_object(ran.stdout)


def test_every_simulation_is_in_the_store(simulated: tuple[Path, dict[str, Any]]) -> None:
    directory, summary = simulated
    assert summary["simulations"] == {"requested": 40, "completed": 40, "quarantined": 0}
    assert Path(summary["store"]) == directory / "stores/small.zarr"
    size = sum(path.stat().st_size for path in Path(summary["store"]).rglob("*") if path.is_file())
    assert summary["bytes"] == size
    assert summary["seconds"] > 0
    with xarray.open_zarr(summary["store"]) as store:
        assert store.complete.values[:40].all()
        solver = Light()
        expected = np.array(list(solver.solve(store.parameters.values[7], 0)))[:, 0]
        np.testing.assert_allclose(store.temperature.values[7], expected, rtol=1e-6)


def test_the_same_command_again_computes_nothing_and_a_larger_design_the_rest(
    simulated: tuple[Path, dict[str, Any]],
) -> None:
    directory, _ = simulated
    chunks = list((directory / "stores/small.zarr/temperature/c").rglob("*"))
    before = {path: path.stat().st_mtime_ns for path in chunks if path.is_file()}
    larger = ("design.simulations=44", "--picture", "--json")
    ran = in_process(directory, "simulate", str(QUICKSTART), *once(*SMALL, *larger))
    assert ran.returncode == 0, ran.stderr
    summary = the_object(ran.stdout)
    assert summary["simulations"]["completed"] == 44
    picture = directory / "stores/small.png"
    assert summary["picture"] == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_store_of_another_study_is_refused(simulated: tuple[Path, dict[str, Any]]) -> None:
    directory, _ = simulated
    ran = in_process(directory, "train", str(QUICKSTART), *once(*SMALL, "solver.final_time=0.2"))
    assert ran.returncode == 2
    assert "stores/small.zarr" in ran.stderr
    assert "final_time" in ran.stderr
    assert not (directory / "runs").exists()


def test_training_from_a_store_draws_every_sample_once_an_epoch(
    simulated: tuple[Path, dict[str, Any]],
) -> None:
    directory, _ = simulated
    ran = in_process(
        directory,
        *("train", str(QUICKSTART), *once(*SMALL, "name=offline", "buffer.capacity=200"), "--json"),
        *("training.source=stores/small.zarr", "training.epochs=2"),
    )
    assert ran.returncode == 0, ran.stderr
    summary = the_object(ran.stdout)
    count = summary["source"]["simulations"]
    assert summary["source"]["path"] == str(directory / "stores/small.zarr")
    assert len(summary["source"]["hash"]) >= 16
    samples = summary["samples"]
    assert samples["received"] == samples["unique_trained"] == 10 * count
    assert samples["drawn"] == 20 * count
    assert samples["untrained"] == 0
    assert summary["store"] is None
    # Held-out simulations are run as for a stream, and so errors compare.
    assert summary["validation"]["simulations"] == 4
    assert summary["training"]["steps_while_simulating"] == 0
    assert summary["status"] == "done"
