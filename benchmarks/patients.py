"""Patients whose truth is known: held-out simulations of a store's study, as a rater sees them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framework.inverse.index.index import Index
from framework.inverse.posterior.patients import segment
from framework.inverse.search.masks import Observed
from framework.store.reader import StoreReader
from framework.study.design import Design
from framework.study.sections import DesignConfig
from solvers.base import Solver


@dataclass(frozen=True)
class Patient:
    """What was observed, what can be told of it [q], and how many such patients this one stands
    for: the stored times of its simulation at which there was enough to see."""

    masks: Observed
    truth: NDArray[np.float64]
    weight: int


def held_out(
    reader: StoreReader, index: Index, solver: Solver, count: int, first: int = 0
) -> Iterator[Patient]:
    """Of the simulations `first`, ... that the study holds out, one patient each at most.

    Each stored time but the first is observed, with thresholds and noise of its own, as in
    `patients.segment`; of those with enough to see one is chosen at random. So weighted
    patients are spread as the prior is, given that there is something to see.
    """
    said = reader.study["design"]
    config = DesignConfig(sampler=said["sampler"], simulations=1, bounds=said["bounds"])
    design = Design(config, solver.parameters, reader.study["seed"])
    for number in range(first, first + count):
        simulation = design.held_out(number)
        random = np.random.default_rng([number, 5])
        steps = enumerate(solver.solve(simulation.parameters, simulation.seed))
        observed = [(i, segment(solver, fields, index.masks, random)) for i, fields in steps if i]
        seen = [(i, masks) for i, masks in observed if masks is not None]
        if not seen:
            continue
        step, masks = seen[random.integers(len(seen))]
        t = solver.times(simulation.parameters)[step : step + 1]
        found = solver.identifiable(simulation.parameters[None], t)
        truth = np.array([quantity.values[0] for quantity in found.values()])
        yield Patient(masks, truth, len(seen))
