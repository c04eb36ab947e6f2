"""Counts of failed simulations, and those that were given up."""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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


class Verdicts(Protocol):
    """Who is told what becomes of simulations that fail."""

    def give_up(self, item: Quarantined) -> None:
        """Take a simulation that will not run again. Raises SolverError if these are too many."""

    def run_again(self, simulations: Sequence[int], why: str) -> None:
        """Be told that simulations run again."""


class Failures:
    """Counts the failures of the simulations of an ensemble, and decides which may run again."""

    def __init__(self, verdicts: Verdicts) -> None:
        self._verdicts = verdicts
        self._counts: Counter[tuple[int, int]] = Counter()  # (simulation, step)

    def count(self, simulation: Simulation, step: int, error: str) -> bool:
        """Count a failure; return True if the simulation may run again, else it is given up."""
        self._counts[simulation.id, step] += 1
        in_all = sum(n for (id, _), n in self._counts.items() if id == simulation.id)
        if self._counts[simulation.id, step] < FAILURES_AT_STEP and in_all < FAILURES:
            self._verdicts.run_again([simulation.id], f"it failed at step {step}: {error}")
            return True
        self._verdicts.give_up(Quarantined(simulation, step, error))
        return False


class Quarantine(Verdicts):
    """The simulations of a run that were given up. The user is told at once of every one.

    `items` may be read from any thread.
    """

    def __init__(self, simulations: int, share: float, names: Sequence[str]) -> None:
        """At most this share of so many simulations may be given up. `names`: of parameters."""
        self.items: list[Quarantined] = []
        self._simulations = simulations
        self._share = share
        self._names = names
        self._again: set[int] = set()
        self._lock = threading.Lock()

    def run_again(self, simulations: Sequence[int], why: str) -> None:
        with self._lock:
            new = [id for id in simulations if id not in self._again]
            self._again.update(new)
        if new:
            more = f" and {len(new) - 1} more" if len(new) > 1 else ""
            runs = "run" if more else "runs"
            tell(f"{simulation_text(new[0])}{more} {runs} again: {why}")

    def give_up(self, item: Quarantined) -> None:
        simulation = item.simulation
        with self._lock:
            self.items.append(item)
            count = len(self.items)
        tell(
            f"{simulation_text(simulation.id)} is quarantined at step {item.step}: {item.error}; "
            f"it had {parameters_text(self._names, simulation.parameters.tolist())}"
        )
        if count > self._share * self._simulations:
            raise SolverError(
                f"{count} of {self._simulations} simulations are quarantined, more than the share "
                f"of {self._share:g} that ensemble.max_quarantined allows; the last one at step "
                f"{item.step}: {item.error}"
            )

    def ids(self) -> set[int]:
        """Return the ids of the simulations that were given up."""
        return {item.simulation.id for item in self.items}

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
                for item in self.items
            ]
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned; earlier failures of other simulations are forgotten."""
        self.items = [
            Quarantined(
                Simulation(item["id"], np.asarray(item["parameters"]).copy(), int(item["seed"])),
                item["step"],
                item["error"],
            )
            for item in state["quarantined"]
        ]
