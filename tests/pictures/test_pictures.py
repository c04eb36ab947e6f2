"""A run's pictures: that they are drawn of whatever there is, and of nothing where there is not."""

import math
import os
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from framework.pictures.comparison import Comparison
from framework.pictures.coverage import DesignPoints, draw_coverage
from framework.pictures.errors import draw_comparison
from framework.pictures.run import draw_curves, draw_pictures, draw_timeline
from framework.pictures.style import STYLE
from framework.tracking.history import Record
from solvers.base import Field, Grid, Parameter, ParameterSpace
from solvers.heat import Heat

TRIVIAL = {"mean_field": 0.3, "initial_field": 0.6}


def history(rows: int, gap: int = -1) -> list[Record]:
    """Of a run of which the simulations end after 3/4; after row `gap` it was resumed."""
    made: list[Record] = []
    for index in range(rows):
        progress = (index + 1) / rows
        seconds = 2.0 * (index + 1) + (30.0 if 0 <= gap < index else 0.0)
        received = min(10000.0, 10000 * progress / 0.75)
        row: Record = {
            "seconds": seconds,
            "step": 10 * index,
            "progress": progress,
            "simulations/completed": received / 50,
            "simulations/requested": 200,
            "simulations/quarantined": 0,
            "samples/received": received,
            "samples/drawn": 100.0 * index,
            "buffer/held": min(1500.0, received),
            "buffer/capacity": 1500,
            "wait/training": 0.1,
        }
        if progress < 0.75:
            row |= {"wait/solvers": 0.05, "wait/transport": 0.6}
        if index:
            row |= {"training/loss": math.exp(-index / rows), "training/learning_rate": 1 / index}
        if index % 5 == 4:
            row |= {"validation/relative_l2": 0.5 / index, "validation/step": 10 * index - 5}
        if index % 7 == 6:
            row["checkpoint/seconds"] = 0.2
        made.append(row)
    return made


def heat(error: float = 10.0) -> Comparison:
    """The heat equation, and as prediction the truth with an error in kelvin."""
    solver = Heat(grid_size=32, stored_steps=20)
    values = np.array([150.0, 480, 200, 300, 120])
    truth = np.array(list(solver.solve(values, 0)))
    noise = np.random.default_rng(0).normal(0, error, truth.shape).astype(np.float32)
    times = solver.times(values)
    return Comparison(
        -3, values, times, truth, truth + noise, solver.parameters, solver.fields, solver.grid
    )


def fields(*shape: int, channels: int = 1, times: int = 6) -> Comparison:
    random = np.random.default_rng(1)
    truth = random.normal(size=(times, channels, *shape)).astype(np.float32)
    return Comparison(
        -1,
        np.array([0.5]),
        np.linspace(0, 2, times),
        truth,
        truth + 0.1,
        space(1),
        tuple(Field(f"field {index}", "Pa") for index in range(channels)),
        Grid(shape, (0.5,) * len(shape), "mm"),
    )


def space(count: int) -> ParameterSpace:
    """Every second parameter has a log-uniform prior."""
    priors: Any = ("uniform", "log_uniform")
    return ParameterSpace(
        *(Parameter(f"p{index}", 1e-3, 2.0, "m/s", priors[index % 2]) for index in range(count))
    )


def points(count: int, completed: int, quarantined: int = 2, held_out: int = 5) -> DesignPoints:
    random, shape = np.random.default_rng(2), space(count)

    def draw(n: int) -> NDArray[np.float64]:
        return shape.from_unit(random.random((n, count)))

    return DesignPoints(shape, draw(completed), draw(quarantined), draw(held_out))


def texts(figure: Figure) -> str:
    """All that is written in a figure."""
    legends = [legend for axes in figure.axes if (legend := axes.get_legend())]
    written = [*figure.texts, *(text for legend in legends for text in legend.get_texts())]
    titles = []
    for axes in figure.axes:
        written += [axes.title, *axes.texts, axes.xaxis.label, axes.yaxis.label]
        titles.append(axes.get_title(loc="left"))
    return "\n".join([*(text.get_text() for text in written), *titles])


def test_a_run_has_four_pictures(tmp_path: Path) -> None:
    drawn = draw_pictures(
        tmp_path / "pictures", history(60, gap=30), heat(), points(5, 200), TRIVIAL
    )
    names = ["fields.png", "curves.png", "timeline.png", "coverage.png"]
    assert drawn == [tmp_path / "pictures" / name for name in names]
    for path in drawn:
        with Image.open(path) as image:
            assert 700 <= image.width <= 1600
            assert 400 <= image.height <= 2000
        assert 10_000 < path.stat().st_size < 450_000
    assert matplotlib.rcParams["axes.spines.top"]  # the style is the pictures' own


@pytest.mark.parametrize(
    ("rows", "comparison", "completed", "expected"),
    [
        (0, False, 0, []),
        (1, False, 0, []),
        (1, True, 1, ["fields.png", "coverage.png"]),
        (3, False, 2, ["curves.png", "timeline.png", "coverage.png"]),
    ],
)
def test_what_there_is_not_enough_of_is_left_out(
    rows: int, comparison: bool, completed: int, expected: list[str], tmp_path: Path
) -> None:
    drawn = draw_pictures(
        tmp_path, history(rows), heat() if comparison else None, points(2, completed, 0, 0), {}
    )
    assert [path.name for path in drawn] == expected


def test_rows_without_most_figures_are_no_error(tmp_path: Path) -> None:
    bare: list[Record] = [{"seconds": 2.0 * index} for index in range(9)]
    assert draw_pictures(tmp_path, bare, None, points(1, 0, 0, 0), {}) == []
    for index, row in enumerate(bare):
        row["samples/received"] = 10.0 * index
    assert [path.name for path in draw_pictures(tmp_path, bare, None, points(1, 0, 0, 0), {})] == [
        "timeline.png"
    ]


def test_a_folder_that_cannot_be_written_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pictures").write_text("a file")
    assert draw_pictures(tmp_path / "pictures", history(9), None, points(1, 3), {}) == []
    assert f"cannot draw into {tmp_path / 'pictures'}" in capsys.readouterr().err


def test_a_comparison_names_what_is_seen() -> None:
    comparison = heat()
    text = texts(draw_comparison(comparison))
    error = np.linalg.norm((comparison.predicted - comparison.truth)[-1])
    last = 100 * error / np.linalg.norm(comparison.truth[-1])
    for shown in (
        "Held-out simulation 2",
        "left = 480 K",
        f"t = 0.1\nrelative L2 {last:.3g} %",
        "temperature [K]",
        "error [K]",
    ):
        assert shown in text


@pytest.mark.parametrize(
    ("comparison", "panels"),
    [
        (fields(40), 2 * 5),
        (fields(40, channels=2), 2 * 2 * 5),
        (fields(16, 16), 3 * 5 + 2),  # and two colour bars
        (fields(8, 200, channels=5), 3 * (3 * 5 + 2)),  # no more than three fields
        (fields(10, 12, 14), 3 * 5 + 2),
        (fields(16, 16, times=2), 3 * 2 + 2),
        (fields(16, 16, times=1), 3 * 1 + 2),
    ],
)
def test_fields_of_every_dimension(comparison: Comparison, panels: int, tmp_path: Path) -> None:
    figure = draw_comparison(comparison)
    assert len(figure.axes) == panels
    assert figure.get_size_inches().max() < 25
    figure.savefig(tmp_path / "fields.png")


def test_predictions_that_are_not_finite_and_fields_that_are_zero(tmp_path: Path) -> None:
    comparison = fields(16, 16)
    comparison.predicted[0] = np.nan
    comparison.predicted[1] = np.inf
    comparison.truth[2:] = 0
    comparison.predicted[-1] = 0
    figure = draw_comparison(comparison)
    figure.savefig(tmp_path / "fields.png")
    assert "beyond all bounds" in texts(figure)
    comparison.truth[:] = comparison.predicted[:] = 0
    figure = draw_comparison(comparison)
    figure.savefig(tmp_path / "fields.png")
    assert "relative L2 unknown" in texts(figure)


def test_one_bad_time_does_not_hide_the_errors_of_the_others() -> None:
    comparison = fields(16, 16, times=5)
    comparison.predicted[0] += 100
    (*_, error) = (axes.images[0] for axes in draw_comparison(comparison).axes if axes.images)
    assert error.get_clim() == pytest.approx((-0.2, 0.2), rel=1e-3)  # those are 0.1


def test_an_image_is_where_its_points_are() -> None:
    """The colours at the sides of the heat equation's square: upright, and not mirrored."""
    comparison = heat(error=0.0)
    last = draw_comparison(comparison).axes[4].images[0]  # truth, the last time
    shown = np.asarray(last.get_array())
    np.testing.assert_array_equal(shown, comparison.truth[-1, 0])
    assert last.origin == "lower"
    half = comparison.grid.spacing[0] / 2
    assert last.get_extent() == pytest.approx([-half, 1 + half, -half, 1 + half])


def test_curves_show_loss_and_errors() -> None:
    rows = history(60)
    loss, error = draw_curves(rows, TRIVIAL).axes[:2]
    np.testing.assert_allclose(
        loss.lines[0].get_ydata(), [row["training/loss"] for row in rows[1:]]
    )
    assert loss.get_yscale() == "log"
    scored = [row for row in rows if "validation/step" in row]
    np.testing.assert_allclose(
        error.lines[0].get_xdata(), [row["validation/step"] for row in scored]
    )
    levels = {float(np.asarray(line.get_ydata())[0]) for line in error.lines[1:]}
    assert levels == {30.0, 60.0}
    assert len(draw_curves(history(4), {}).axes) == 2  # the loss and the learning rate


def test_a_timeline_breaks_where_the_run_was_resumed() -> None:
    buffer, rates, waits = draw_timeline(history(60, gap=30)).axes
    for axes in (buffer, rates, waits):
        x, y = (np.asarray(axes.lines[0].get_data()[index], dtype=float) for index in range(2))
        within = (x > 64) & (x < 93)
        assert not np.isfinite(y[within]).any()
        assert np.isfinite(y[x < 60]).all()
    drawn = np.asarray(rates.lines[1].get_ydata(), dtype=float)
    np.testing.assert_allclose(drawn[np.isfinite(drawn)], 50)  # 100 samples every 2 s
    checkpoints = [line for line in buffer.lines if line.get_label() == "checkpoint"]
    assert len(np.asarray(checkpoints[0].get_xdata())) == 8


def test_a_long_run_is_thinned() -> None:
    rows = history(20_000)
    figure = draw_timeline(rows)
    held = figure.axes[0].lines[0]
    assert 100 < len(np.asarray(held.get_xdata())) <= 402
    assert np.asarray(held.get_ydata())[-1] == rows[-1]["buffer/held"]


@pytest.mark.parametrize("count", [1, 2, 5, 8, 12])
def test_coverage_of_any_number_of_parameters(count: int, tmp_path: Path) -> None:
    with matplotlib.rc_context(STYLE):
        figure = draw_coverage(points(count, 200))
        figure.savefig(tmp_path / "coverage.png")
    text = texts(figure)
    assert "200 completed" in text
    assert "2 quarantined" in text
    assert ("the first 8 of 12" in text) == (count == 12)
    assert f"p{min(count, 8) - 1} [m/s]" in text
    assert "p8" not in text


def test_points_lie_where_the_prior_has_them() -> None:
    shape = space(2)
    unit = np.array([[0.25, 0.75]])
    none = np.empty((0, 2))
    (axes,) = draw_coverage(DesignPoints(shape, shape.from_unit(unit), none, none)).axes
    dots = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]
    np.testing.assert_allclose(dots[0].get_xydata(), unit)


def test_of_three_dimensions_the_slice_is_drawn_in_which_most_changes() -> None:
    still = fields(6, 4, 5)
    still.truth[:] = still.truth[:1]
    assert still.slice() == 3
    still.truth[2, 0, 1] += 0.1
    still.truth[:, 0, 4] += 7.0  # always
    assert still.slice() == 1
    assert "slice 1 of axis 0" in texts(draw_comparison(still))


class Triangle(ParameterSpace):
    """b lies evenly between 0 and a."""

    def from_unit(self, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        values = super().from_unit(unit)
        values[..., 1] *= unit[..., 0]
        return values

    def to_unit(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        unit = super().to_unit(values)
        unit[..., 1] /= unit[..., 0]
        return unit


def test_what_is_even_given_the_other_parameters_is_drawn_evenly() -> None:
    triangle = Triangle(Parameter("a", 0.0, 1.0), Parameter("b", 0.0, 1.0))
    unit = np.random.default_rng(0).random((50, 2))
    none = np.empty((0, 2))
    figure = draw_coverage(DesignPoints(triangle, triangle.from_unit(unit), none, none))
    (axes,) = figure.axes
    dots = next(line for line in axes.lines if len(line.get_xdata()) == 50)
    np.testing.assert_allclose(dots.get_xydata(), unit)
    names = {text.get_text() for text in axes.texts}
    assert {"a", "b, quantile"} <= names


def test_many_points_are_drawn_as_densities(tmp_path: Path) -> None:
    many = points(8, 100_000)
    figure = draw_coverage(many)
    assert len(figure.axes[0].images) == 28
    assert sum(image.get_array().sum() for image in figure.axes[0].images) == 28 * 100_000
    drawn = draw_pictures(tmp_path, [], None, many, {})
    assert os.path.getsize(drawn[0]) < 450_000


def test_on_a_grid_of_one_point_fields_are_drawn_over_time() -> None:
    comparison = fields(1, channels=2)
    axes = draw_comparison(comparison).axes
    assert len(axes) == 2
    for channel, panel in enumerate(axes):
        truth, predicted = (line.get_ydata() for line in panel.lines)
        np.testing.assert_array_equal(truth, comparison.truth[:, channel, 0])
        np.testing.assert_array_equal(predicted, comparison.predicted[:, channel, 0])
