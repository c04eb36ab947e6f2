"""Makes the surrogate of a study, with its initial weights, and checks it against the solver."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from framework.errors import tell
from framework.study.case import Case
from framework.study.component import SURROGATE, find, their_mistakes
from framework.study.streams import Stream, derived_seed
from framework.training.trial import try_surrogate
from surrogates.base import Surrogate


def make_surrogate(case: Case) -> Surrogate:
    """Make the surrogate of a study; the seed decides its weights and what it draws later.

    Raises StudyError if its constructor refuses its settings, if it cannot be trained as the study
    says, or if a pass of two samples through another one like it fails.
    """
    study = case.study
    try:
        kind = find(study.surrogate, SURROGATE)
        if study.training.precision not in kind.precisions:
            raise ValueError(
                f"training.precision is {study.training.precision}: the surrogate "
                f"{study.surrogate.name} can be trained in {', '.join(kind.precisions)}"
            )
        _ = case.make_surrogate  # which checks the settings
    except ValueError as error:
        raise case.mistake(str(error)) from None
    try:
        with torch.random.fork_rng():
            _try(case)
        torch.manual_seed(derived_seed(study.seed, Stream.WEIGHTS))
        return _make_one(case)
    except ValueError as error:
        raise case.mistake(str(error)) from None


def tell_unlearnable(case: Case, surrogate: Surrogate) -> None:
    """Tell the user if a surrogate that sees parameters alone is to learn what a seed decides."""
    if surrogate.mode == "direct" and case.solver.uses_seed:
        tell(
            f"surrogate.mode is direct, but the fields of the solver {case.study.solver.name} also "
            "depend on a seed, which a direct surrogate is not told: it can learn their mean at "
            "most; set surrogate.mode to autoregressive, which starts from the first stored fields"
        )


def _make_one(case: Case) -> Surrogate:
    """Make a surrogate. Raises ValueError if its constructor fails."""
    with _said_of_surrogate(f"making it{case.study.surrogate.given()} failed"):
        surrogate = case.make_surrogate()
    assert isinstance(surrogate, Surrogate)
    if not hasattr(surrogate, "window"):
        raise ValueError(
            "surrogate: its constructor does not call super().__init__(problem, mode), which it "
            "has to do first"
        )
    return surrogate


def _try(case: Case) -> None:
    """Make a surrogate and try it. Raises ValueError."""
    surrogate, study = _make_one(case), case.study
    stored = case.solver.stored_steps
    if stored < surrogate.window:
        raise ValueError(
            f"the solver {study.solver.name} stores {stored} steps, but the surrogate "
            f"{study.surrogate.name} learns from {surrogate.window} consecutive ones: let the "
            f"solver store more, or {_shorten(surrogate)}"
        )
    with _said_of_surrogate("a pass of two samples through it failed"):
        try_surrogate(surrogate, case)


@contextmanager
def _said_of_surrogate(what: str) -> Iterator[None]:
    """Say of a ValueError that it is about the surrogate, and of other errors `what` failed."""
    try:
        with their_mistakes(what, plain=ValueError):
            yield
    except ValueError as error:
        raise ValueError(f"surrogate: {error}") from None


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
