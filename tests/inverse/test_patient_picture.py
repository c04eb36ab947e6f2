"""The picture of an answer."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from framework.errors import RunError
from framework.inverse.picture import draw_match
from solvers.base import Field, Grid, ImagedSolver, Order, Parameter, ParameterSpace

YELLOW, BLUE = (240, 228, 66), (86, 180, 233)


class Scanned(ImagedSolver):
    """A grid whose axes lead down, to the front and to the left."""

    parameters = ParameterSpace(Parameter("rate", 0.0, 1.0))
    fields = (Field("height"),)
    order = Order(1, 1)
    grid = Grid((20, 24, 28), (2.0, 2.0, 2.0), "mm")
    affine = np.array([[0, 0, -2.0, 0], [0, 2.0, 0, 0], [-2.0, 0, 0, 0], [0, 0, 0, 1]])
    masks = {"inner": (0.5,), "outer": (0.2,)}  # noqa: RUF012
    static_fields = {"ground": np.ones(grid.shape, np.float32)}  # noqa: RUF012

    def times(self, parameters):  # type: ignore[no-untyped-def]
        return np.zeros(1)

    def observe(self, fields, **settings):  # type: ignore[no-untyped-def]
        return {name: fields[0] >= settings.get(name, 0.5) for name in self.masks}

    def solve(self, parameters, seed):  # type: ignore[no-untyped-def]
        yield np.zeros((1, *self.grid.shape), np.float32)


def ball(radius: float, *centre: int) -> np.ndarray:
    away = np.moveaxis(np.indices(Scanned.grid.shape), 0, -1) - np.array(centre)
    return np.linalg.norm(away, axis=-1) < radius


def pixels(path: Path, colour: tuple[int, int, int]) -> int:
    image = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((np.abs(image - colour).max(-1) < 12).sum())


def test_outlines_of_the_patient_and_of_the_match_are_drawn(tmp_path: Path) -> None:
    observed = {"outer": ball(7, 10, 12, 14), "inner": ball(4, 10, 12, 14)}
    none = dict.fromkeys(observed, np.zeros(Scanned.grid.shape, np.bool_))
    sizes = {}
    for name, given, matched in (
        ("both", observed, {"outer": ball(6, 10, 12, 14), "inner": ball(2, 10, 12, 14)}),
        ("no match", observed, none),
        ("outer", {"outer": observed["outer"]}, none),
    ):
        path = tmp_path / f"{name}.png"
        draw_match(path, Scanned(), given, matched, "Simulation 3: score 0.9")
        sizes[name] = [pixels(path, colour) for colour in (YELLOW, BLUE)]
    assert sizes["both"][1] > 1.3 * sizes["no match"][1]
    assert min(sizes["both"]) > 500
    assert sizes["outer"][0] == 0  # no mask changes its colour where another was not observed
    assert sizes["outer"][1] > 500


def test_a_density_is_drawn_in_colour(tmp_path: Path) -> None:
    density = 0.4 * ball(6, 10, 12, 14).astype(np.float32)
    masks = {"inner": ball(4, 10, 12, 14)}
    sizes = []
    for values in (None, density):
        path = tmp_path / f"{values is None}.png"
        draw_match(path, Scanned(), masks, masks, "Simulation 3", values)
        image = np.asarray(Image.open(path).convert("RGB")).astype(int)
        sizes.append(int((np.ptp(image, axis=-1) > 60).sum()))
    assert sizes[1] > 2 * sizes[0]


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    masks = {"inner": ball(4, 10, 12, 14)}
    with pytest.raises(RunError, match="cannot write"):
        draw_match(tmp_path / "none" / "match.png", Scanned(), masks, masks, "Simulation 3")
