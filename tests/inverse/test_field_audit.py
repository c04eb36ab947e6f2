"""Every number that an answer to values of fields tells, computed again from the store's arrays."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import zarr
from balls import BALLS, SIDE, SPACING, STEPS, ball, stored_balls
from commands import in_process, the_object
from numpy.typing import NDArray
from scipy import stats
from scipy.interpolate import RegularGridInterpolator

Numbers = NDArray[np.float64]
SIMULATIONS, SENSORS, NOISE, TOP = 60, 30, 0.3, 4


@dataclass
class Answer:
    """An answer, its text, and what it is computed from: entries in the order of the store."""

    found: dict[str, Any]
    text: str
    written: dict[str, Numbers]
    fields: Numbers  # [n, *grid]
    parameters: Numbers  # [n, p]
    times: Numbers  # [n]
    distances: Numbers  # [n]


@pytest.fixture(scope="module", params=["any time", "the last time"])
def answer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """Of sensors between the points of the grid, for a disc that is in no store."""
    folder = tmp_path_factory.mktemp("fields")
    store = zarr.open_group(stored_balls(folder / "balls.zarr", SIMULATIONS), mode="r")
    random = np.random.default_rng(3)
    positions = random.uniform(0, (SIDE - 1) * SPACING, (SENSORS, 2))
    axes = 2 * [np.arange(SIDE) * SPACING]
    truth = list(BALLS.solve(ball(1000), 0))[-1][0]
    values = RegularGridInterpolator(axes, truth)(positions) + random.normal(0, NOISE, SENSORS)
    seen = {"cells": values, "cells.positions": positions, "cells.noise": NOISE}
    if request.param == "the last time":
        seen["time"] = 1.0
    np.savez(folder / "seen.npz", **seen)
    command = ("invert", "balls.zarr", "--field", "seen.npz", "--top", str(TOP), "--out", "answer")
    text, printed = (in_process(folder, *command, *more) for more in ((), ("--json",)))
    assert text.returncode == printed.returncode == 0, text.stderr
    fields = np.asarray(store["cells"]).reshape(-1, SIDE, SIDE).astype(float)
    times = np.asarray(store["t"]).ravel()
    errors = [
        (RegularGridInterpolator(axes, field)(positions) - values) / NOISE for field in fields
    ]
    distances = np.square(errors).sum(1)
    if "time" in seen:
        distances[times != 1] = np.inf
    written = dict(np.load(folder / "answer/fields.npz"))
    parameters = np.asarray(store["parameters"]).repeat(STEPS, 0)
    found = the_object(printed.stdout)
    return Answer(found, text.stdout, written, fields, parameters, times, distances)


def test_matches_and_their_fit_are_those_of_all_entries(answer: Answer) -> None:
    found, order = answer.found, answer.distances.argsort(kind="stable")[:TOP]
    keys = [(one["simulation"], one["step"]) for one in found["matches"]]
    assert keys == [divmod(int(entry), STEPS) for entry in order]
    for one, entry in zip(found["matches"], order, strict=True):
        assert one["distance"] == pytest.approx(answer.distances[entry])
        assert list(one["parameters"].values()) == answer.parameters[entry].tolist()
        assert one["time"] == answer.times[entry]
    entries = int(np.isfinite(answer.distances).sum())
    assert found["entries"] == found["refined"] == entries
    coverage = found["coverage"]
    assert coverage["score"] == pytest.approx(answer.distances.min())
    assert coverage["greatest_distance"] == pytest.approx(stats.chi2(SENSORS).ppf(0.95))
    assert coverage["fits"] is bool(answer.distances.min() <= coverage["greatest_distance"])


def weights(answer: Answer) -> Numbers:
    """Of all entries [n]: exp(-distance / 2), without those below a hundred-thousandth."""
    found = np.exp((answer.distances.min() - answer.distances) / 2)
    found[found <= 1e-5] = 0
    return found / found.sum()


def test_the_posterior_is_that_of_all_entries(answer: Answer) -> None:
    p = weights(answer)
    radius, width, x, y = answer.parameters.T
    expected = {"radius": radius * answer.times, "width": width, "x": x, "y": y}
    assert answer.found["posterior"].keys() == expected.keys()
    for name, values in expected.items():
        told = answer.found["posterior"][name]
        mean = p @ values
        assert told["mean"] == pytest.approx(mean)
        assert told["sd"] == pytest.approx(np.sqrt(p @ (values - mean) ** 2))
        order = values.argsort()
        order = order[p[order] > 0]
        reached = np.cumsum(p[order]) - p[order] / 2
        ends = np.interp([0.05, 0.95], reached, values[order])
        assert told["interval_90"] == pytest.approx(ends.tolist(), rel=1e-3)
    mean = np.einsum("n,nij->ij", p, answer.fields)
    variance = np.einsum("n,nij->ij", p, (answer.fields - mean) ** 2)
    written = answer.written
    np.testing.assert_array_equal(written["matched"][0], answer.fields[answer.distances.argmin()])
    np.testing.assert_allclose(written["mean"][0], mean, atol=1e-6)
    np.testing.assert_allclose(written["sd"][0], np.sqrt(variance), atol=1e-6)


def test_what_is_printed_is_the_answer(answer: Answer) -> None:
    found, lines = answer.found, answer.text.splitlines()
    head = rf"{found['entries']} entries, {found['refined']} compared in full, \d+ ms, exact"
    assert re.fullmatch(head, lines[0])
    for number, (one, line) in enumerate(zip(found["matches"], lines[1:], strict=False), 1):
        point = ", ".join(f"{name} {value:.3g}" for name, value in one["parameters"].items())
        assert line == (
            f"{number:3}. simulation {one['simulation']} at {one['time']:.3g}: "
            f"distance {one['distance']:.4g}; {point}"
        )
        if number == TOP:
            break
    assert lines[TOP + 1] == f"posterior, {1 / (weights(answer) ** 2).sum():.1f} entries' worth:"
    for line, (name, one) in zip(lines[TOP + 2 :], found["posterior"].items(), strict=False):
        low, high = one["interval_90"]
        told = f"{one['mean']:.3g} +- {one['sd']:.2g} mm, 90 % in [{low:.3g}, {high:.3g}]"
        assert line.split(maxsplit=1) == [name, told]
    coverage = found["coverage"]
    assert f"its distance is {coverage['score']:.4g}" in lines[-1]
    assert f"stays below {coverage['greatest_distance']:.4g} in 95%" in lines[-1]
