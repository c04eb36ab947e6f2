"""The commands of inverse questions, as a user gives them, on a store of tumours in a brain."""

import contextlib
import json
import os
import runpy
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import psutil
import pytest
from commands import MILLSTREAM, in_process, the_object
from numpy.typing import NDArray
from places import CONFIGS
from waiting import LIMIT, until

import millstream
from framework.inverse.index.index import Index
from framework.inverse.observed.masks import read_labels
from framework.store.attributes import solver_of
from framework.store.reader import StoreReader
from solvers.base import Solver
from solvers.tumor.fisher_kolmogorov import FisherKolmogorov

SIMULATIONS, STEPS = 48, 5
SMALL = (
    "solver.grid_size=32",
    f"solver.stored_steps={STEPS}",
    f"design.simulations={SIMULATIONS}",
    "ensemble.actors=1",
    "store.path=gliomas.zarr",
    "store.dtype=float32",
)
THRESHOLDS = {"t1c": 0.7, "flair": 0.2}
REGIONS = ("--region", "core=1", "--region", "oedema=2")


@pytest.fixture(scope="module")
def folder(module_on_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a store of tumours and its index."""
    folder = tmp_path_factory.mktemp("inverse")
    done = in_process(folder, "simulate", str(CONFIGS / "tumor_database.yaml"), *SMALL)
    assert done.returncode == 0, done.stderr
    done = in_process(folder, "index", "gliomas.zarr", "--json")
    assert done.returncode == 0, done.stderr
    told = the_object(done.stdout)
    assert (told["entries"], told["simulations"]["added"]) == (SIMULATIONS * STEPS, SIMULATIONS)
    return folder


@pytest.fixture(scope="module")
def reader(folder: Path) -> StoreReader:
    return StoreReader(str(folder / "gliomas.zarr"))


@pytest.fixture(scope="module")
def solver(reader: StoreReader) -> Solver:
    return solver_of(reader)


@pytest.fixture(scope="module")
def known(reader: StoreReader, solver: Solver) -> int:
    """A simulation that ends with a core of some size."""
    sizes = [observed(solver, reader.fields(n)[-1], THRESHOLDS)["t1c"].sum() for n in range(20)]
    return int(np.argmax(sizes))


@pytest.fixture(scope="module")
def patient(folder: Path, reader: StoreReader, solver: Solver, known: int) -> Path:
    """Labels (1 core, 2 oedema) of the last step of a simulation, in an image turned about."""
    masks = observed(solver, reader.fields(known)[-1], THRESHOLDS)
    labels = np.where(masks["t1c"], 1, np.where(masks["flair"], 2, 0)).astype(np.int16)
    return save(folder / "patient.nii.gz", solver, labels, "LPS")


def observed(
    solver: Solver, fields: NDArray[np.float32], thresholds: dict[str, float]
) -> dict[str, NDArray[np.bool_]]:
    return {
        name: np.asarray(solver.observe(fields, **{name: value})[name], dtype=bool)
        for name, value in thresholds.items()
    }


def save(path: Path, solver: Solver, values: NDArray[Any], orientation: str = "RAS") -> Path:
    image = nibabel.Nifti1Image(values, solver.affine)
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(solver.affine),
        nibabel.orientations.axcodes2ornt(tuple(orientation)),
    )
    nibabel.save(image.as_reoriented(turn), path)
    return path


def invert(folder: Path, *arguments: str | Path) -> dict[str, Any]:
    done = in_process(folder, "invert", "gliomas.zarr", *map(str, arguments), "--json")
    assert done.returncode == 0, done.stderr
    return the_object(done.stdout)


def test_a_patient_made_of_an_entry_is_that_entry(
    folder: Path, patient: Path, reader: StoreReader, known: int
) -> None:
    found = invert(folder, "--labels", patient, *REGIONS)
    best = found["matches"][0]
    assert (best["simulation"], best["step"]) == (known, STEPS - 1)
    assert best["score"] == 1.0
    assert best["dice"] == {"t1c": 1.0, "flair": 1.0}
    assert best["thresholds"] == THRESHOLDS
    assert best["time"] == reader.t[known, -1]
    names = ("sqrt_DT", "rho_T", "x", "y", "z")
    assert tuple(best["parameters"]) == names
    assert list(best["parameters"].values()) == reader.parameters[known].tolist()
    assert found["exact"] is True
    assert found["entries"] == SIMULATIONS * STEPS
    assert 0 < found["refined"] < found["entries"]  # bounds tell of the others
    assert [text.partition(":")[0] for text in found["warnings"]] == [
        "the store is too small to be calibrated"
    ]
    assert found["posterior"].keys() == {"sqrt_DT", "rho_T", "width", "x", "y", "z"}
    low, high = found["posterior"]["sqrt_DT"]["interval_90"]
    assert 0 < low < found["posterior"]["sqrt_DT"]["mean"] < high
    assert found["coverage"]["score"] == 1.0
    assert [tuple(point) for point in found["coverage"]["simulate_next"]] == 5 * [names]
    assert found["provenance"]["study"]["solver"]["name"] == "fisher_kolmogorov"


def test_python_gets_what_the_command_prints(folder: Path, patient: Path) -> None:
    printed = invert(folder, "--labels", patient, *REGIONS, "--weights", "t1c=3,flair=1")
    regions = {"core": (1,), "oedema": (2,)}
    weights = {"t1c": 3.0, "flair": 1.0}
    store = folder / "gliomas.zarr"
    found = millstream.invert(store, labels=patient, regions=regions, weights=weights)
    assert found["matches"] == printed["matches"]
    assert found["posterior"] == printed["posterior"]


def test_the_matches_are_those_of_comparing_every_volume(
    folder: Path, reader: StoreReader, solver: Solver, known: int
) -> None:
    """Of a patient whom the store does not have: held-out parameters, other thresholds."""
    parameters = reader.parameters[known] * [1.1, 1.0, 1.0, 1.0, 1.0]
    *_, fields = solver.solve(parameters, 0)
    masks = observed(solver, fields, {"t1c": 0.65, "flair": 0.15})
    for name, mask in masks.items():
        save(folder / f"{name}.nii.gz", solver, mask.astype(np.uint8))
    found = invert(
        folder, "--mask", "t1c=t1c.nii.gz", "--mask", "flair=flair.nii.gz",
        "--weights", "t1c=3,flair=1", "--top", "6",
    )  # fmt: skip
    scores = []
    for simulation in range(SIMULATIONS):
        for step, fields in enumerate(reader.fields(simulation)):
            dice = {
                name: max(
                    overlap(solver.observe(fields, **{name: value})[name], mask)
                    for value in solver.masks[name]
                )
                for name, mask in masks.items()
            }
            scores.append((-(3 * dice["t1c"] + dice["flair"]) / 4, simulation, step))
    expected = sorted(scores)[:6]
    assert [(m["simulation"], m["step"]) for m in found["matches"]] == [s[1:] for s in expected]
    assert [-m["score"] for m in found["matches"]] == pytest.approx([s[0] for s in expected])


def overlap(a: NDArray[Any], b: NDArray[np.bool_]) -> float:
    voxels = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / voxels if voxels else 1.0


def test_the_folder_has_the_answer_in_the_patients_space(
    folder: Path, patient: Path, reader: StoreReader, solver: Solver, known: int
) -> None:
    later = observed(solver, reader.fields(known)[-1], {"flair": 0.1})["flair"]
    save(folder / "later.nii.gz", solver, later.astype(np.uint8), "PIR")
    found = invert(
        folder, "--labels", patient, *REGIONS, "--out", "answer", "--recurrence", "later.nii.gz"
    )  # fmt: skip
    out = folder / "answer"
    assert json.loads((out / "result.json").read_text()) == found
    given = nibabel.load(patient)
    names = ("matched_cells", "mean_cells", "sd_cells", "plan_standard", "plan_model")
    images = {name: nibabel.load(out / f"{name}.nii.gz") for name in names}
    for image in images.values():
        assert image.shape == given.shape
        np.testing.assert_allclose(image.affine, given.affine, atol=1e-4)
    # The patient is the match, so in the patient's own axes they have one core.
    core = np.asarray(given.dataobj) == 1
    assert np.asarray(images["matched_cells"].dataobj)[core].min() >= 0.7 - 1e-3
    plans = found["plans"]
    assert plans["standard"]["ml"] == plans["model"]["ml"] > 0
    for name in ("standard", "model"):
        image = nibabel.as_closest_canonical(images[f"plan_{name}"])
        plan = np.asarray(image.dataobj) > 0
        share = (plan & later).sum() / later.sum()
        assert plans[name]["recurrence_covered"] == pytest.approx(share)
    assert (out / "match.png").stat().st_size > 10_000


def test_the_answer_can_be_read(folder: Path, patient: Path, known: int) -> None:
    done = in_process(
        folder,
        "invert",
        "gliomas.zarr",
        "--labels",
        str(patient),
        "--region",
        "core=1",
        "--region",
        "oedema=2",
    )
    assert done.returncode == 0
    assert f"  1. simulation {known} at 1 T: score 1, thresholds t1c 0.7 flair 0.2" in done.stdout
    assert "sqrt_DT" in done.stdout
    assert "exact" in done.stdout


def test_more_is_simulated_around_the_best_and_asked_too(
    folder: Path, reader: StoreReader, solver: Solver, tmp_path: Path, known: int
) -> None:
    for path in folder.glob("gliomas.*"):
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, tmp_path / path.name)
    *_, fields = solver.solve(reader.parameters[known] * [1.2, 1.0, 1.03, 1.0, 1.0], 0)
    mask = observed(solver, fields, {"flair": 0.2})["flair"]
    save(tmp_path / "flair.nii.gz", solver, mask.astype(np.uint8))
    before = invert(tmp_path, "--mask", "flair=flair.nii.gz")
    found = invert(tmp_path, "--mask", "flair=flair.nii.gz", "--grow", "6", "--refine")
    assert found["grown"]["simulations"] == 6
    assert found["entries"] == (SIMULATIONS + 6) * STEPS
    assert found["matches"][0]["score"] >= before["matches"][0]["score"]
    refined = found["refinement"]
    best = found["matches"][0]["score"]
    assert refined["score"] >= refined["score_before"] == pytest.approx(best)
    # It is told of a simulation that anyone can run again.
    cells = list(solver.solve(np.array([*refined["parameters"].values()]), 0))[refined["step"]][0]
    again = cells >= np.float32(refined["thresholds"]["flair"])
    assert refined["dice"]["flair"] == pytest.approx(overlap(again, mask), abs=1e-3)
    assert refined["score"] == refined["dice"]["flair"]
    assert refined["failed"] < refined["evaluations"] <= 80
    # Later questions ask the added ones as well.
    again = invert(tmp_path, "--mask", "flair=flair.nii.gz")
    assert again["matches"] == found["matches"]
    # Whether anything fits is asked of them, too, whatever the weights.
    weighed = invert(tmp_path, "--mask", "flair=flair.nii.gz", "--weights", "flair=2")
    assert weighed["coverage"] == again["coverage"]
    assert weighed["coverage"]["score"] == best > before["coverage"]["score"]
    # What would tell more is not what was simulated already, and the next growth is that.
    assert again["coverage"]["simulate_next"] != before["coverage"]["simulate_next"]
    invert(tmp_path, "--mask", "flair=flair.nii.gz", "--grow", "2")
    grown = StoreReader(str(tmp_path / "gliomas.grown.zarr"))
    assert len(np.unique(grown.parameters[grown.complete], axis=0)) == 8


def test_fields_of_any_solver_can_be_looked_up(module_on_cluster: None, tmp_path: Path) -> None:
    done = in_process(
        tmp_path, "simulate", str(CONFIGS / "quickstart.yaml"), "solver.grid_size=16",
        "solver.stored_steps=4", "design.simulations=12", "store.path=heat.zarr",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    reader = StoreReader(str(tmp_path / "heat.zarr"))
    temperature = reader.fields(5)[2, 0]
    np.savez(tmp_path / "seen.npz", **{reader.field_names[0]: temperature})
    done = in_process(
        tmp_path, "invert", "heat.zarr", "--field", "seen.npz", "--out", "answer", "--json"
    )
    assert done.returncode == 0, done.stderr
    found = the_object(done.stdout)
    assert (found["matches"][0]["simulation"], found["matches"][0]["step"]) == (5, 2)
    assert found["matches"][0]["distance"] == 0
    assert found["entries"] == 48
    # Without a noise nothing can be said of how well it fits.
    assert found["coverage"]["fits"] is None
    assert "has no temperature.noise" in found["warnings"][0]
    noisy = temperature + np.random.default_rng(0).normal(0, 2, temperature.shape)
    np.savez(tmp_path / "noisy.npz", **{"temperature": noisy, "temperature.noise": np.array(2.0)})
    done = in_process(tmp_path, "invert", "heat.zarr", "--field", "noisy.npz", "--json")
    told = the_object(done.stdout)
    assert told["matches"][0]["simulation"] == 5
    assert told["coverage"]["fits"] is True
    assert told["warnings"] == []
    np.savez(tmp_path / "other.npz", **{"temperature": -noisy, "temperature.noise": np.array(2.0)})
    done = in_process(tmp_path, "invert", "heat.zarr", "--field", "other.npz", "--json")
    assert the_object(done.stdout)["coverage"]["fits"] is False
    for file, says in {
        "seen": "without the noise it cannot be said",
        "noisy": "the best match fits: its distance",
        "other": "NOTHING in the store fits",
    }.items():
        done = in_process(tmp_path, "invert", "heat.zarr", "--field", f"{file}.npz")
        assert says in done.stdout
    saved = np.load(tmp_path / "answer" / "fields.npz")
    np.testing.assert_array_equal(saved["matched"][0], temperature)
    for command in (("index", "heat.zarr"), ("invert", "heat.zarr", "--mask", "t1c=any.nii.gz")):
        done = in_process(tmp_path, *command)
        assert done.returncode == 2
        assert "heat.zarr is a store of heat" in done.stderr


GIVEN = ("--labels", "patient.nii.gz", *REGIONS)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "has to be given once"),
        ((*GIVEN, "--mask", "t1c=patient.nii.gz"), "has to be given once"),
        (("--labels", "patient.nii.gz"), "never guessed"),
        ((*GIVEN, "--convention", "brats2021"), "never guessed"),
        (("--mask", "t1c=patient.nii.gz", "--region", "core=1"), "for labels"),
        (("--labels", "patient.nii.gz", "--convention", "brats1999"), "brats2018"),
        (
            ("--labels", "patient.nii.gz", "--region", "core=1,x", "--region", "oedema=2"),
            "whole numbers",
        ),
        (
            ("--labels", "patient.nii.gz", "--region", "core=1", "--region", "oedema=3"),
            "does not know 2",
        ),
        (
            ("--labels", "nowhere.nii.gz", *REGIONS),
            "nowhere.nii.gz",
        ),
        ((*GIVEN, "--top", "1000"), "from 1 to 240"),
        ((*GIVEN, "--weights", "t1c=-1,flair=1"), "at least 0"),
        ((*GIVEN, "--weights", "t1c"), "name=number"),
        ((*GIVEN, "--weights", "t1c=much"), "name=number"),
        (("--mask", "patient.nii.gz"), "name=value"),
        (("--mask", "t1c=patient.nii.gz", "--mask", "t1c=other.nii.gz"), "given twice"),
        (("--mask", "pet=patient.nii.gz"), "compared with t1c, flair"),
        (("--labels", "patient.nii.gz", "--region", "necrosis=1"), "knows: core, oedema"),
        ((*GIVEN, "--space", "moon"), "sri24"),
        ((*GIVEN, "--recurrence", "patient.nii.gz"), "give a folder for them (out)"),
        ((*GIVEN, "--surrogate", "runs/none"), "for a field only"),
        (("--field", "patient.nii.gz"), "patient.nii.gz"),
        (("--field", "seen.npz", "--weights", "t1c=1"), "not for a field"),
        (("--field", "seen.npz", "--space", "sri24"), "not for a field"),
        (("--field", "seen.npz", "--recurrence", "f.nii", "--out", "d"), "not for a field"),
        ((*GIVEN, "--recurrence", "none.nii", "--out", "d", "--grow", "9"), "none.nii"),
    ],
)
def test_what_cannot_be_asked_is_said_in_a_sentence(
    folder: Path, patient: Path, arguments: Sequence[str], says: str
) -> None:
    done = in_process(folder, "invert", "gliomas.zarr", *arguments)
    assert done.returncode == 2
    *before, sentence = done.stderr.splitlines()
    assert says in sentence
    assert all(line.startswith("millstream: reading the store ") for line in before)


def test_what_cannot_be_written_is_said_before_anything_is_simulated(
    folder: Path, patient: Path
) -> None:
    done = in_process(
        folder, "invert", "gliomas.zarr", *GIVEN, "--grow", "9", "--out", str(patient), "--json"
    )
    assert done.returncode == 1
    assert f"cannot write {patient}: File exists" in done.stderr
    found = the_object(done.stdout)
    assert found["matches"]
    assert "grown" not in found


def test_a_grown_store_counts_if_it_was_grown_from_this_one(
    folder: Path, patient: Path, tmp_path: Path
) -> None:
    for path in folder.glob("gliomas.*"):
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, tmp_path / path.name)
    grown = tmp_path / "gliomas.grown.zarr"
    grown.mkdir()  # as a growth leaves it that was killed at its beginning
    arguments = ("invert", "gliomas.zarr", "--labels", str(patient), *GIVEN[2:])
    done = in_process(tmp_path, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert the_object(done.stdout)["entries"] == SIMULATIONS * STEPS
    grown.rmdir()
    for end in ("", ".index"):
        shutil.copytree(f"{tmp_path / 'gliomas.zarr'}{end}", f"{grown}{end}")
    done = in_process(tmp_path, *arguments)
    assert done.returncode == 2
    assert "gliomas.grown.zarr was not grown from the store" in done.stderr


def test_indexing_again_changes_nothing(folder: Path) -> None:
    def state() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in index.iterdir()}

    index = Path(Index.open(str(folder / "gliomas.zarr")).folder)
    before = state()
    assert {"index.json", "calibration.json", "voxels"} < before.keys()
    done = in_process(folder, "index", "gliomas.zarr")
    assert done.returncode == 0
    assert "0 of them new" in done.stdout
    assert state() == {**before, "voxels": state()["voxels"]}  # opened to append


def test_an_index_has_to_be_of_the_store_as_it_is(folder: Path, patient: Path) -> None:
    def ask(*changed: str) -> str:
        done = in_process(folder, "invert", *changed, *GIVEN)
        assert done.returncode == 2
        _, sentence = done.stderr.splitlines()
        return sentence

    assert "nothing.zarr is not a store" in ask("nothing.zarr")
    index = Path(Index.open(str(folder / "gliomas.zarr")).folder)
    aside = index.with_name("aside")
    index.rename(aside)
    assert f"run millstream index {folder / 'gliomas.zarr'}" in ask("gliomas.zarr")
    aside.rename(index)
    calibration = index / "calibration.json"
    calibration.rename(folder / "calibration.json")
    assert "is not calibrated: run millstream index" in ask("gliomas.zarr")
    (folder / "calibration.json").rename(calibration)


def test_a_search_that_is_stopped_tells_what_was_found(
    folder: Path, patient: Path, cluster: str
) -> None:
    command = [MILLSTREAM, "invert", "gliomas.zarr", *GIVEN, "--refine", "--json"]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "RAY_ADDRESS": cluster},
    )  # fmt: skip
    # It refines once it has a task in the cluster, and that takes longer than to be stopped.
    until(lambda: process.poll() is not None or running_evaluations() != [])
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    found = the_object(output)
    assert found["error"] == "interrupted"
    assert found["matches"][0]["score"] == 1.0
    assert "Traceback" not in errors


def running_evaluations() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if any("ray::_evaluate" in part for part in process.cmdline()[:1]):
                found.append(process)
    return found


def test_the_example_writes_a_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(CONFIGS.parent / "examples" / "synthetic_patient.py"), run_name="__main__")
    assert "patient.nii.gz: sqrt_DT 11.5" in capsys.readouterr().out
    seen = read_labels(FisherKolmogorov(), tmp_path / "patient.nii.gz", "gliodil")
    assert seen.warnings == ()
    assert seen.volumes == pytest.approx({"t1c": 9.3, "flair": 49.0}, rel=0.05)  # as simulated
