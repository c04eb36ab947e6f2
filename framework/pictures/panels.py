"""The panels of a picture of held-out fields: some rows for each field, a column for each time."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from framework.pictures.style import in_units
from solvers.base import Grid

# In inches: a panel's width, the gap between panels, the room at their left, the room for colour
# bars, the room below a field's panels, and a line of text.
_PANEL, _GAP, _BESIDE, _FOR_BARS, _BELOW, _LINE = 1.85, 0.12, 0.85, 1.0, 0.6, 0.2


class Panels:
    """A figure with panels of one size, placed by hand: fast, and alike in every picture."""

    def __init__(
        self, grid: Grid, fields: int, columns: int, heading: Callable[[int], list[str]]
    ) -> None:
        """`heading` returns the lines above the panels, for a width in characters."""
        self.lines = len(grid.shape) == 1
        self.fields = fields
        self.extent = _extent(grid)
        self._grid = grid
        left, right, lower, upper = self.extent
        shape = 0.8 if self.lines else (upper - lower) / (right - left)
        self.to_scale = 0.25 <= shape <= 2
        self._height = _PANEL * min(max(shape, 0.45), 2)
        self._rows = 2 if self.lines else 3  # of a field
        width = _BESIDE + columns * (_PANEL + _GAP) + (0 if self.lines else _FOR_BARS)
        lines = heading(int(11 * width))
        self._block = self._rows * (self._height + _GAP) + _BELOW
        self._top = 0.65 + len(lines) * _LINE
        self._size = (width, self._top + self.fields * self._block)
        self.figure = Figure(figsize=self._size)
        for line, text in enumerate(lines):
            y = 1 - (0.1 + line * _LINE) / self._size[1]
            weight = "normal" if line else "bold"
            self.figure.text(0.1 / width, y, text, va="top", fontsize=10, weight=weight)
        self.axes = [
            [self._panel(channel, row, column) for column in range(columns)]
            for channel in range(self.fields)
            for row in range(self._rows)
        ]

    def of_field(self, channel: int) -> list[list[Axes]]:
        """Return the rows of panels of a field."""
        return self.axes[channel * self._rows : (channel + 1) * self._rows]

    def colour_bar(self, image: AxesImage, channel: int, first: int, last: int, label: str) -> None:
        """Add a colour bar at the right of the rows `first` to `last` of a field."""
        place = [_BESIDE + len(self.axes[0]) * (_PANEL + _GAP), self._bottom(channel, last)]
        height = (last - first + 1) * (self._height + _GAP) - _GAP
        axes = self.figure.add_axes(self._relative(*place, 0.13, height))
        bar = self.figure.colorbar(image, cax=axes, extend="both" if first else "neither")
        bar.set_label(label)
        bar.outline.set_visible(False)
        bar.locator = MaxNLocator(5)
        bar.update_ticks()

    def _panel(self, channel: int, row: int, column: int) -> Axes:
        left = _BESIDE + column * (_PANEL + _GAP)
        place = self._relative(left, self._bottom(channel, row), _PANEL, self._height)
        axes = self.figure.add_axes(place)
        lowest = row == self._rows - 1
        axes.tick_params(labelleft=column == 0, labelbottom=lowest, length=2.5, labelsize=8.5)
        if lowest and column == 0:
            last, units = len(self._grid.shape) - 1, self._grid.units
            label = "axis 0" if self.lines else f"axis {last} across, axis {last - 1} up"
            axes.set_xlabel(label + in_units(units), loc="left", labelpad=2)
        return axes

    def _bottom(self, channel: int, row: int) -> float:
        above = self._top + channel * self._block + (row + 1) * (self._height + _GAP) - _GAP
        return self._size[1] - above

    def _relative(self, *inches: float) -> tuple[float, float, float, float]:
        left, bottom, width, height = inches
        return (
            left / self._size[0],
            bottom / self._size[1],
            width / self._size[0],
            height / self._size[1],
        )


def _extent(grid: Grid) -> tuple[float, float, float, float]:
    """Return the left, right, lower and upper end of a field's image, in the grid's units.

    Points lie in the middle of an image's squares, the first one at 0.
    """
    sides = [(-h / 2, (n - 0.5) * h) for n, h in zip(grid.shape, grid.spacing, strict=True)]
    return (*sides[-1], *sides[-2]) if len(sides) > 1 else (*sides[0], 0.0, 1.0)


def round_ticks(end: float) -> list[float]:
    """Return two or three round values from 0 on; none near the end, next to another panel."""
    values = MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]).tick_values(0, end)
    return [float(value) for value in np.asarray(values) if value < 0.85 * end]
