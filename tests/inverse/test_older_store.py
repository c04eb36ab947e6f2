"""A store and an index of the version before are asked as ever, and nothing is added to them."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from commands import in_process, the_object
from places import OLDER_DATA

from framework.inverse.index.building import imaged_solver
from framework.inverse.index.index import Index
from framework.inverse.inversions.masks import MaskInversion
from framework.inverse.observed.masks import read_masks
from framework.inverse.observed.nifti import image_of
from framework.inverse.refine.refinement import stored_simulation
from framework.store.reader import StoreReader
from framework.study.identity import streams_version

SIMULATIONS, STEPS = 24, 4
PATIENT = 11  # a simulation that ends with a third of the brain; many of them fill all of it
THRESHOLDS = {"t1c": 0.6, "flair": 0.2}
MASKS = ("--mask", "t1c=t1c.nii.gz", "--mask", "flair=flair.nii.gz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the store, and with a patient who is the end of one of its simulations."""
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(OLDER_DATA) as archive:
        archive.extractall(folder, filter="data")
    reader = StoreReader(str(folder / "stores" / "tumour.zarr"))
    solver = imaged_solver(reader)
    assert solver.affine is not None
    fields = reader.fields_at(PATIENT, STEPS - 1)
    for name, value in THRESHOLDS.items():
        mask = np.asarray(solver.observe(fields, **{name: value})[name])
        image_of(mask, solver.affine, 1).to_filename(folder / f"{name}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def reader(folder: Path) -> StoreReader:
    return StoreReader(str(folder / "stores" / "tumour.zarr"))


def test_it_is_read_and_was_indexed_already(folder: Path, reader: StoreReader) -> None:
    assert streams_version(reader.study) == 1
    assert Index.open(reader).entries == SIMULATIONS * STEPS
    done = in_process(folder, "index", "stores/tumour.zarr", "--json")
    assert done.returncode == 0, done.stderr
    assert the_object(done.stdout)["simulations"] == {"indexed": SIMULATIONS, "added": 0}


def test_it_answers_by_masks(folder: Path, reader: StoreReader) -> None:
    done = in_process(folder, "invert", "stores/tumour.zarr", *MASKS, "--json")
    assert done.returncode == 0, done.stderr
    found = the_object(done.stdout)
    best = found["matches"][0]
    assert (best["simulation"], best["step"], best["score"]) == (PATIENT, STEPS - 1, 1.0)
    assert found["entries"] == SIMULATIONS * STEPS


def test_it_answers_by_fields(folder: Path, reader: StoreReader) -> None:
    np.savez(folder / "seen.npz", cells=reader.fields_at(5, 2)[0])
    done = in_process(folder, "invert", "stores/tumour.zarr", "--field", "seen.npz", "--json")
    assert done.returncode == 0, done.stderr
    best = the_object(done.stdout)["matches"][0]
    assert (best["simulation"], best["step"], best["distance"]) == (5, 2, 0)


def test_growth_refuses_to_add_to_it(folder: Path) -> None:
    done = in_process(folder, "invert", "stores/tumour.zarr", *MASKS, "--grow", "2", "--json")
    assert done.returncode == 2
    assert "was drawn by version 1 of the random streams and priors" in done.stderr
    assert "nothing can be added" in done.stderr
    assert "Traceback" not in done.stderr
    assert the_object(done.stdout)["matches"][0]["score"] == 1.0
    assert not (folder / "stores" / "tumour.grown.zarr").exists()


def test_refinement_begins_with_the_seeds_that_it_was_made_with(
    folder: Path, reader: StoreReader
) -> None:
    # As the version before derived them.
    seeds = [stored_simulation(reader, id).seed for id in (0, 3)]
    assert seeds == [15793235383387715774, 10836794811241237126]
    files = {name: folder / f"{name}.nii.gz" for name in THRESHOLDS}
    inversion = MaskInversion(reader.path, lambda solver: read_masks(solver, files), None, 3)
    (simulation, step), *_ = inversion.starts()
    fields = list(inversion.solver.solve(simulation.parameters, simulation.seed))[step]
    stored = reader.fields_at(PATIENT, STEPS - 1)
    np.testing.assert_allclose(fields, stored, atol=1e-3)  # of float16
    rating = inversion.objective().rate(inversion.solver, fields)
    assert rating.score == pytest.approx(1.0, abs=0.01)
