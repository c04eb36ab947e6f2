"""Breeding: simulations that have not started yet are steered to where the loss is high.

After Dymchenko, Purandare and Raffin (arXiv 2410.05860). Everything happens in the unit cube that
the prior maps the parameters to, so the prior's density is 1.

- **Score.** A sample whose loss is l, in a batch whose losses have the mean m and the standard
  deviation s, deviates by max((l - m) / s, 0). The score q_j of simulation j is the mean of its
  samples' deviations among the last `window` losses.
- **Proposal.** With probability u a point is drawn evenly. Otherwise a parent is drawn in
  proportion to the scores, and mutated; so with K(x | c) of `mutation_density` the density is

      q(x) = u + (1 - u) sum_j q_j K(x | x_j) / sum_j q_j.

  u goes linearly from the first to the second of `uniform` over the ids, which start in order; it
  is 1 until enough simulations have losses.
- **Weight.** E[1 / q(x)] = 1: with `correct`, each loss is multiplied by its simulation's 1 / q(x),
  so that the expected loss is that under the prior. A weight is at most 1 / u.

Each decision is kept in `Decisions` and, before the simulation starts, in a file. So a simulation
that runs again after any process was killed has the same parameters.

Shapes: p parameters, n parents, b samples of a batch, k losses remembered.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from framework.simulation.decisions import Decision, Decisions
from framework.simulation.losses import RecentLosses
from framework.simulation.mutation import Floats, mutate, mutation_density
from framework.study.design import Design, Simulation
from framework.study.design_file import DesignFile
from framework.study.sections import DesignConfig
from framework.study.streams import Stream, derived_seed, generator
from solvers.base import ParameterSpace

# The losses of fewer simulations do not tell where in the cube the loss is high.
_FEWEST_PARENTS = 10


class BredDesign(Design):
    """A design whose simulations are decided as they start.

    The receive thread calls `start`, the training loop `weigh`; the rest may be called from any
    thread.
    """

    def __init__(
        self,
        config: DesignConfig,
        space: ParameterSpace,
        seed: int,
        decisions: Decisions,
        batch_size: int,
    ) -> None:
        """`config` is of the sampler `breed`; `decisions` keeps what is decided."""
        super().__init__(config, space, seed)
        assert config.breed is not None
        self._breed = config.breed
        self.decisions = decisions
        self.losses = RecentLosses(config.breed.window, batch_size)
        self._file: DesignFile | None = None
        # Processor seconds: while a thread waits for its turn, the other one works.
        self._deciding = 0.0
        self._telling = 0.0  # in the training loop

    def training(self, id: int) -> Simulation:
        """Return simulation `id` as it was decided. Raises LookupError if it is undecided."""
        decision = self.decisions.decision(id)
        if decision is None:
            raise LookupError(f"the parameters of simulation {id} are not decided yet")
        return self._simulation(id, decision)

    def start(self, id: int) -> Simulation:
        """Return simulation `id`, deciding it now if it is undecided.

        Raises WriteError if it cannot be added to the file.
        """
        if self.decisions.decision(id) is not None:
            return self.training(id)
        began = time.thread_time()
        decision = self._decide(id)
        simulation = self._simulation(id, decision)
        if self._file:
            self._file.add(simulation, decision.cells)
        self.decisions.decide(id, decision)
        self._deciding += time.thread_time() - began
        return simulation

    def weigh(self, simulation: NDArray[np.int64], losses: Tensor) -> Tensor:
        """Remember the losses [b] of a batch; return them, weighted if the study says so.

        Waits neither for a GPU nor for a decision.
        """
        began = time.thread_time()
        self.losses.add(simulation, losses)
        self._telling += time.thread_time() - began
        if not self._breed.correct:
            return losses
        decided = [decision.weight for decision in self.decisions.decided(simulation)]
        weights = torch.from_numpy(np.array(decided))
        return losses * weights.to(losses.device, losses.dtype, non_blocking=True)

    def uniform_share(self, id: int) -> float:
        """Return the share of uniform draws among simulations as far in the design as `id`."""
        first, last = self._breed.uniform
        progress = min(id / max(self.config.simulations - 1, 1), 1.0)
        return first + (last - first) * progress

    def counts(self) -> dict[str, Any]:
        """Count the simulations decided in each way, and the processor seconds it took."""
        parents = [decision.parent for decision in self.decisions.all().values()]
        uniform = parents.count(None)
        seconds = self._deciding + self._telling
        return {"bred": len(parents) - uniform, "uniform": uniform, "seconds": seconds}

    def state(self) -> dict[str, Any]:
        """Return the losses, the seconds and the decisions, for `load_state`."""
        seconds = {"deciding": self._deciding, "telling": self._telling}
        decided = self.decisions.state()
        return {"losses": self.losses.state(), "decisions": decided, **seconds}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.losses.load_state(state["losses"])
        self.decisions.load_state(state["decisions"])
        self._deciding, self._telling = state["deciding"], state["telling"]

    def stranger(
        self, simulations: NDArray[np.int64], parameters: NDArray[np.float64]
    ) -> int | None:
        """Return the first of the simulations [n], with parameters [n, p], not decided here."""
        for id, values in zip(simulations.tolist(), parameters, strict=True):
            decision = self.decisions.decision(id)
            if decision is None or not np.array_equal(decision.parameters, values):
                return int(id)
        return None

    def keep(self, path: Path, held_out: int) -> None:
        """Write the simulations to a file now, and each later one when it is decided.

        Raises WriteError.
        """
        first = [self.held_out(index) for index in reversed(range(held_out))]
        rows = [(simulation, Decision(simulation.parameters, None)) for simulation in first]
        rows += [(self._simulation(id, item), item) for id, item in self.decisions.all().items()]
        self._file = DesignFile(path, self.space.names, ("parent", "weight"))
        self._file.write((simulation, decision.cells) for simulation, decision in rows)

    def _simulation(self, id: int, decision: Decision) -> Simulation:
        return Simulation(id, decision.parameters, derived_seed(self._seed, Stream.SIMULATION, id))

    def _decide(self, id: int) -> Decision:
        """Decide a simulation, as a function of the seed, its id and the losses known by now."""
        random = generator(self._seed, Stream.BREEDING, id)
        simulations, scores = self.losses.scores()
        known = len(simulations) >= _FEWEST_PARENTS and scores.any()
        if not known:
            return Decision(self.even(id), None)
        share, sigma = self.uniform_share(id), self._breed.sigma
        scores = scores / scores.sum()
        parents = self._points(simulations)
        if random.random() < share:
            parent, point = None, self._point(id)
        else:
            chosen = random.choice(len(simulations), p=scores)
            parent, point = int(simulations[chosen]), mutate(parents[chosen], sigma, random)
        weight = 1.0
        if self._breed.correct:
            bred = float(scores @ mutation_density(point, parents, sigma))
            weight = 1 / (share + (1 - share) * bred)
        return Decision(self.space.from_unit(point), parent, weight)

    def _points(self, simulations: NDArray[np.int64]) -> Floats:
        """Return the points [n, p] of simulations in the unit cube."""
        parameters = [decision.parameters for decision in self.decisions.decided(simulations)]
        # Rounding may have put them just outside.
        return self.space.to_unit(np.array(parameters)).clip(0, 1)
