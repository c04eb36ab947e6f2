"""Discs that grow, as segmentations show them: stores of them, and patients who are in no store."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from framework.inverse.posterior.patients import segment
from framework.store.owner import Store
from framework.study import versions
from framework.study.sections import StoreConfig
from solvers.base import Field, Grid, ImagedSolver, Order, Parameter, ParameterSpace, Quantity

SIDE, SPACING, STEPS, SIMULATIONS = 40, 2.0, 3, 200
THRESHOLDS = {"core": (0.5, 0.6, 0.8), "rim": (0.1, 0.2, 0.4)}


class Balls(ImagedSolver):
    """Discs that grow: c = 1 / (1 + exp((r - radius t) / width)) around a place."""

    parameters = ParameterSpace(
        Parameter("radius", 14, 26, "mm"),
        Parameter("width", 2, 5, "mm", "log_uniform"),
        Parameter("x", 24, 56, "mm"),
        Parameter("y", 24, 56, "mm"),
    )
    fields = (Field("cells"),)
    grid = Grid((SIDE, SIDE), (SPACING, SPACING), "mm")
    order = Order(1, 1)
    stored_steps = STEPS
    masks: Mapping[str, tuple[float, ...]] = THRESHOLDS

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.linspace(0, 1, STEPS)

    def solve(self, parameters: NDArray[np.float64], seed: int) -> Iterator[NDArray[np.float32]]:
        radius, width, x, y = parameters
        i, j = np.meshgrid(*2 * [(np.arange(SIDE) + 0.5) * SPACING], indexing="ij")
        for t in self.times(parameters):
            exponent = (np.hypot(i - x, j - y) - radius * t) / width
            yield (1 / (1 + np.exp(exponent)))[None].astype(np.float32)

    def observe(
        self, fields: NDArray[np.float32], **settings: float
    ) -> Mapping[str, NDArray[np.float32] | NDArray[np.bool_]]:
        return {name: fields[0] >= np.float32(settings.get(name, 0.5)) for name in THRESHOLDS}

    def identifiable(
        self, parameters: NDArray[np.float64], t: NDArray[np.float64]
    ) -> Mapping[str, Quantity]:
        radius, width, x, y = parameters.T
        return {
            "radius": Quantity(radius * t, "mm", positive=True),
            "width": Quantity(width, "mm", positive=True),
            "x": Quantity(x, "mm"),
            "y": Quantity(y, "mm"),
        }


BALLS = Balls()


def ball(id: int) -> NDArray[np.float64]:
    """The parameters of a simulation by number; those of the store are below SIMULATIONS."""
    return BALLS.parameters.from_unit(np.random.default_rng([id, 1]).random(4))


def stored_balls(path: Path, simulations: int, first: int = 0) -> str:
    """A store with simulations, or with these more."""
    identity = {
        "solver": {"name": f"{__name__}:Balls"},
        "fields": {"cells": "1"},
        "grid": {"shape": [SIDE, SIDE]},
        "seed": 0,
        "streams": versions.STREAMS,
        "design": {"bounds": {item.name: [item.low, item.high] for item in Balls.parameters.items}},
    }
    store = Store.open(str(path), StoreConfig(), identity, BALLS, simulations)
    writer = store.writer()
    for id in range(first, simulations):
        for step, values in enumerate(BALLS.solve(ball(id), 0)):
            writer.append(id, step, values)
        writer.finish(id)
        store.commit(id, ball(id))
    store.flush()
    store.close()
    return str(path)


def seen_exactly(
    parameters: NDArray[np.float64], step: int = STEPS - 1
) -> dict[str, NDArray[np.bool_]]:
    """Masks without noise, at indexed thresholds."""
    values = list(BALLS.solve(parameters, 0))[step]
    at = {"core": 0.6, "rim": 0.2}
    return {
        name: np.asarray(BALLS.observe(values, **{name: value})[name]) for name, value in at.items()
    }


def patient(id: int) -> tuple[NDArray[np.float64], dict[str, NDArray[np.bool_]]]:
    """A simulation that is not in the store, at its end, as a rater sees it; and its truth [q]."""
    parameters = ball(SIMULATIONS + id)
    values = list(BALLS.solve(parameters, 0))[-1]
    masks = segment(BALLS, values, THRESHOLDS, np.random.default_rng(id))
    assert masks is not None
    found = BALLS.identifiable(parameters[None], np.ones(1))
    return np.array([quantity.values[0] for quantity in found.values()]), dict(masks)
