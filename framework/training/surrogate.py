"""Makes the surrogate of a study, with its initial weights, and checks it against the solver."""

import torch

from framework.study.case import Case
from framework.study.component import SURROGATE, find, their_mistakes
from framework.study.streams import Stream, derived_seed
from surrogates.base import Surrogate


def make_surrogate(case: Case) -> Surrogate:
    """Make the surrogate of a study; the seed decides its weights and what it draws later.

    Raises StudyError if its constructor refuses its settings, or it cannot be trained as the study
    says.
    """
    study = case.study
    torch.manual_seed(derived_seed(study.seed, Stream.WEIGHTS))
    try:
        kind = find(study.surrogate, SURROGATE)
        if study.training.precision not in kind.precisions:
            raise ValueError(
                f"training.precision is {study.training.precision}: the surrogate "
                f"{study.surrogate.name} can be trained in {', '.join(kind.precisions)}"
            )
        make = case.make_surrogate
    except ValueError as error:
        raise case.mistake(str(error)) from None
    try:
        with their_mistakes("making it failed", plain=ValueError):
            surrogate = make()
    except ValueError as error:
        raise case.mistake(f"surrogate: {error}") from None
    assert isinstance(surrogate, Surrogate)
    stored = case.solver.stored_steps
    if stored < surrogate.window:
        raise case.mistake(
            f"the solver {study.solver.name} stores {stored} steps, but the surrogate "
            f"{study.surrogate.name} learns from {surrogate.window} consecutive ones: let the "
            f"solver store more, or {_shorten(surrogate)}"
        )
    return surrogate


def samples_per_simulation(case: Case, window: int) -> int:
    """Return how many windows of `window` consecutive stored steps a simulation has."""
    return case.solver.stored_steps - window + 1


def _shorten(surrogate: Surrogate) -> str:
    """Return advice on how to shorten the window of a surrogate."""
    ways = []
    if surrogate.bundle > 1:
        ways.append(f"lower surrogate.bundle, which is {surrogate.bundle}")
    if surrogate.pushforward:
        ways.append(
            "set surrogate.pushforward to false, which learns from one bundle instead of two"
        )
    return ", or ".join(ways) or "set surrogate.mode to direct"
