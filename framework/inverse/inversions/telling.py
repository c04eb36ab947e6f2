"""Parts of an answer, as plain values for JSON and as lines of text.

Shapes: p parameters.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from framework.inverse.posterior.posterior import Posterior
from framework.inverse.refine.growing import Growth
from framework.inverse.refine.refinement import Refinement
from framework.store.reader import StoreReader


class Match(Protocol):
    """An entry that was found: a simulation, and the position of its step among the kept steps."""

    @property
    def simulation(self) -> int: ...
    @property
    def position(self) -> int: ...


def point_by_name(names: tuple[str, ...], values: NDArray[np.float64]) -> dict[str, float]:
    """Return parameters [p] by name."""
    return dict(zip(names, values.tolist(), strict=True))


def plain_match(
    reader: StoreReader, match: Match, told: Mapping[str, Any], names: tuple[str, ...]
) -> dict[str, Any]:
    """Return a match as plain values; `told` are those of its kind."""
    return {
        "simulation": match.simulation,
        "step": int(reader.steps[match.position]),
        "time": float(reader.t[match.simulation, match.position]),
        **told,
        "parameters": point_by_name(names, reader.parameters[match.simulation]),
    }


def plain_growth(growth: Growth) -> dict[str, Any]:
    """Return the simulations that were added, as plain values."""
    return {
        "store": growth.path,
        "simulations": len(growth.simulations),
        "failed": growth.failed,
        "seconds": growth.seconds,
    }


def plain_refinement(refinement: Refinement, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the result of a search, as plain values."""
    best = refinement.best
    return {
        "score_before": refinement.start.rating.score,
        "score": best.rating.score,
        "parameters": point_by_name(names, best.parameters),
        "step": best.step,
        "time": best.time,
        "thresholds": dict(best.rating.thresholds),
        "dice": dict(best.rating.dice),
        "evaluations": refinement.evaluations,
        "failed": refinement.failed,
        "seconds": refinement.seconds,
    }


def match_line(number: int, plain: Mapping[str, Any], told: Mapping[str, Any], units: str) -> str:
    """Return a line about a match, from its plain values; `units` are those of time."""
    says = ", ".join(f"{key} {_short(value)}" for key, value in told.items())
    point = _point(plain["parameters"])
    time = f"{plain['time']:.3g}{_unit(units)}"
    return f"{number:3}. simulation {plain['simulation']} at {time}: {says}; {point}"


def posterior_lines(posterior: Posterior) -> list[str]:
    """Return a heading, and a line for each quantity."""
    lines = [f"posterior, {posterior.effective:.1f} entries' worth:"]
    for name, value in posterior.quantities.items():
        low, high = value.interval_90
        lines.append(
            f"  {name:10} {value.mean:.3g} +- {value.sd:.2g}{_unit(value.units)}, "
            f"90 % in [{low:.3g}, {high:.3g}]"
        )
    return lines


def refinement_line(refinement: Refinement, names: tuple[str, ...]) -> str:
    """Return a line about the result of a search."""
    before, best = refinement.start.rating.score, refinement.best
    point = _point(point_by_name(names, best.parameters))
    return (
        f"refined by {refinement.evaluations} simulations: "
        f"{before:.4g} -> {best.rating.score:.4g}; {point}"
    )


def _unit(units: str) -> str:
    """Return units to follow a number; a bare number has none."""
    return "" if units == "1" else f" {units}"


def _point(parameters: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in parameters.items())


def _short(value: float | Mapping[str, float]) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_short(part)}" for name, part in value.items())
    return f"{value:.4g}"
