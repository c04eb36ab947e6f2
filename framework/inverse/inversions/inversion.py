"""An inverse question from end to end: the observation, the answer, and its report.

    store, index --search--> matches ----> images and picture in the patient's space
    observation -----'         |
                               |--> posterior --> mean and deviation of the fields
                               |--> does anything fit?
                               '--> growth: more simulations, then again --> refinement

A store is searched together with the one grown beside it (`refine/growing.py`). The posterior is
that of the store alone, whose simulations are drawn from the prior.

Shapes: p parameters.
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from framework.files import write_text, writing
from framework.inverse.inversions.telling import (
    Match,
    match_line,
    plain_growth,
    plain_match,
    plain_refinement,
    point_by_name,
    posterior_lines,
    refinement_line,
)
from framework.inverse.posterior.posterior import Posterior, points_around
from framework.inverse.refine.growing import Growth, grow, grown_store
from framework.inverse.refine.objective import Objective
from framework.inverse.refine.refinement import Refinement, refine, stored_simulation
from framework.inverse.search.fields import FieldAnswer
from framework.inverse.search.masks import MaskAnswer
from framework.store.attributes import solver_factory
from framework.store.reader import StoreReader
from framework.study.design import Simulation
from framework.study.sections import EnsembleConfig
from framework.study.streams import Stream, generator
from solvers.base import Solver

Found = TypeVar("Found")
M = TypeVar("M", bound=Match)
S = TypeVar("S", bound=Solver)

# Refinement begins at the best match; its width is the spread of this many of the best.
_STARTS = 5
# How many simulations are suggested to learn more.
_NEXT = 5
_VERSIONS = ("millstream", "numpy", "numba", "scipy", "zarr", "nibabel")


class Inversion(ABC, Generic[M, S]):
    """A question that was asked. All of its methods raise StudyError and RunError."""

    def __init__(self, reader: StoreReader, solver: S, top: int) -> None:
        """Prepare to search a store for the `top` best entries; `solver` is the store's."""
        self.reader = reader
        self.solver = solver
        self.top = top
        self.warnings: list[str] = []
        self.growth: Growth | None = None
        self.refinement: Refinement | None = None
        self.out: Path | None = None

    @abstractmethod
    def ask(self, reader: StoreReader, top: int) -> MaskAnswer | FieldAnswer:
        """Find the best entries of one of the stores."""

    def count(self, reader: StoreReader) -> int:
        """Count the entries of a store that may be what was observed."""
        return len(reader.complete) * len(reader.steps)

    @abstractmethod
    def weigh(self) -> Posterior:
        """Make the posterior over the entries of the store."""

    @abstractmethod
    def rank(self, match: M) -> float:
        """Sort key of matches: smaller is better."""

    @abstractmethod
    def tell(self, match: M) -> dict[str, Any]:
        """Return how well a match fits, as plain values."""

    @abstractmethod
    def objective(self) -> Objective:
        """Make the objective that refinement maximises."""

    @abstractmethod
    def coverage(self) -> dict[str, Any]:
        """Return whether anything in the store fits the observation, as plain values for JSON.

        `fits`, None if that cannot be said; `score`; and what the score was compared with.
        """

    @abstractmethod
    def index_grown(self, path: str) -> None:
        """Prepare the grown store to be searched."""

    @abstractmethod
    def write(self, out: Path) -> None:
        """Write images, a picture or arrays of the answer to a folder."""

    def simulate_next(self) -> list[dict[str, float]]:
        """Return the parameters of a few simulations from which more could be learnt."""
        points = self.around(_NEXT)
        return [point_by_name(self.solver.parameters.names, point) for point in points]

    def around(self, simulations: int) -> NDArray[np.float64]:
        """Draw parameters [simulations, p] from the posterior; different ones after each growth."""
        grown = grown_store(self.reader)
        there = 0 if grown is None else len(grown.complete)
        return points_around(self.posterior, self.reader, self.solver, simulations, there)

    def readers(self) -> list[StoreReader]:
        """Return the store, and the one grown beside it if any of its entries can be searched."""
        grown = grown_store(self.reader)
        return [self.reader, *([grown] if grown is not None and self.count(grown) else [])]

    def answer(self) -> None:
        """Search the store and the one grown beside it."""
        readers = self.readers()
        answers = [self.ask(self.reader, self.top)]
        for reader in readers[1:]:
            answers.append(self.ask(reader, min(self.top, self.count(reader))))
        matches: list[Sequence[Any]] = [answer.matches for answer in answers]
        self.matches: list[tuple[StoreReader, M]] = [
            (readers[number], match) for number, match in merge(matches, self.rank, self.top)
        ]
        self.entries = sum(answer.entries for answer in answers)
        self.refined = sum(answer.refined for answer in answers)
        self.seconds = sum(answer.seconds for answer in answers)
        self.exact = all(answer.exact for answer in answers)
        self.posterior = self.weigh()

    def grow(self, simulations: int) -> None:
        """Simulate more where the posterior is, and search again."""
        points = self.around(simulations)
        self.growth = grow(self.reader, solver_factory(self.reader), points, whole_machine())
        self.index_grown(self.growth.path)
        self.answer()

    def refine(self) -> None:
        """Search for a better simulation, starting from the best matches."""
        self.refinement = refine(
            solver_factory(self.reader),
            self.solver.parameters.with_bounds(self.reader.study["design"]["bounds"]),
            self.objective(),
            [simulation for simulation, _ in self.starts()],
            whole_machine(),
            generator(self.reader.study["seed"], Stream.REFINEMENT),
        )

    def starts(self) -> list[tuple[Simulation, int]]:
        """Return the simulations of the best matches, with their stored steps, to search from."""
        # A simulation may be among the matches several times: its best time counts.
        best: dict[tuple[str, int], tuple[StoreReader, M]] = {}
        for reader, match in self.matches:
            best.setdefault((reader.path, match.simulation), (reader, match))
        return [
            (stored_simulation(reader, match.simulation), int(reader.steps[match.position]))
            for reader, match in list(best.values())[:_STARTS]
        ]

    def result(self) -> dict[str, Any]:
        """Return the whole answer, as plain values for JSON."""
        names = self.solver.parameters.names
        result: dict[str, Any] = {
            "matches": [
                {
                    **plain_match(reader, match, self.tell(match), names),
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
            result["grown"] = plain_growth(self.growth)
        if self.refinement is not None:
            result["refinement"] = plain_refinement(self.refinement, names)
        if self.out is not None:
            result["out"] = str(self.out)
        return result

    def text(self) -> str:
        """Return the answer as text for a human reader."""
        lines = [f"warning: {warning}" for warning in self.warnings]
        names = self.solver.parameters.names
        seconds, exact = f"{1e3 * self.seconds:.0f} ms", "exact" if self.exact else "not exact"
        lines.append(f"{self.entries} entries, {self.refined} compared in full, {seconds}, {exact}")
        for number, (reader, match) in enumerate(self.matches, 1):
            told = self.tell(match)
            plain = plain_match(reader, match, told, names)
            lines.append(match_line(number, plain, told, self.solver.time_units))
        lines += posterior_lines(self.posterior)
        if self.growth is not None:
            lines.append(f"{len(self.growth.simulations)} simulations added in {self.growth.path}")
        if self.refinement is not None:
            lines.append(refinement_line(self.refinement, names))
        if self.out is not None:
            lines.append(str(self.out))
        return "\n".join(lines)

    def save(self, out: Path) -> None:
        """Write the answer to a folder: what `write` writes, then result.json."""
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            self.out = out
            self.write(out)
        write_text(out / "result.json", json.dumps(self.result(), indent=1) + "\n")


def merge(
    answers: Sequence[Sequence[Found]], rank: Callable[[Found], float], top: int
) -> list[tuple[int, Found]]:
    """Return the `top` matches with the smallest rank in several answers.

    Each comes with the number of its answer. Exact if each answer is, and has `top` matches or all.
    Among equal ranks, those of the first answer come first, in its own order.
    """
    numbered = [(number, match) for number, answer in enumerate(answers) for match in answer]
    return sorted(numbered, key=lambda pair: rank(pair[1]))[:top]


def whole_machine() -> EnsembleConfig:
    """Return settings for all processors here, or for the cluster that RAY_ADDRESS names."""
    return EnsembleConfig(actors=len(os.sched_getaffinity(0)))
