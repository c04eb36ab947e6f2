"""Decisions on simulations that are made before they run and depend on the training.

A simulation that runs again keeps its parameters. p: parameters.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.errors import StudyError
from framework.study.design_file import read_design
from framework.study.ids import is_held_out


@dataclass(frozen=True)
class Decision:
    """What a simulation was given before it ran."""

    parameters: NDArray[np.float64]  # [p]
    parent: int | None  # the simulation that it was bred from, if it was bred
    weight: float = 1.0  # of the losses of its samples

    @property
    def cells(self) -> tuple[object, ...]:
        """The values in the columns `parent` and `weight` of design.csv."""
        return ("" if self.parent is None else self.parent, self.weight)


class Decisions:
    """The decision on each simulation. May be used from any thread."""

    def __init__(self) -> None:
        self._decisions: dict[int, Decision] = {}
        self._lock = threading.Lock()

    def decide(self, simulation: int, decision: Decision) -> None:
        """Enter the decision on a simulation. Raises ValueError if there is one already."""
        with self._lock:
            if simulation in self._decisions:
                raise ValueError(f"simulation {simulation} was decided before")
            self._decisions[simulation] = decision

    def all(self) -> dict[int, Decision]:
        """Return the decisions so far, by simulation."""
        with self._lock:
            return dict(self._decisions)

    def decided(self, simulation: NDArray[np.int64]) -> list[Decision]:
        """Return the decisions on simulations [n]. Raises KeyError if there is none on one."""
        with self._lock:
            return [self._decisions[id] for id in simulation.tolist()]

    def decision(self, simulation: int) -> Decision | None:
        """Return the decision on a simulation, if there is one."""
        with self._lock:
            return self._decisions.get(simulation)

    def load(self, path: Path, names: Sequence[str]) -> None:
        """Read the decisions of an earlier process from its design.csv.

        `names` of the parameters. Raises StudyError if the file is damaged.
        """
        if not path.exists():  # killed before anything was decided
            return
        for row in read_design(path):
            try:
                id, parent = int(row["simulation"]), row["parent"]
                parameters = np.array([float(row[name]) for name in names])
                if not is_held_out(id):
                    parent_id = int(parent) if parent else None
                    self.decide(id, Decision(parameters, parent_id, float(row["weight"])))
            except (KeyError, TypeError, ValueError):
                raise StudyError(
                    f"{path} is damaged where it says what simulation {row.get('simulation')} is: "
                    "start the study anew with millstream train"
                ) from None

    def state(self) -> dict[str, Any]:
        """Return the decisions so far, for `load_state`."""
        return {
            "decided": [
                {
                    "simulation": id,
                    "parameters": decision.parameters,
                    "parent": decision.parent,
                    "weight": decision.weight,
                }
                for id, decision in self.all().items()
            ]
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned; later decisions are kept."""
        with self._lock:
            for item in state["decided"]:
                self._decisions[item["simulation"]] = Decision(
                    np.asarray(item["parameters"]).copy(), item["parent"], item["weight"]
                )
