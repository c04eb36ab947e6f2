"""An inverse question asked by observed fields, for any solver."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import chi2

from framework.inverse.inversions.inversion import Inversion, whole_machine
from framework.inverse.observed.fields import FieldObservation
from framework.inverse.posterior.calibration import FALSE_ALARMS
from framework.inverse.posterior.posterior import (
    Posterior,
    mean_and_deviation,
    posterior_of_fields,
)
from framework.inverse.refine.objective import FieldObjective, Objective
from framework.inverse.search.fields import FieldAnswer, FieldMatch, search_fields
from framework.store.attributes import solver_factory, solver_of
from framework.store.reader import StoreReader
from solvers.base import Solver


class FieldInversion(Inversion[FieldMatch, Solver]):
    """The search for the simulations nearest to observed fields."""

    def __init__(self, store: str, file: Path, top: int) -> None:
        """Read the observation and ask. Raises StudyError and RunError."""
        reader = StoreReader(store)
        super().__init__(reader, solver_of(reader), top)
        self.observation = FieldObservation.read(file, self.solver)
        for channel, seen in self.observation.fields.items():
            if not seen.stated:
                field = self.solver.fields[channel]
                self.warnings.append(
                    f"{file} has no {field.name}.noise: a standard deviation of 1 was taken, on "
                    "which the posterior depends"
                )
        self.answer()

    def ask(self, reader: StoreReader, top: int) -> FieldAnswer:
        answer = search_fields(reader, self.observation, top)
        if reader is self.reader:
            self._answer = answer
        return answer

    def count(self, reader: StoreReader) -> int:
        return int(np.count_nonzero(self.observation.at(reader.t[reader.complete])))

    def rank(self, match: FieldMatch) -> float:
        return match.distance

    def tell(self, match: FieldMatch) -> dict[str, Any]:
        return {"distance": match.distance}

    def coverage(self) -> dict[str, Any]:
        # If the best match were the truth, its distance would be chi-square distributed.
        seen = self.observation.fields.values()
        distance = float(self.matches[0][1].distance)
        greatest = float(chi2.ppf(1 - FALSE_ALARMS, sum(len(one.values) for one in seen)))
        return {
            "fits": distance <= greatest if all(one.stated for one in seen) else None,
            "score": distance,
            "greatest_distance": greatest,
            "false_alarms": FALSE_ALARMS,
        }

    def text(self) -> str:
        coverage = self.coverage()
        says = {
            True: "the best match fits",
            False: "NOTHING in the store fits what was observed: do not trust the matches",
            None: "without the noise it cannot be said whether anything fits",
        }[coverage["fits"]]
        if coverage["fits"] is not None:
            says += (
                f": its distance is {coverage['score']:.4g}; noise alone stays below "
                f"{coverage['greatest_distance']:.4g} in {1 - coverage['false_alarms']:.0%}"
            )
        return f"{super().text()}\n{says}"

    def objective(self) -> Objective:
        return FieldObjective(self.observation)

    def descend(self, surrogate: str) -> None:
        """Refine by the gradients of a trained surrogate, and simulate where they lead.

        `surrogate`: the directory of a run, or the address of a model.
        """
        # torch and the surrogates are loaded only where they are needed.
        from framework.inverse.refine.gradient import refine_by_gradient
        from framework.run.loading import load_trained

        trained = load_trained(surrogate).surrogate
        self.refinement = refine_by_gradient(
            trained, solver_factory(self.reader), self.observation, self.starts(), whole_machine()
        )

    def index_grown(self, path: str) -> None:
        """Do nothing: fields need no index."""

    def weigh(self) -> Posterior:
        return posterior_of_fields(self.reader, self.solver, self._answer)

    def write(self, out: Path) -> None:
        reader, match = self.matches[0]
        mean, deviation = mean_and_deviation(self.reader, self.posterior)
        np.savez_compressed(
            out / "fields.npz",
            matched=reader.fields_at(match.simulation, match.position),
            mean=mean.astype(np.float32),
            sd=deviation.astype(np.float32),
        )
