"""How far answers can be trusted: intervals hold the truth, and what does not fit is said so."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from balls import (
    BALLS,
    SIDE,
    SIMULATIONS,
    STEPS,
    THRESHOLDS,
    Balls,
    patient,
    stored_balls,
)
from numpy.typing import NDArray

from framework.errors import DamagedError, StudyError
from framework.inverse.index.building import build
from framework.inverse.index.index import Index
from framework.inverse.posterior.calibration import FALSE_ALARMS, FILE, Calibration, calibrate
from framework.inverse.posterior.particles import Particles
from framework.inverse.posterior.patients import CORRELATION, NOISE, move_boundary, patients
from framework.store.reader import StoreReader
from solvers.base import Quantity


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> StoreReader:
    path = stored_balls(tmp_path_factory.mktemp("posterior") / "balls.zarr", SIMULATIONS)
    build(path)
    return StoreReader(path)


@pytest.fixture(scope="module")
def index(reader: StoreReader) -> Index:
    return Index.open(reader)


@pytest.fixture(scope="module")
def calibrated(reader: StoreReader) -> Calibration:
    return calibrate(reader.path, 90, (0.05, 0.1))


Truths = list[NDArray[np.float64]]  # of patients: the true values [q]
Choices = dict[tuple[str, ...], list[Particles]]  # of the same patients, by the masks observed


@pytest.fixture(scope="module")
def new_patients(index: Index, reader: StoreReader) -> tuple[Truths, Choices]:
    """Patients who are not in the store, seen by both masks and by one."""
    made = [patient(id) for id in range(60)]
    choices = (tuple(THRESHOLDS), ("rim",))
    return [truth for truth, _ in made], {
        chosen: [
            Particles(index, reader, BALLS, {name: masks[name] for name in chosen})
            for _, masks in made
        ]
        for chosen in choices
    }


class Late(Balls):
    """Whose growth begins at half of the time."""

    def identifiable(
        self, parameters: NDArray[np.float64], t: NDArray[np.float64]
    ) -> Mapping[str, Quantity]:
        return super().identifiable(parameters, np.maximum(t - 0.5, 0))


@pytest.mark.parametrize("masks", [("core", "rim"), ("rim",)])
def test_intervals_hold_the_truth_as_often_as_they_say(
    index: Index,
    calibrated: Calibration,
    new_patients: tuple[Truths, Choices],
    masks: tuple[str, ...],
) -> None:
    """Of patients who are not in the store, as calibration was made on those who are."""
    found = Calibration.read(index, masks)
    assert found.masks == masks
    truths, choices = new_patients
    intervals = np.array(
        [
            [
                estimate.interval_90
                for estimate in particles.at(found.temperature, found.stretch).quantities.values()
            ]
            for particles in choices[masks]
        ]
    )  # [patients, q, 2]
    held = (intervals[..., 0] <= truths) & (truths <= intervals[..., 1])
    assert 0.85 <= held.mean() <= 0.97
    assert (held.mean(0) >= 0.75).all()
    assert (np.median(np.ptp(intervals, -1), 0)[2:] < 32 * 0.9 / 3).all()
    assert all(0.75 <= share <= 1 for share in found.coverage.values())
    assert found.coverage.keys() == found.width.keys() == {"radius", "width", "x", "y"}


@pytest.mark.parametrize("masks", [("core", "rim"), ("rim",)])
def test_what_the_store_covers_fits(
    index: Index,
    calibrated: Calibration,
    new_patients: tuple[Truths, Choices],
    masks: tuple[str, ...],
) -> None:
    found = Calibration.read(index, masks)
    alarms = [not found.fits(particles.best) for particles in new_patients[1][masks]]
    assert np.mean(alarms) <= 3 * FALSE_ALARMS


def test_each_choice_of_masks_is_calibrated_for_itself(
    index: Index, calibrated: Calibration
) -> None:
    assert calibrated == Calibration.read(index)
    assert Calibration.read(index, ["rim"]).least_score != calibrated.least_score


def test_what_the_store_does_not_cover_does_not_fit(
    index: Index, reader: StoreReader, calibrated: Calibration
) -> None:
    cross = np.zeros((SIDE, SIDE), bool)
    cross[19:21], cross[:, 19:21] = True, True
    particles = Particles(index, reader, BALLS, {"core": cross, "rim": cross})
    assert calibrated.fits(particles.best) is False


def test_a_store_of_one_simulation_is_too_small_to_calibrate(tmp_path: Path) -> None:
    path = stored_balls(tmp_path / "balls.zarr", 1)
    build(path)
    made = calibrate(path)
    assert Calibration.read(Index.open(path)) == made
    assert made.fits(0.0) is None


def test_patients_of_few_simulations_say_nothing(tmp_path: Path) -> None:
    path = stored_balls(tmp_path / "balls.zarr", 38)
    build(path)
    reader = StoreReader(path)
    made = list(patients(Index.open(reader), reader, BALLS, 45, np.random.default_rng(0)))
    assert len(made) == 45  # of whom enough is seen
    assert calibrate(path).least_score is None


def test_what_has_not_grown_is_no_patient(index: Index, reader: StoreReader) -> None:
    """As the posterior leaves it out, it cannot be the truth."""
    made = patients(index, reader, Late(), 60, np.random.default_rng(0))
    assert {step for _, step, _ in made} == {2}
    made = patients(index, reader, BALLS, 60, np.random.default_rng(0))
    assert {step for _, step, _ in made} == {1, 2}


def test_what_is_the_same_in_all_the_store_is_told_with_no_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Balls, "identifiable", lambda self, p, t: {"depth": Quantity(0 * t + 7)})
    path = stored_balls(tmp_path / "balls.zarr", 45)
    build(path)
    made = calibrate(path, 40)
    assert made.checked == 40
    assert made.width == {"depth": 0}


def test_what_is_simulated_meanwhile_does_not_keep_from_calibrating(tmp_path: Path) -> None:
    path = stored_balls(tmp_path / "balls.zarr", 3)
    build(path)
    stored_balls(tmp_path / "balls.zarr", 4, first=3)
    assert calibrate(path).entries == 3 * STEPS


def test_a_calibration_is_kept_and_is_of_one_state_of_the_index(
    tmp_path: Path,
) -> None:
    path = stored_balls(tmp_path / "balls.zarr", 40)
    build(path)
    with pytest.raises(StudyError, match="is not calibrated: run millstream index"):
        Calibration.read(Index.open(path))
    made = calibrate(path, 12)
    kept = Calibration.read(Index.open(path))
    assert kept == made == calibrate(path, 12)
    file = Index.open(path).folder / FILE
    stored_balls(tmp_path / "balls.zarr", 45, first=40)
    build(path)
    with pytest.raises(StudyError, match="is not calibrated"):
        Calibration.read(Index.open(path))
    assert calibrate(path, 12).entries == 45 * STEPS
    text = file.read_text()
    file.write_text(text.replace('"temperature": 0.', '"temperature": 1.'))
    with pytest.raises(DamagedError, match="its checksum is wrong"):
        Calibration.read(Index.open(path))
    file.write_text(text[:50])
    with pytest.raises(DamagedError, match=r"calibration\.json is damaged"):
        Calibration.read(Index.open(path))


def test_too_few_patients_say_nothing_about_fit(tmp_path: Path) -> None:
    path = stored_balls(tmp_path / "balls.zarr", 4)
    build(path)
    made = calibrate(path)
    assert made.least_score is None
    assert made.fits(0.1) is None
    assert made.coverage == {}


def test_raters_move_a_boundary_by_as_much_as_they_say() -> None:
    spacing, random = 0.5, np.random.default_rng(0)
    half = np.zeros((160, 160), bool)
    half[80:] = True
    edges = []
    for _ in range(40):
        mask = move_boundary(half, (spacing, spacing), random)
        edges.append((80 - mask.sum(0)) * spacing)  # from where it was [160]
    away = np.array(edges)
    assert abs(away.mean()) < 0.2
    assert away.std() == pytest.approx(NOISE, rel=0.2)
    lag = round(CORRELATION / spacing)
    correlation = np.corrcoef(away[:, :-lag].ravel(), away[:, lag:].ravel())[0, 1]
    assert correlation == pytest.approx(np.exp(-0.5), abs=0.2)
