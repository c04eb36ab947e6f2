"""Counts of failed simulations, and those that were given up."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from framework.errors import SolverError, tell
from framework.study.design import Simulation, parameters_text
from framework.study.ids import simulation_text

# A simulation is quarantined after this many failures at the same step, or in all.
FAILURES_AT_STEP, FAILURES = 3, 5


@dataclass(frozen=True)
class Quarantined:
    """A simulation that was given up, and why."""

    simulation: Simulation
    step: int
    error: str

    def describe(self, names: Sequence[str]) -> dict[str, Any]:
        """Return plain values, with the parameters by name."""
        parameters = dict(zip(names, self.simulation.parameters.tolist(), strict=True))
        return {
            "simulation": self.simulation.id,
            "parameters": parameters,
            "step": self.step,
            "error": self.error,
        }


class Failures:
    """Counts failures, and quarantines the simulations that fail too often.

    `quarantined` may be read from any thread.
    """

    def __init__(self, simulations: int, share: float, names: Sequence[str]) -> None:
        """At most this share of so many simulations may be quarantined. `names`: of parameters."""
        self.quarantined: list[Quarantined] = []
        self._simulations = simulations
        self._share = share
        self._names = names
        self._counts: Counter[tuple[int, int]] = Counter()  # (simulation, step)

    def count(self, simulation: Simulation, step: int, error: str) -> bool:
        """Count a failure; return True if the simulation may run again, else quarantine it.

        The user is told of a quarantined simulation at once. Raises SolverError when too many are
        quarantined.
        """
        self._counts[simulation.id, step] += 1
        in_all = sum(n for (id, _), n in self._counts.items() if id == simulation.id)
        if self._counts[simulation.id, step] < FAILURES_AT_STEP and in_all < FAILURES:
            return True
        self.quarantined.append(Quarantined(simulation, step, error))
        tell(
            f"{simulation_text(simulation.id)} is quarantined at step {step}: {error}; it had "
            f"{parameters_text(self._names, simulation.parameters.tolist())}"
        )
        if len(self.quarantined) > self._share * self._simulations:
            raise SolverError(
                f"{len(self.quarantined)} of {self._simulations} simulations are quarantined, more "
                f"than the share of {self._share:g} that ensemble.max_quarantined allows; the last "
                f"one at step {step}: {error}"
            )
        return False

    def state(self) -> dict[str, Any]:
        """Return the quarantined simulations, for `load_state`."""
        return {
            "quarantined": [
                {
                    "id": item.simulation.id,
                    "parameters": item.simulation.parameters,
                    "seed": str(item.simulation.seed),  # may be beyond a signed 64-bit number
                    "step": item.step,
                    "error": item.error,
                }
                for item in self.quarantined
            ]
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned; earlier failures of other simulations are forgotten."""
        self.quarantined = [
            Quarantined(
                Simulation(item["id"], np.asarray(item["parameters"]).copy(), int(item["seed"])),
                item["step"],
                item["error"],
            )
            for item in state["quarantined"]
        ]
