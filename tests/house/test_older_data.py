"""What the version before this one wrote is read, and nothing is added to it.

Its indexes are tested with the inverse questions.
"""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import xarray
from commands import in_process, the_object
from places import OLDER_DATA

from framework.store.reader import StoreReader

POINT = ["initial=300", "left=200", "right=400"]


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which the version before this one has run."""
    directory = tmp_path_factory.mktemp("older")
    with tarfile.open(OLDER_DATA) as archive:
        archive.extractall(directory, filter="data")
    return directory


def files(directory: Path) -> dict[str, bytes]:
    """All that is in a directory: path -> content."""
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("run", ["small", "stopped"])
def test_a_run_predicts(older: Path, tmp_path: Path, run: str) -> None:
    out = tmp_path / "predicted.npz"
    ran = in_process(older, "predict", f"runs/{run}", *POINT, "--out", str(out), "--json")
    assert ran.returncode == 0, ran.stderr
    assert the_object(ran.stdout)["shape"] == [4, 1, 8]
    assert np.isfinite(np.load(out)["field"]).all()


def test_a_run_that_is_done_says_so(older: Path) -> None:
    before = files(older / "runs" / "small")
    ran = in_process(older, "resume", "runs/small", "--json")
    assert ran.returncode == 0, ran.stderr
    assert "runs/small is done already: there is nothing to resume" in ran.stderr
    summary = the_object(ran.stdout)
    assert summary["status"] == "done"
    assert summary["simulations"] == {"requested": 12, "completed": 12, "quarantined": 0}
    assert files(older / "runs" / "small") == before


def test_a_run_that_was_stopped_cannot_go_on(older: Path) -> None:
    before = files(older / "runs" / "stopped")
    ran = in_process(older, "resume", "runs/stopped", "--json")
    assert ran.returncode == 2
    message = the_object(ran.stdout)["error"]
    assert message == (
        "runs/stopped/checkpoints/000016 has format 2, but this version of Millstream reads 3: "
        "resume with the version that wrote it"
    )
    assert files(older / "runs" / "stopped") == before


@pytest.mark.parametrize("command", ["train", "simulate"])
@pytest.mark.parametrize("study", ["small", "tumour"])
def test_nothing_is_added_to_a_store(older: Path, command: str, study: str) -> None:
    before = files(older / "stores" / f"{study}.zarr")
    store = f"store.path=stores/{study}.zarr"
    ran = in_process(older, command, f"{study}.yaml", "name=new", store, "design.simulations=50")
    assert ran.returncode == 2
    assert ran.stdout == ""
    message = ran.stderr.splitlines()[-1]
    assert f"stores/{study}.zarr, whose simulations were drawn by version 1" in message
    assert message.endswith(
        "it can be read, but nothing can be added to it; set store.path to another place, or "
        "store.keep to none"
    )
    assert files(older / "stores" / f"{study}.zarr") == before
    assert not (older / "runs" / "new").exists()


@pytest.mark.usefixtures("on_cluster")
def test_a_surrogate_is_trained_from_a_store(older: Path, tmp_path: Path) -> None:
    source = f"training.source={older / 'stores/small.zarr'}"
    before = files(older / "stores")
    study = str(older / "small.yaml")
    ran = in_process(tmp_path, "train", study, source, "name=new", "training.epochs=2", "--json")
    assert ran.returncode == 0, ran.stderr
    summary = the_object(ran.stdout)
    assert summary["source"]["simulations"] == 12
    assert summary["samples"]["received"] == 48
    assert files(older / "stores") == before


@pytest.mark.parametrize(("name", "field"), [("small", "temperature"), ("tumour", "cells")])
def test_a_store_is_opened_by_xarray_and_by_us(older: Path, name: str, field: str) -> None:
    path = str(older / "stores" / f"{name}.zarr")
    reader = StoreReader(path)
    with xarray.open_zarr(path) as store:
        assert store.complete.values.all()
        assert reader.complete.tolist() == store.simulation.values.tolist()
        values = store[field].values
    assert np.isfinite(values).all()
