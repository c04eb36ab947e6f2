"""The priors of tumours: two over their growth, and one of seeds that lie in tissue.

Points of the unit cube are mapped by inverse distribution functions, one parameter after the other,
each given those before it. The maps are monotone in every coordinate, so a quasi-random sequence
stays evenly spread over the allowed tumours. P: points, in any number of leading axes.
"""

import numpy as np
from numpy.typing import NDArray

from solvers.base import Parameter, ParameterSpace
from solvers.tumor.seed import CELLS

Floats = NDArray[np.float64]

SEED = (
    Parameter("x", 0.15, 0.7, "1", minimum=0.0),
    Parameter("y", 0.2, 0.8, "1", minimum=0.0),
    Parameter("z", 0.15, 0.7, "1", minimum=0.0),
)
PUBLISHED = (
    Parameter("Dw", 0.0002, 0.015, "cm2/day", minimum=0.0),
    Parameter("rho", 0.002, 0.2, "1/day", minimum=0.0),
    Parameter("T", 50.0, 1500.0, "day", minimum=0.0),
)
FILTERED = (
    Parameter("sqrt_DT", 3.0, 30.0, "mm", "log_uniform", minimum=0.0),
    Parameter("rho_T", 1.0, 80.0, "1", "log_uniform", minimum=0.0),
)
# Plausible sizes: the least radius of T1c (c >= 0.6) and the largest of FLAIR (c >= 0.2), mm.
_LEAST, _MOST = (0.6, 12.0), (0.2, 42.0)
# Brain is not all white matter: tumours spread there with about this part of Dw.
_SLOWED = 0.35
# How many intervals the range of sqrt_DT is cut into, to find the allowed ones.
_INTERVALS = 400


class SeededSpace(ParameterSpace):
    """Parameters of which the last three are the seed's position, as shares of the grid's sides.

    Seeds are uniform over the tissue between the bounds.
    """

    def __init__(self, tissue: NDArray[np.bool_], *parameters: Parameter) -> None:
        super().__init__(*parameters)
        self.tissue = tissue
        # How much of every plane of voxels lies between the bounds, for each axis.
        self._weights = [
            np.clip(np.minimum(edges[1:], high * n) - np.maximum(edges[:-1], low * n), 0, None)
            for n, low, high in zip(tissue.shape, self.low[-3:], self.high[-3:], strict=True)
            for edges in [np.arange(n + 1.0)]
        ]
        self._tissue_along_z = tissue @ self._weights[2]  # [nx, ny]
        if not self._tissue_along_z.any() or not self._by_x().any():
            raise ValueError(
                "no tissue lies between the bounds of the seed's position, "
                + ", ".join(f"{p.name} [{p.low:g}, {p.high:g}]" for p in self.items[-3:])
            )

    def with_items(self, *parameters: Parameter) -> ParameterSpace:
        return type(self)(self.tissue, *parameters)

    def from_unit(self, unit: Floats) -> Floats:
        values = super().from_unit(unit)
        points, voxels = unit[..., -3:].reshape(-1, 3), np.empty((unit[..., 0].size, 3), np.intp)
        places = np.empty(points.shape)
        for axis in range(3):
            weights = self._weights_along(axis, voxels)
            places[:, axis], voxels[:, axis] = self._place(weights, points[:, axis], axis)
        values[..., -3:] = places.reshape(values[..., -3:].shape)
        return values

    def to_unit(self, values: Floats) -> Floats:
        unit = super().to_unit(values)
        places = values[..., -3:].reshape(-1, 3)
        # Where a voxel begins, the product may be the last number before it.
        voxels = np.floor(places * self.tissue.shape + 1e-12).astype(np.intp)
        shares = [
            self._share(self._weights_along(axis, voxels), voxels, places, axis)
            for axis in range(3)
        ]
        unit[..., -3:] = np.stack(shares, -1).reshape(unit[..., -3:].shape)
        return unit

    def _by_x(self) -> Floats:
        by_x: Floats = self._weights[0] * (self._tissue_along_z @ self._weights[1])
        return by_x

    def _weights_along(self, axis: int, voxels: NDArray[np.intp]) -> Floats:
        """Return the weights of voxels along an axis [P, n], given `voxels` [P, 3] of axes before.

        Voxels of the other axes are ignored.
        """
        if axis == 0:
            return np.broadcast_to(self._by_x(), (len(voxels), len(self._weights[0])))
        i, j, _ = voxels.T
        tissue = self._tissue_along_z[i] if axis == 1 else self.tissue[i, j]
        weights: Floats = tissue * self._weights[axis]
        return weights

    def _place(self, weights: Floats, unit: Floats, axis: int) -> tuple[Floats, NDArray[np.intp]]:
        """Return places along an axis [P], by the weights [P, n] of its voxels; and the voxels."""
        n = weights.shape[1]
        below = np.cumsum(weights, 1)
        aim = unit * below[:, -1]
        # A voxel without weight is never chosen: the sum passes the aim in one that has some.
        last = n - 1 - np.argmax(weights[:, ::-1] > 0, 1)
        voxel = np.minimum((below <= aim[:, None]).sum(1), last)
        row = np.arange(len(voxel))
        inside = np.clip(1 - (below[row, voxel] - aim) / weights[row, voxel], 0, 1 - 1e-9)
        start, end = self._ends(voxel, axis)
        return (start + (end - start) * inside) / n, voxel

    def _share(
        self, weights: Floats, voxels: NDArray[np.intp], places: Floats, axis: int
    ) -> Floats:
        """Return the share of weights [P, n] on an axis that lies before places: undo `_place`."""
        voxel, row = voxels[:, axis], np.arange(len(voxels))
        start, end = self._ends(voxel, axis)
        place = places[:, axis] * weights.shape[1]
        inside = np.clip((place - start) / (end - start), 0, 1)
        below = np.cumsum(weights, 1)
        share: Floats = (below[row, voxel] - (1 - inside) * weights[row, voxel]) / below[:, -1]
        return share

    def _ends(self, voxel: NDArray[np.intp], axis: int) -> tuple[Floats, Floats]:
        """Return where voxels along an axis [P] begin and end, in voxels, within the bounds."""
        n = self.tissue.shape[axis]
        start = np.maximum(voxel, self.low[axis - 3] * n)
        return start, np.minimum(voxel + 1, self.high[axis - 3] * n)


class FilteredSpace(SeededSpace):
    """sqrt_DT = sqrt(Dw T), rho_T = rho T, and the seed: tumours of plausible size, well resolved.

    rho_T is log-uniform between bounds that depend on sqrt_DT. By an estimate of their growth in
    tissue as mixed as the brain, the T1c image (c >= 0.6) has a radius of 12 mm or more and the
    FLAIR image (c >= 0.2) one of 42 mm or less; the front's width sqrt(Dw / rho) is at least the
    grid's spacing. sqrt_DT is log-uniform where that leaves room.
    """

    def __init__(self, tissue: NDArray[np.bool_], spacing: float, *parameters: Parameter) -> None:
        super().__init__(tissue, *parameters)
        self.spacing = spacing
        edges = np.geomspace(self.low[0], self.high[0], _INTERVALS + 1)
        low, high = self._growth(edges)
        allowed = low < high
        # The intervals of sqrt_DT that are allowed: their lower ends, and the ratio of their ends.
        self._starts = edges[:-1][allowed[:-1] & allowed[1:]]
        self._ratio = edges[1] / edges[0]
        if not len(self._starts):
            raise ValueError(
                f"no tumour with sqrt_DT in [{self.low[0]:g}, {self.high[0]:g}] mm and rho_T in "
                f"[{self.low[1]:g}, {self.high[1]:g}] is of plausible size and has a front wider "
                f"than the grid's spacing of {spacing:.3g} mm: widen the bounds or refine the grid"
            )

    def with_items(self, *parameters: Parameter) -> ParameterSpace:
        return FilteredSpace(self.tissue, self.spacing, *parameters)

    def from_unit(self, unit: Floats) -> Floats:
        values = super().from_unit(unit)
        place = unit[..., 0] * len(self._starts)
        interval = np.minimum(place.astype(int), len(self._starts) - 1)
        values[..., 0] = self._starts[interval] * self._ratio ** (place - interval)
        low, high = self._growth(values[..., 0])
        values[..., 1] = low * (high / low) ** unit[..., 1]
        return values

    def to_unit(self, values: Floats) -> Floats:
        unit = super().to_unit(values)
        interval = np.searchsorted(self._starts, values[..., 0], side="right") - 1
        interval = np.maximum(interval, 0)  # the lowest value may be rounded to just below
        inside = np.log(values[..., 0] / self._starts[interval]) / np.log(self._ratio)
        unit[..., 0] = (interval + np.clip(inside, 0, 1)) / len(self._starts)
        low, high = self._growth(values[..., 0])
        unit[..., 1] = np.log(values[..., 1] / low) / np.log(high / low)
        return unit

    def _growth(self, spread: Floats) -> tuple[Floats, Floats]:
        """Return the least and the largest rho_T allowed with sqrt_DT [P].

        From the linear growth of CELLS mm3 of cells in a point: the density is c at the radius r
        when rho T = r^2 / (4 D T) + ln(c (4 pi D T)^1.5 / CELLS).
        """
        diffused = _SLOWED * spread**2
        dilution = (4 * np.pi * diffused) ** 1.5 / CELLS
        least, most = (
            radius**2 / (4 * diffused) + np.log(c * dilution) for c, radius in (_LEAST, _MOST)
        )
        resolved = (spread / self.spacing) ** 2
        return (
            np.maximum(least, self.low[1]),
            np.minimum(np.minimum(most, resolved), self.high[1]),
        )
