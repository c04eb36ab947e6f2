"""Design of experiments: the parameters and the seed of every simulation.

(study, simulation id) -> (parameters, seed) is a pure function: it needs no memory of what was
drawn before, so a simulation can be run again anywhere and a longer design begins with the same
simulations. With the sampler `breed` that holds for seeds and held-out simulations only; the other
parameters are decided while training goes on, by a `BredDesign` (breeding.py). p: parameters.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framework.study.ids import held_out_id, held_out_number, is_held_out
from framework.study.sections import DesignConfig
from framework.study.streams import Stream, derived_seed, generator
from solvers.base import ParameterSpace


@dataclass(frozen=True)
class Simulation:
    """What is needed to run one simulation; see ids.py for the ids."""

    id: int
    parameters: NDArray[np.float64]  # [p]
    seed: int

    @property
    def held_out(self) -> bool:
        """Whether the simulation is held out from training."""
        return is_held_out(self.id)


class Design:
    """The simulations of a study: `simulations` for training, and any number held out."""

    def __init__(self, config: DesignConfig, space: ParameterSpace, seed: int) -> None:
        self.config = config
        self.space = space.with_bounds(config.bounds)
        self._seed = seed
        self._sequence: NDArray[np.float64] = np.empty((0, len(space)))

    def training(self, id: int) -> Simulation:
        """Return simulation `id`, counted from 0; only a Latin hypercube ever ends.

        Raises ValueError past the end of a Latin hypercube, which cannot grow: its strata are fixed
        by its size. Raises LookupError if the parameters are not decided yet, see `start`.
        """
        if self.config.sampler == "breed":
            raise LookupError(f"the parameters of simulation {id} are decided by a run")
        return Simulation(id, self.even(id), derived_seed(self._seed, Stream.SIMULATION, id))

    def start(self, id: int) -> Simulation:
        """Return simulation `id`, which is about to run; `training` knows it from now on."""
        return self.training(id)

    def even(self, id: int) -> NDArray[np.float64]:
        """Return the parameters [p] of simulation `id` of a design that covers the space evenly.

        A bred simulation has others. Raises ValueError as `training` does.
        """
        return self.space.from_unit(self._point(id))

    def held_out(self, index: int) -> Simulation:
        """Return held-out simulation `index`, counted from 0, of a random stream of its own."""
        point = generator(self._seed, Stream.HELD_OUT_POINT, index).random(len(self.space))
        return Simulation(
            held_out_id(index),
            self.space.from_unit(point),
            derived_seed(self._seed, Stream.HELD_OUT, index),
        )

    def simulation(self, id: int) -> Simulation:
        """Return a simulation of either kind, by its id."""
        return self.held_out(held_out_number(id)) if is_held_out(id) else self.training(id)

    def _point(self, id: int) -> NDArray[np.float64]:
        """Return point `id` of the design in the unit cube [p]."""
        if self.config.sampler == "monte_carlo":
            return generator(self._seed, Stream.MONTE_CARLO, id).random(len(self.space))
        if id >= len(self._sequence):
            self._sequence = self._draw(id + 1)
        point: NDArray[np.float64] = self._sequence[id]
        return point

    def _draw(self, count: int) -> NDArray[np.float64]:
        """Draw the first points of the sequence, at least `count` of them."""
        from scipy.stats import qmc  # takes longer to import than all else here

        dimensions = len(self.space)
        random = generator(self._seed, Stream.SEQUENCE)
        points: NDArray[np.float64]
        if self.config.sampler == "latin_hypercube":
            if count > self.config.simulations:
                raise ValueError(
                    f"a Latin hypercube of {self.config.simulations} simulations cannot grow to "
                    f"{count}: the sobol, halton and monte_carlo samplers can"
                )
            points = qmc.LatinHypercube(dimensions, rng=random).random(self.config.simulations)
            return points
        # A Sobol sequence is balanced only at powers of two; drawing more leaves the first points
        # alone.
        power = max(count, self.config.simulations, 2) - 1
        engine = qmc.Halton if self.config.sampler == "halton" else qmc.Sobol
        points = engine(dimensions, rng=random).random(2 ** power.bit_length())
        return points


def parameters_text(names: Iterable[str], values: Iterable[float]) -> str:
    """Return parameters with their values, for a sentence."""
    pairs = zip(names, values, strict=True)
    return ", ".join(f"{name} = {value:.6g}" for name, value in pairs)
