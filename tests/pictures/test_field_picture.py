"""Pictures of simulations, whatever the dimension of the grid."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from framework.errors import RunError
from framework.pictures.fields import Trajectory, draw_store, draw_trajectories
from framework.store.owner import Store
from framework.study.sections import StoreConfig
from solvers.base import Field, Grid, Order, Parameter, ParameterSpace, Solver

SPACE = ParameterSpace(Parameter("speed", 0.0, 1.0, "m/s"), Parameter("rate", 0.0, 1.0))


class Bump(Solver):
    """A bump that rises in the middle of a grid of any dimension."""

    parameters = SPACE
    fields = (Field("height", "m"), Field("slope"))
    order = Order(1, 1)
    stored_steps = 4

    def __init__(self, *shape: int) -> None:
        self.grid = Grid(shape, (0.5,) * len(shape), "m")

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.linspace(0, 1, 4)

    def solve(self, parameters: NDArray[np.float64], seed: int):  # type: ignore[no-untyped-def]
        x = np.meshgrid(*(np.linspace(-1, 1, n) for n in self.grid.shape), indexing="ij")
        bump = np.exp(-4 * sum(a**2 for a in x)).astype(np.float32)
        for t in self.times(parameters):
            yield np.stack([t * bump, parameters[0] + t * bump]).astype(np.float32)


class Observed(Bump):
    """In a scanner's space, with a mask."""

    affine = np.eye(4)

    def __init__(self, *shape: int) -> None:
        super().__init__(*shape)
        self.static_fields = {"ground": np.ones(shape, dtype=np.float32)}

    def observe(
        self, fields: NDArray[np.float32], **settings: float
    ) -> Mapping[str, NDArray[np.float32] | NDArray[np.bool_]]:
        return {"core": fields[0] > 0.5, "empty": fields[0] > 2, "image": fields[0]}


def drawn(solver: Solver, count: int = 1) -> Figure:
    point = np.array([0.25, 0.5])
    fields = np.stack(list(solver.solve(point, 0)))
    one = Trajectory("Simulation 7", point, solver.times(point), fields)
    return draw_trajectories([one] * count, solver, SPACE)


def titles(figure: Figure) -> list[str]:
    parts = figure.subfigs
    return [part.get_suptitle() for part in parts]


@pytest.mark.parametrize(
    ("solver", "panels"), [(Bump(1), 1), (Bump(40), 2), (Bump(20, 30), 8), (Bump(10, 11, 12), 3)]
)
def test_every_dimension_has_its_panels(solver: Solver, panels: int) -> None:
    figure = drawn(solver, count=2)
    assert titles(figure) == ["Simulation 7: speed = 0.25 m/s, rate = 0.5"] * 2
    for part in figure.subfigs:
        bars = [axes for axes in part.axes if axes.get_label() == "<colorbar>"]
        assert len(part.axes) - len(bars) == panels


def test_masks_are_outlined_over_what_is_static() -> None:
    figure = drawn(Observed(20, 22, 24))
    axes = figure.subfigs[0].axes[0]
    assert axes.get_title() == "sagittal plane, t = 1"
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["core"]
    # The only outline is the core's, a closed line around the middle.
    (outline,) = [child for child in axes.collections if len(child.get_paths()[0].vertices)]
    low, high = outline.get_paths()[0].vertices.min(0), outline.get_paths()[0].vertices.max(0)
    np.testing.assert_allclose((low + high) / 2, [21 / 2, 23 / 2], atol=1.0)
    assert len(axes.images) == 2


@pytest.mark.parametrize("ground", [0.0, -1.0])
def test_static_fields_without_anything_in_them_are_drawn(ground: float) -> None:
    solver = Observed(8, 9, 10)
    solver.static_fields = {"obstacle": np.full((8, 9, 10), ground, dtype=np.float32)}
    assert len(drawn(solver).subfigs[0].axes[0].images) == 2


def test_a_field_of_zeros_is_drawn_over_what_is_static() -> None:
    solver, fields = Observed(8, 9, 10), np.zeros((4, 2, 8, 9, 10), dtype=np.float32)
    point = np.array([0.25, 0.5])
    one = Trajectory("Simulation 7", point, solver.times(point), fields)
    figure = draw_trajectories([one], solver, SPACE)
    figure.canvas.draw()
    assert len(figure.subfigs[0].axes[0].images) == 2


def test_the_first_simulations_of_a_store_are_drawn(tmp_path: Path) -> None:
    solver = Bump(12, 12)
    identity = {
        "format": 1,
        "solver": {"name": "bump"},
        "fields": {field.name: field.units for field in solver.fields},
        "grid": {"shape": [12, 12], "spacing": [0.5, 0.5], "units": "m"},
    }
    store = Store.open(str(tmp_path / "a.zarr"), StoreConfig(), identity, solver, 5)
    with pytest.raises(RunError, match="no simulation is complete"):
        draw_store(store.path, solver, SPACE, tmp_path / "a.png")
    writer = store.writer()
    for id in (1, 2, 3, 4):
        point = np.array([id / 10, 0.5])
        for step, fields in enumerate(solver.solve(point, 0)):
            writer.append(id, step, fields)
        writer.finish(id)
        store.commit(id, point)
    store.flush()
    store.close()
    draw_store(store.path, solver, SPACE, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 1000
        assert np.asarray(image.convert("L")).std() > 10
