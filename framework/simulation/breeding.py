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

What is decided is kept in `Decisions` and, before the simulation starts, to a file. So whatever is
killed, a simulation that runs again has the parameters that it had.

Shapes: p parameters, n parents, b samples of a batch, k losses remembered.
"""

import csv
import os
import time
from collections import deque
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from framework.errors import StudyError
from framework.files import writing
from framework.simulation.decisions import Decision, Decisions
from framework.study.design import Design, Simulation
from framework.study.ids import is_held_out
from framework.study.sections import DesignConfig
from framework.study.streams import Stream, derived_seed, generator
from solvers.base import ParameterSpace

Floats = NDArray[np.float64]

# A mutation that leaves the cube is drawn again with half the deviation; the last is reflected.
_TRIES = 4
# Of fewer simulations the losses do not tell where in the cube they are high.
_FEWEST_PARENTS = 10


def mutate(parent: Floats, sigma: float, random: np.random.Generator) -> Floats:
    """A Gaussian mutation [p] of a point [p] of the unit cube, inside the cube.

    A draw outside is tried again with half the deviation, and the last one reflected at the faces.
    """
    for _ in range(_TRIES):
        point: Floats = parent + sigma * random.standard_normal(len(parent))
        if ((point >= 0) & (point <= 1)).all():
            return point
        sigma /= 2
    reflected: Floats = 1 - np.abs(1 - np.abs(point) % 2)
    return reflected


def mutation_density(point: Floats, parent: Floats, sigma: float) -> Floats:
    """The density [...] at points [..., p] of what `mutate` makes of parents [..., p].

    With s_i = sigma / 2^i, phi_s and Phi_s the normal density and distribution function, and
    P_i = prod_d [Phi_s_i(1 - c_d) - Phi_s_i(-c_d)] the probability that draw i stays inside,

        K(x | c) = sum_i prod_{h < i} (1 - P_h) prod_d phi_s_i(x_d - c_d),

    where in the last term, which is reflected whether it left the cube or not, phi(x_d - c_d) has
    phi(-x_d - c_d) and phi(2 - x_d - c_d) added. Images further away are 8 deviations off.
    """
    density, left = np.zeros(1), np.ones(1)  # left: the probability that all draws so far were out
    for trial in range(_TRIES):
        images = [point, -point, 2 - point] if trial == _TRIES - 1 else [point]
        terms = sum(np.exp(-0.5 * ((image - parent) / sigma) ** 2) for image in images)
        density = density + left * np.prod(terms / (sigma * np.sqrt(2 * np.pi)), axis=-1)
        left = left * (1 - np.prod(ndtr((1 - parent) / sigma) - ndtr(-parent / sigma), axis=-1))
        sigma /= 2
    return density


class RecentLosses:
    """The last `window` losses, as deviations within their batch; of any two threads, one adds."""

    def __init__(self, window: int, batch_size: int) -> None:
        self._window = window
        # Read only when asked: to read a loss on a GPU is to wait for it.
        self._new: deque[tuple[NDArray[np.int64], Tensor]] = deque(maxlen=-(-window // batch_size))
        self._simulations = np.empty(0, dtype=np.int64)  # [k]
        self._deviations = np.empty(0)  # [k]
        self._lock = Lock()

    def add(self, simulation: NDArray[np.int64], losses: Tensor) -> None:
        """Remember the losses [b] of a batch; does not wait for them to be computed."""
        self._new.append((simulation, losses.detach()))

    def scores(self) -> tuple[NDArray[np.int64], Floats]:
        """The simulations that losses are remembered of, ascending, and the score of each."""
        with self._lock:
            self._read()
            if not len(self._simulations):
                return self._simulations, self._deviations
            first = self._simulations.min()
            counts = np.bincount(self._simulations - first)
            sums = np.bincount(self._simulations - first, self._deviations)
            present = np.flatnonzero(counts)
            return first + present, sums[present] / counts[present]

    def state(self) -> dict[str, Any]:
        """What is remembered, for `load_state`."""
        with self._lock:
            self._read()
            return {"simulations": self._simulations, "deviations": self._deviations}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        with self._lock:
            self._simulations = np.array(state["simulations"])
            self._deviations = np.array(state["deviations"])

    def _read(self) -> None:
        """Take up what was added since; all of it crosses from a GPU at once."""
        batches = [self._new.popleft() for _ in range(len(self._new))]
        if not batches:
            return
        losses = torch.cat([losses for _, losses in batches]).double().cpu().numpy()
        deviations = _deviations(losses, np.array([len(losses) for _, losses in batches]))
        simulations = [simulation for simulation, _ in batches]
        self._simulations = np.concatenate([self._simulations, *simulations])[-self._window :]
        self._deviations = np.concatenate([self._deviations, deviations])[-self._window :]


def _deviations(losses: Floats, lengths: NDArray[np.int64]) -> Floats:
    """How far each loss lies above the mean of its batch, in standard deviations; 0 below it.

    The batches, of these lengths, follow each other.
    """
    starts = np.cumsum(lengths) - lengths
    above = losses - (np.add.reduceat(losses, starts) / lengths).repeat(lengths)
    spread = np.sqrt(np.add.reduceat(above**2, starts) / lengths).repeat(lengths)
    # Neither tells anything: a batch without spread, and one that has diverged.
    tells = np.isfinite(spread) & (spread > 0)
    deviations = np.zeros(len(losses))
    np.divide(above.clip(0), spread, out=deviations, where=tells)
    return deviations


class BredDesign(Design):
    """A design whose simulations are decided as they start.

    The receive thread calls `start`, the training loop `weigh`, anybody the rest.
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
        self._decisions = decisions
        self._losses = RecentLosses(config.breed.window, batch_size)
        self._file: IO[str] | None = None
        self._path = Path()  # where the file is
        # Processor seconds: while a thread waits for its turn, the other one works.
        self._deciding = 0.0
        self._telling = 0.0  # in the training loop

    def training(self, id: int) -> Simulation:
        """Simulation `id` as it was decided. Raises LookupError if it was not yet."""
        decision = self._decisions.decision(id)
        if decision is None:
            raise LookupError(f"the parameters of simulation {id} are not decided yet")
        return self._simulation(id, decision)

    def start(self, id: int) -> Simulation:
        """Simulation `id`, decided now if it was not before. Raises RunError (see `keep`)."""
        if self._decisions.decision(id) is not None:
            return self.training(id)
        began = time.thread_time()
        decision = self._decide(id)
        simulation = self._simulation(id, decision)
        self._write(simulation, decision)
        self._decisions.decide(id, decision)
        self._deciding += time.thread_time() - began
        return simulation

    def weigh(self, simulation: NDArray[np.int64], losses: Tensor) -> Tensor:
        """Be told the losses [b] of a batch; return them, weighted if that is set.

        Waits neither for a GPU nor for a decision.
        """
        began = time.thread_time()
        self._losses.add(simulation, losses)
        self._telling += time.thread_time() - began
        if not self._breed.correct:
            return losses
        decided = [decision.weight for decision in self._decisions.decided(simulation)]
        weights = torch.from_numpy(np.array(decided))
        return losses * weights.to(losses.device, losses.dtype, non_blocking=True)

    def uniform_share(self, id: int) -> float:
        """The share of uniform draws among simulations as far in the design as `id`."""
        first, last = self._breed.uniform
        progress = min(id / max(self.config.simulations - 1, 1), 1.0)
        return first + (last - first) * progress

    def counts(self) -> dict[str, Any]:
        """How many simulations were decided which way, and the processor seconds it took."""
        parents = [decision.parent for decision in self._decisions.decisions().values()]
        uniform = parents.count(None)
        seconds = self._deciding + self._telling
        return {"bred": len(parents) - uniform, "uniform": uniform, "seconds": seconds}

    def state(self) -> dict[str, Any]:
        """The losses, the seconds and what was decided, for `load_state`."""
        seconds = {"deciding": self._deciding, "telling": self._telling}
        decided = self._decisions.state()
        return {"losses": self._losses.state(), "decisions": decided, **seconds}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._losses.load_state(state["losses"])
        self._decisions.load_state(state["decisions"])
        self._deciding, self._telling = state["deciding"], state["telling"]

    def check(
        self, place: str, simulations: NDArray[np.int64], parameters: NDArray[np.float64]
    ) -> None:
        """Raise StudyError unless all simulations [n] of the store at `place`, with parameters
        [n, p], were decided here."""
        for id, values in zip(simulations.tolist(), parameters, strict=True):
            decision = self._decisions.decision(id)
            if decision is None or not np.array_equal(decision.parameters, values):
                raise StudyError(
                    f"store.path is {place}, where simulation {id} is one that another run has "
                    "bred: set store.path to another place, or store.keep to none"
                )

    def load(self, path: Path) -> None:
        """Take up what an earlier process has decided, from the file that it wrote.

        Raises StudyError if the file is damaged.
        """
        if not path.exists():  # killed before anything was decided
            return
        # A line that has no end was cut short; its simulation did not start.
        lines = [line for line in path.read_text().splitlines(True) if line.endswith("\n")]
        for row in csv.DictReader(lines):
            try:
                id, parent = int(row["simulation"]), row["parent"]
                parameters = np.array([float(row[name]) for name in self.space.names])
                if not is_held_out(id):
                    parent_id = int(parent) if parent else None
                    self._decisions.decide(
                        id, Decision(parameters, parent_id, float(row["weight"]))
                    )
            except (KeyError, TypeError, ValueError):
                raise StudyError(
                    f"{path} is damaged where it says what simulation {row.get('simulation')} is: "
                    "start the study anew with millstream train"
                ) from None

    def keep(self, path: Path, held_out: int) -> None:
        """Write the simulations to a file, those decided later as they are decided.

        Raises RunError if it cannot be written.
        """
        self._path, temporary = path, path.with_suffix(".writing")
        with writing(path):
            self._file = temporary.open("w", newline="")
            header = ["simulation", "seed", *self.space.names, "parent", "weight"]
            csv.writer(self._file).writerow(header)
        for index in reversed(range(held_out)):
            simulation = self.held_out(index)
            self._write(simulation, Decision(simulation.parameters, None))
        for id, decision in self._decisions.decisions().items():
            self._write(self._simulation(id, decision), decision)
        with writing(path):
            os.fsync(self._file.fileno())
            temporary.replace(path)

    def _simulation(self, id: int, decision: Decision) -> Simulation:
        return Simulation(id, decision.parameters, derived_seed(self._seed, Stream.SIMULATION, id))

    def _write(self, simulation: Simulation, decision: Decision) -> None:
        if self._file is None:
            return
        parent = "" if decision.parent is None else decision.parent
        given = [*simulation.parameters.tolist(), parent, decision.weight]
        row = [simulation.id, simulation.seed, *given]
        with writing(self._path):
            csv.writer(self._file).writerow(row)
            self._file.flush()  # to the system, which keeps it whatever happens to this process

    def _decide(self, id: int) -> Decision:
        """A function of the seed, the id and the losses that are known by now."""
        random = generator(self._seed, Stream.BREEDING, id)
        simulations, scores = self._losses.scores()
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
        """Where simulations are in the unit cube [n, p]."""
        parameters = [decision.parameters for decision in self._decisions.decided(simulations)]
        # What was rounded may lie outside by as much.
        return self.space.to_unit(np.array(parameters)).clip(0, 1)
