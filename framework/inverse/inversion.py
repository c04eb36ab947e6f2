"""An inverse question from end to end: what was observed, the answer, and what is told of it.

    store, index --search--> matches ----> images and picture in the patient's space
    observation -----'         |
                               |--> posterior --> mean and deviation of the fields
                               |--> does anything fit?
                               '--> growth: more simulations, then again --> refinement

A store is asked together with what was grown beside it (`growing.py`). The posterior is of the
store alone, whose simulations are drawn from the prior.
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.files import write_text, writing
from framework.inverse.posterior import Posterior, around
from framework.inverse.refine.growing import Growth, grow, grown_store, merge
from framework.inverse.refine.objective import Objective
from framework.inverse.refine.refinement import Refinement, refine, stored_simulation
from framework.inverse.search.field_query import FieldAnswer
from framework.inverse.search.query import Answer
from framework.store.attributes import solver_factory, solver_of
from framework.store.reader import StoreReader
from framework.study.design import Simulation
from framework.study.sections import EnsembleConfig

# Refinement begins at the best match, and looks as far as so many of the best differ.
_STARTS = 5
# Of simulations that would tell more, so many are told.
_NEXT = 5
_VERSIONS = ("millstream", "numpy", "numba", "scipy", "zarr", "nibabel")


class Inversion(ABC):
    """A question that was asked. All of it raises StudyError and RunError."""

    def __init__(self, store: str, top: int) -> None:
        self.reader = StoreReader(store)
        self.solver = solver_of(self.reader)
        self.top = top
        self.warnings: list[str] = []
        self.growth: Growth | None = None
        self.refinement: Refinement | None = None
        self.out: Path | None = None

    @abstractmethod
    def ask(self, reader: StoreReader, top: int) -> Answer | FieldAnswer:
        """The best entries of one of the stores."""

    def count(self, reader: StoreReader) -> int:
        """How many entries of a store can be what was observed."""
        return len(reader.complete) * len(reader.steps)

    @abstractmethod
    def weigh(self) -> Posterior:
        """The posterior over the entries of the store."""

    @abstractmethod
    def rank(self, match: Any) -> float:
        """What is least of the best match."""

    @abstractmethod
    def tell(self, match: Any) -> dict[str, Any]:
        """What there is to say of a match beside its parameters and its time."""

    @abstractmethod
    def objective(self) -> Objective:
        """What refinement improves."""

    @abstractmethod
    def coverage(self) -> dict[str, Any]:
        """Whether anything in the store fits what was observed, as plain values for JSON: `fits`,
        None if it cannot be said, `score`, and what it was compared with."""

    def simulate_next(self) -> list[dict[str, float]]:
        """Parameters of simulations that would tell more."""
        points = self.around(_NEXT)
        return [_named(self.solver.parameters.names, point) for point in points]

    def around(self, simulations: int) -> NDArray[np.float64]:
        """Parameters [simulations, p] where the posterior is; others once these were simulated."""
        grown = grown_store(self.reader)
        seed = 0 if grown is None else len(grown.complete)
        return around(self.posterior, self.reader, self.solver, simulations, seed)

    def readers(self) -> list[StoreReader]:
        """The store, and what was grown beside it if that can be asked."""
        grown = grown_store(self.reader)
        return [self.reader, *([grown] if grown is not None and self.count(grown) else [])]

    def answer(self) -> None:
        """Ask the store, and what was grown beside it."""
        readers = self.readers()
        answers = [self.ask(self.reader, self.top)]
        for reader in readers[1:]:
            answers.append(self.ask(reader, min(self.top, self.count(reader))))
        found: list[tuple[int, Any]] = merge(
            [answer.matches for answer in answers], self.rank, self.top
        )
        self.matches = [(readers[number], match) for number, match in found]
        self.entries = sum(answer.entries for answer in answers)
        self.refined = sum(answer.refined for answer in answers)
        self.seconds = sum(answer.seconds for answer in answers)
        self.exact = all(answer.exact for answer in answers)
        self.posterior = self.weigh()

    def grow(self, simulations: int) -> None:
        """Simulate more where the posterior is, and ask again."""
        points = self.around(simulations)
        self.growth = grow(self.reader, solver_factory(self.reader), points, ensemble())
        self.index_grown(self.growth.path)
        self.answer()

    @abstractmethod
    def index_grown(self, path: str) -> None:
        """Make the store that was grown ready to be asked."""

    def refine(self) -> None:
        """Search for a better simulation, from the best matches on."""
        self.refinement = refine(
            solver_factory(self.reader),
            self.solver.parameters.with_bounds(self.reader.study["design"]["bounds"]),
            self.objective(),
            [simulation for simulation, _ in self.starts()],
            ensemble(),
        )

    def starts(self) -> list[tuple[Simulation, int]]:
        """Where searches begin: the simulations of the best matches, and their stored steps."""
        # A simulation may be among the matches several times: its best time counts.
        best: dict[tuple[str, int], tuple[StoreReader, Any]] = {}
        for reader, match in self.matches:
            best.setdefault((reader.path, match.simulation), (reader, match))
        return [
            (stored_simulation(reader, match.simulation), int(reader.steps[match.step]))
            for reader, match in list(best.values())[:_STARTS]
        ]

    def result(self) -> dict[str, Any]:
        """All of the answer, as plain values for JSON."""
        names = self.solver.parameters.names
        result: dict[str, Any] = {
            "matches": [
                {
                    "simulation": match.simulation,
                    "step": int(reader.steps[match.step]),
                    "time": float(reader.t[match.simulation, match.step]),
                    **self.tell(match),
                    "parameters": _named(names, reader.parameters[match.simulation]),
                    **({"store": reader.path} if reader is not self.reader else {}),
                }
                for reader, match in self.matches
            ],
            "exact": self.exact,
            "entries": self.entries,
            "refined": self.refined,
            "seconds": self.seconds,
            "posterior": self.posterior.summary(),
            "coverage": {**self.coverage(), "simulate_next": self.simulate_next()},
            "units": {item.name: item.units for item in self.solver.parameters.items}
            | {"time": self.solver.time_units},
            "warnings": self.warnings,
            "provenance": {
                "store": self.reader.identity,
                "study": self.reader.study,
                "versions": {name: metadata.version(name) for name in _VERSIONS},
            },
        }
        if self.growth is not None:
            result["grown"] = {
                "store": self.growth.path,
                "simulations": len(self.growth.simulations),
                "failed": self.growth.failed,
                "seconds": self.growth.seconds,
            }
        if self.refinement is not None:
            result["refinement"] = _refined(self.refinement, names)
        if self.out is not None:
            result["out"] = str(self.out)
        return result

    def text(self) -> str:
        """The answer for a reader."""
        lines = [f"warning: {warning}" for warning in self.warnings]
        names = self.solver.parameters.names
        seconds, exact = f"{1e3 * self.seconds:.0f} ms", "exact" if self.exact else "not exact"
        lines.append(f"{self.entries} entries, {self.refined} compared in full, {seconds}, {exact}")
        for number, (reader, match) in enumerate(self.matches, 1):
            told = ", ".join(f"{key} {_short(value)}" for key, value in self.tell(match).items())
            values = reader.parameters[match.simulation]
            point = ", ".join(f"{n} {v:.3g}" for n, v in zip(names, values, strict=True))
            time = f"{reader.t[match.simulation, match.step]:.3g} {self.solver.time_units}"
            lines.append(f"{number:3}. simulation {match.simulation} at {time}: {told}; {point}")
        lines.append(f"posterior, {self.posterior.effective:.1f} entries' worth:")
        for name, value in self.posterior.summary().items():
            low, high = value["interval_90"]
            units = "" if value["units"] == "1" else f" {value['units']}"
            lines.append(
                f"  {name:10} {value['mean']:.3g} +- {value['sd']:.2g}{units}, "
                f"90 % in [{low:.3g}, {high:.3g}]"
            )
        if self.growth is not None:
            lines.append(f"{len(self.growth.simulations)} simulations added in {self.growth.path}")
        if self.refinement is not None:
            before, best = self.refinement.start.rating.score, self.refinement.best
            point = ", ".join(f"{n} {v:.3g}" for n, v in zip(names, best.parameters, strict=True))
            lines.append(
                f"refined by {self.refinement.evaluations} simulations: "
                f"{before:.4g} -> {best.rating.score:.4g}; {point}"
            )
        if self.out is not None:
            lines.append(str(self.out))
        return "\n".join(lines)

    def save(self, out: Path) -> None:
        """Write the answer to a folder: what there is to see, then result.json."""
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            self.out = out
            self.write(out)
        write_text(out / "result.json", json.dumps(self.result(), indent=1) + "\n")

    @abstractmethod
    def write(self, out: Path) -> None:
        """Write what there is to see to a folder."""


def ensemble() -> EnsembleConfig:
    """All processors of this machine, or the cluster that RAY_ADDRESS names."""
    return EnsembleConfig(actors=len(os.sched_getaffinity(0)))


def _named(names: tuple[str, ...], values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))


def _short(value: float | Mapping[str, float]) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_short(part)}" for name, part in value.items())
    return f"{value:.4g}"


def _refined(refinement: Refinement, names: tuple[str, ...]) -> dict[str, Any]:
    best = refinement.best
    return {
        "score_before": refinement.start.rating.score,
        "score": best.rating.score,
        "parameters": _named(names, best.parameters),
        "step": best.step,
        "time": best.time,
        "thresholds": dict(best.rating.thresholds),
        "dice": dict(best.rating.dice),
        "evaluations": refinement.evaluations,
        "failed": refinement.failed,
        "seconds": refinement.seconds,
    }
