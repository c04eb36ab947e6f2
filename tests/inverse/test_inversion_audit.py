"""Every number that an answer to segmentations tells, computed again from files.

Nothing here uses the code that searched, weighed, planned or wrote: it reads zarr, NIfTI and JSON
files, and interpolates, counts and fits by itself. Of the solver it takes tissue and simulations.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import zarr
from commands import in_process, the_object
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from places import CONFIGS
from scipy.interpolate import RegularGridInterpolator
from scipy.spatial import KDTree

from solvers.tumor.fisher_kolmogorov import FisherKolmogorov

Numbers = NDArray[Any]
SIDE, SIMULATIONS, STEPS, TOP = 48, 90, 2, 5
SMALL = (
    f"solver.grid_size={SIDE}",
    f"solver.stored_steps={STEPS}",
    "solver.first_time=0.95",
    f"design.simulations={SIMULATIONS}",
    "ensemble.actors=1",
    "store.path=gliomas.zarr",
)
POINT = np.array([15.0, 9.5, 0.6, 0.4, 0.6])
ASKED = (
    *("--labels", "patient.nii.gz", "--region", "core=1", "--region", "oedema=2"),
    *("--recurrence", "later.nii.gz", "--out", "answer", "--top", str(TOP)),
)


@dataclass
class Answer:
    """A folder with a store and its answer, and what was printed."""

    folder: Path
    simulated: dict[str, Any]
    indexed: dict[str, Any]
    found: dict[str, Any]
    text: str  # of the same question
    pictured: list[str]  # the texts in the picture

    def image(self, name: str) -> Numbers:
        image = nibabel.load(self.folder / "answer" / f"{name}.nii.gz")
        return np.asarray(image.dataobj)

    def given(self) -> tuple[Numbers, Numbers]:
        """The patient's labels and affine."""
        image = nibabel.load(self.folder / "patient.nii.gz")
        return np.asarray(image.dataobj), image.affine

    def stored(self) -> tuple[Numbers, Numbers, Numbers]:
        """The fields [N, T, *grid], parameters [N, p] and times [N, T] of the store."""
        store = zarr.open_group(self.folder / "gliomas.zarr", mode="r")
        assert np.asarray(store["complete"]).all()
        cells = np.asarray(store["cells"]).astype(np.float32)
        return cells, np.asarray(store["parameters"]), np.asarray(store["t"])


def tool(folder: Path, *arguments: str) -> str:
    done = in_process(folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def solver() -> FisherKolmogorov:
    return FisherKolmogorov(SIDE, stored_steps=STEPS, first_time=0.95)


@pytest.fixture(scope="module")
def answer(
    module_on_cluster: None, tmp_path_factory: pytest.TempPathFactory, solver: FisherKolmogorov
) -> Answer:
    """The answer for a patient who is in no store, with two voxels to one of the grid's."""
    folder = tmp_path_factory.mktemp("audit")
    study = str(CONFIGS / "tumor_database.yaml")
    simulated = the_object(tool(folder, "simulate", study, *SMALL, "--json"))
    indexed = the_object(tool(folder, "index", "gliomas.zarr", "--json"))
    cells = list(solver.solve(POINT, 0))[-1][0]
    values, affine = on_finer(cells, solver, 2)
    labels = np.where(values >= 0.6, 1, np.where(values >= 0.2, 2, 0)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(labels, affine), folder / "patient.nii.gz")
    later, elsewhere = on_finer(cells, solver, 4)
    region = ((later >= 0.02) & (later < 0.3)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(region, elsewhere), folder / "later.nii.gz")
    pictured: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", noting(pictured))
        text = tool(folder, "invert", "gliomas.zarr", *ASKED)
    found = the_object(tool(folder, "invert", "gliomas.zarr", *ASKED, "--json"))
    return Answer(folder, simulated, indexed, found, text, pictured)


def noting(pictured: list[str]) -> Any:
    """What saves a figure, and notes its texts."""
    save = Figure.savefig

    def noted(figure: Figure, *arguments: Any, **options: Any) -> None:
        pictured.extend(text.get_text() for text in figure.findobj(Text))
        save(figure, *arguments, **options)

    return noted


def on_finer(cells: Numbers, solver: FisherKolmogorov, parts: int) -> tuple[Numbers, Numbers]:
    """Cells on voxels of the grid cut into parts, with the axes of an LPS scanner, and its affine.

    Two voxels of the grid are left out on all sides.
    """
    assert solver.affine is not None
    middles = (np.arange(parts * (SIDE - 4)) + 0.5) / parts - 0.5 + 2
    at = np.stack(np.meshgrid(*3 * [middles], indexing="ij"), -1)
    to_grid = np.diag([*3 * [1 / parts], 1.0])
    to_grid[:3, 3] = middles[0]
    image = nibabel.Nifti1Image(interpolated(cells, at), solver.affine @ to_grid)
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(image.affine),
        nibabel.orientations.axcodes2ornt(("L", "P", "S")),
    )
    turned = image.as_reoriented(turn)
    return np.asarray(turned.dataobj), turned.affine


def interpolated(values: Numbers, at: Numbers) -> Numbers:
    """Values [*grid] at indices of the grid [..., 3], all within it."""
    axes = [np.arange(n) for n in values.shape]
    return np.asarray(RegularGridInterpolator(axes, values.astype(np.float64))(at))


def places(affine: Numbers, shape: tuple[int, ...]) -> Numbers:
    """Positions in mm of the voxels of an image [*shape, 3]."""
    return np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]


def to_indices(affine: Numbers, positions: Numbers) -> Numbers:
    """Indices of an image with this affine at positions in mm."""
    return (positions - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T


def on_grid(mask: Numbers, affine: Numbers, solver: FisherKolmogorov) -> Numbers:
    """The voxels of the grid, of which each has eight of the mask's, with four or more in it."""
    assert solver.affine is not None
    index = to_indices(solver.affine, places(affine, mask.shape)[mask])
    count = np.zeros(3 * (SIDE,), int)
    np.add.at(count, tuple(np.rint(index).astype(int).T), 1)
    return count >= 4


@pytest.fixture(scope="module")
def observed(answer: Answer, solver: FisherKolmogorov) -> dict[str, Numbers]:
    """The patient's masks on the grid."""
    labels, affine = answer.given()
    return {
        "t1c": on_grid(labels == 1, affine, solver),
        "flair": on_grid(labels > 0, affine, solver),
    }


@pytest.fixture(scope="module")
def dice(answer: Answer, observed: dict[str, Numbers]) -> dict[str, Numbers]:
    """The Dice coefficients of all entries at all thresholds [N, T, thresholds], voxel by voxel."""
    cells = answer.stored()[0]
    found = {}
    for name, mask in observed.items():
        thresholds = np.float32(answer.indexed["masks"][name])
        masks = cells[..., None] >= thresholds
        common = (masks & mask[..., None]).sum((2, 3, 4))
        found[name] = 2 * common / (masks.sum((2, 3, 4)) + mask.sum())
    return found


def test_matches_are_the_best_of_all_entries(answer: Answer, dice: dict[str, Numbers]) -> None:
    _, parameters, times = answer.stored()
    found = answer.found
    score = sum(values.max(-1) for values in dice.values()) / 2
    order = sorted(np.ndindex(*score.shape), key=lambda key: (-score[key], key))[:TOP]
    assert [(one["simulation"], one["step"]) for one in found["matches"]] == order
    for one, key in zip(found["matches"], order, strict=True):
        assert one["score"] == pytest.approx(score[key])
        for name, values in dice.items():
            assert one["dice"][name] == pytest.approx(values[key].max())
            best = answer.indexed["masks"][name][int(values[key].argmax())]
            assert one["thresholds"][name] == best
        assert list(one["parameters"].values()) == parameters[key[0]].tolist()
        assert one["time"] == times[key]
    assert found["entries"] == SIMULATIONS * STEPS >= found["refined"] >= TOP
    assert found["seconds"] > 0
    kept = json.loads((answer.folder / "gliomas.zarr.index/calibration.json").read_text())
    (both,) = [one for one in kept["found"] if len(one["masks"]) == 2]
    assert both["least_score"] is not None
    assert found["coverage"]["score"] == pytest.approx(score.max())
    assert found["coverage"]["least_score"] == both["least_score"]
    assert found["coverage"]["false_alarms"] == 0.05
    assert found["coverage"]["fits"] is bool(score.max() >= both["least_score"])


def test_volumes_are_those_of_the_labels(answer: Answer) -> None:
    labels, affine = answer.given()
    voxel = abs(np.linalg.det(affine[:3, :3])) / 1000
    assert answer.found["volumes_ml"] == pytest.approx(
        {"t1c": (labels == 1).sum() * voxel, "flair": (labels > 0).sum() * voxel}
    )


def test_plans_are_those_of_the_files(answer: Answer, solver: FisherKolmogorov) -> None:
    """Their volumes, their parts of the recurrence, and where they lie."""
    labels, affine = answer.given()
    voxel = abs(np.linalg.det(affine[:3, :3])) / 1000
    later = nibabel.load(answer.folder / "later.nii.gz")
    region = np.asarray(later.dataobj) > 0
    # The voxel of the plan in which each voxel of the recurrence has its middle.
    at = to_indices(affine, places(later.affine, region.shape)[region])
    indices = tuple(np.rint(at).astype(int).T)
    told = answer.found["plans"]
    plans = {name: answer.image(f"plan_{name}") > 0 for name in told}
    for name, plan in plans.items():
        assert told[name]["ml"] == pytest.approx(np.count_nonzero(plan) * voxel), name
        share = plan[indices].sum() / region.sum()
        assert told[name]["recurrence_covered"] == pytest.approx(share), name
        assert 0.1 < share < 1
    assert np.count_nonzero(plans["standard"]) == np.count_nonzero(plans["model"])

    assert solver.affine is not None
    positions = places(affine, labels.shape)
    on_solver = to_indices(solver.affine, positions)
    shares = sum(interpolated(part, on_solver) for part in solver.static_fields.values())
    clear = np.abs(shares - 0.1) > 1e-5  # elsewhere rounding may decide what is tissue
    near = KDTree(positions[labels == 1]).query(positions)[0] <= 15
    expected = (shares >= 0.1) & near
    np.testing.assert_array_equal(plans["standard"][clear], expected[clear])
    cells = answer.image("mean_cells")
    assert cells[plans["model"]].min() >= cells[(shares > 0.1 + 1e-5) & ~plans["model"]].max()


def shape_of(mask: Numbers, spacing: float, radius: float) -> Numbers:
    """The logarithms of volume and extent of a mask, and its centroid, the last two scaled."""
    index = np.argwhere(mask)
    if not len(index):
        extent = 3 / 12 * (spacing / radius) ** 2
        return np.array([np.log(0.5), np.log(extent), 0, 0, 0])
    middle = index.mean(0)
    extent = (((index - middle) ** 2).sum(1).mean() + 3 / 12) * (spacing / radius) ** 2
    return np.array([np.log(len(index)), np.log(extent), *middle * spacing / radius])


def part_of(thresholds: list[float]) -> Numbers:
    """The part of the span of thresholds that is nearest to each."""
    ends = [thresholds[0], *(np.diff(thresholds) / 2 + thresholds[:-1]), thresholds[-1]]
    return np.diff(ends) / (thresholds[-1] - thresholds[0])


def quantile(values: Numbers, weights: Numbers, share: float) -> float:
    """With a value in the middle of its weight."""
    order = values.argsort()
    reached = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
    return float(np.interp(share, reached, values[order]))


@pytest.fixture(scope="module")
def weights(answer: Answer, dice: dict[str, Numbers]) -> Numbers:
    """Of the particles [N, T, thresholds of t1c, of flair], as docs/explanation/inverse.md says."""
    score = (dice["t1c"][..., :, None] + dice["flair"][..., None, :]) / 2
    temperature = answer.found["provenance"]["index"]["calibration"]["temperature"]
    prior = [part_of(answer.indexed["masks"][name]) for name in ("t1c", "flair")]
    return np.exp((score - score.max()) / temperature) * prior[0][:, None] * prior[1]


def test_the_posterior_is_that_of_all_entries(
    answer: Answer, solver: FisherKolmogorov, observed: dict[str, Numbers], weights: Numbers
) -> None:
    """Estimates by weights, a regression on the shapes of masks, and calibrated intervals."""
    cells, parameters, times = answer.stored()
    spacing, masks = solver.grid.spacing[0], answer.indexed["masks"]
    kept = np.argwhere(weights > 1e-5 * weights.max())
    w = weights[tuple(kept.T)]
    away = []
    shapes: dict[tuple[Any, ...], Numbers] = {}
    for n, t, *which in kept.tolist():
        for name, threshold in zip(("t1c", "flair"), which, strict=True):
            radius = np.cbrt(observed[name].sum() * spacing**3) / 2
            key = (n, t, name, threshold)
            if key not in shapes:
                mask = cells[n, t] >= np.float32(masks[name][threshold])
                shapes[key] = shape_of(mask, spacing, radius)
                shapes[key] = shapes[key] - shape_of(observed[name], spacing, radius)
        names = (("t1c", which[0]), ("flair", which[1]))
        away.append(np.concatenate([shapes[n, t, name, at] for name, at in names]) / 0.3)
    x, time, point = np.array(away), times[kept[:, 0], kept[:, 1]], parameters[kept[:, 0]]
    assert solver.affine is not None
    place = (point[:, 2:] * SIDE - 0.5) @ solver.affine[:3, :3].T + solver.affine[:3, 3]
    y = np.column_stack(
        [
            np.log(point[:, 0] * np.sqrt(time)),
            np.log(point[:, 1] * time),
            np.log(point[:, 0] / np.sqrt(point[:, 1])),
            place,
        ]
    )
    p = w / w.sum()
    centre = p @ x
    spread = (x - centre).T @ ((x - centre) * p[:, None]) + (p**2).sum() * np.eye(10)
    slopes = np.linalg.solve(spread, (x - centre).T @ ((y - p @ y) * p[:, None]))
    reach = np.sqrt(centre @ np.linalg.inv(spread) @ centre)
    y = y - (x - centre * max(0, 1 - 2 / reach)) @ slopes
    stretch = answer.found["provenance"]["index"]["calibration"]["stretch"]
    posterior = answer.found["posterior"]
    assert list(posterior) == list(stretch) == ["sqrt_DT", "rho_T", "width", "x", "y", "z"]
    for values, (name, told), log in zip(y.T, posterior.items(), 3 * [1] + 3 * [0], strict=True):
        middle = quantile(values, w, 0.5)
        values = middle + stretch[name] * (values - middle)
        values = np.exp(values) if log else values
        mean = p @ values
        # The median lies between equal values, whose order is open.
        assert told["mean"] == pytest.approx(mean, rel=1e-3), name
        assert told["sd"] == pytest.approx(np.sqrt(p @ (values - mean) ** 2), rel=1e-3), name
        ends = [quantile(values, w, share) for share in (0.05, 0.95)]
        assert told["interval_90"] == pytest.approx(ends, rel=1e-3), name


def test_images_are_the_match_the_mean_and_the_deviation(
    answer: Answer, solver: FisherKolmogorov, weights: Numbers
) -> None:
    cells = answer.stored()[0].astype(np.float64)
    best = answer.found["matches"][0]
    p = weights.sum((2, 3))
    p = np.where(p > 1e-5 * p.max(), p, 0)
    p /= p.sum()
    mean = np.einsum("nt,ntijk->ijk", p, cells)
    variance = np.einsum("nt,ntijk->ijk", p, (cells - mean) ** 2)
    labels, affine = answer.given()
    assert solver.affine is not None
    at = to_indices(solver.affine, places(affine, labels.shape))
    for name, values in {
        "matched_cells": cells[best["simulation"], best["step"]],
        "mean_cells": mean,
        "sd_cells": np.sqrt(variance),
    }.items():
        np.testing.assert_allclose(answer.image(name), interpolated(values, at), atol=2e-6)
    worth = 1 / (p**2).sum()
    assert f"posterior, {worth:.1f} entries' worth:" in answer.text


def test_what_is_printed_and_pictured_is_the_answer(answer: Answer) -> None:
    found, lines = answer.found, answer.text.splitlines()
    assert json.loads((answer.folder / "answer/result.json").read_text()) == found
    first = re.fullmatch(r"(\d+) entries, (\d+) compared in full, \d+ ms, exact", lines[0])
    assert first is not None
    assert [int(text) for text in first.groups()] == [found["entries"], found["refined"]]
    for number, one in enumerate(found["matches"], 1):
        thresholds, dice = (
            " ".join(f"{name} {value:.4g}" for name, value in one[key].items())
            for key in ("thresholds", "dice")
        )
        point = ", ".join(f"{name} {value:.3g}" for name, value in one["parameters"].items())
        assert lines[number] == (
            f"{number:3}. simulation {one['simulation']} at {one['time']:.3g} T: "
            f"score {one['score']:.4g}, thresholds {thresholds}, dice {dice}; {point}"
        )
    for line, (name, one) in zip(lines[TOP + 2 :], found["posterior"].items(), strict=False):
        low, high = one["interval_90"]
        assert line.split()[:2] == [name, f"{one['mean']:.3g}"]
        assert line.endswith(f"90 % in [{low:.3g}, {high:.3g}]")
        assert f"+- {one['sd']:.2g}" in line
    coverage = found["coverage"]
    assert f"the best score is {coverage['score']:.3f}; 5%" in answer.text
    assert f"are below {coverage['least_score']:.3f}" in answer.text
    for name, plan in found["plans"].items():
        share = f"{100 * plan['recurrence_covered']:.1f}% of the recurrence"
        assert f"plan {name}: {plan['ml']:.1f} ml, {share}" in lines
    best = found["matches"][0]
    dice = ", ".join(f"{name} {value:.3f}" for name, value in best["dice"].items())
    title = f"simulation {best['simulation']}, step {best['step']}: Dice {dice}"
    assert title in answer.pictured


def test_the_store_and_its_index_are_as_large_as_told(answer: Answer) -> None:
    simulated, indexed = answer.simulated, answer.indexed
    complete = zarr.open_group(answer.folder / "gliomas.zarr", mode="r")["complete"]
    assert simulated["simulations"] == {
        "requested": SIMULATIONS,
        "completed": int(np.asarray(complete).sum()),
        "quarantined": 0,
    }
    for told, path in ((simulated, "gliomas.zarr"), (indexed, "gliomas.zarr.index")):
        files = [file for file in (answer.folder / path).rglob("*") if file.is_file()]
        assert told["bytes"] == sum(file.stat().st_size for file in files)
    assert indexed["simulations"] == {"indexed": SIMULATIONS, "added": SIMULATIONS}
    assert indexed["entries"] == SIMULATIONS * STEPS
    assert 0 < indexed["seconds"] < 600
