"""A sound solver passes; each that is broken is found out, and told what to do."""

import re
import threading
from functools import partial
from typing import Any

import pytest
from broken_solvers import (
    BatchDiffers,
    Complex,
    Decay,
    Endless,
    Hangs,
    Imaged,
    MaskGrows,
    NoGrid,
    NoiseOnEveryPoint,
    NotFinite,
    NotSpectral,
    ObservesASum,
    OneStartOnly,
    OneStepTooFew,
    RefusesItsBounds,
    Remembering,
    SaysNothingOfItsSeed,
    Slow,
    SpacingOfAnotherGrid,
    TimesGoBack,
    TooManyTimes,
    Unseeded,
    WithLock,
    WrongOrderInSpace,
    WrongOrderInTime,
    WrongShape,
)
from checking import LIMIT, assert_told, found_in, outcomes

from framework.check.findings import Check
from framework.check.maker import Maker
from framework.check.named import check_class
from framework.check.running import run_checks
from framework.check.simulated import Simulated
from framework.check.solver import check_fields, check_seeds
from solvers.base import Solver


@pytest.mark.parametrize("kind", [Decay, Imaged])
def test_a_sound_solver_passes_every_check(kind: type[Solver]) -> None:
    checked = check_class(kind, {}, LIMIT)
    assert set(outcomes(checked.findings).values()) == {"ok"}, checked.text()


BROKEN: list[tuple[type[Solver], dict[str, Any], str, str, str]] = [
    (NoGrid, {}, "declarations", "not set: grid", "Set it so"),
    (SpacingOfAnotherGrid, {}, "declarations", "positive number for each axis", "Set it so"),
    (TimesGoBack, {}, "stored times", r"the times are \[1, 0.75", "ascending order"),
    (TooManyTimes, {}, "stored times", r"shape \(6,\), but stored_steps is 5", "as many times"),
    (RefusesItsBounds, {}, "its own bounds", "the step is unstable", "Narrow the bounds"),
    (WithLock, {"lock": threading.Lock()}, "to other processes", "pickle", "top of a module"),
    (WrongShape, {}, "fields and speed", r"shape \(16,\), but .* declare \(1, 16\)", r"u\[None\]"),
    (OneStepTooFew, {}, "fields and speed", "yields 4 fields, but stored_steps is 5", "initial"),
    (Endless, {}, "fields and speed", "yields more than 5 fields", "initial state and then one"),
    (Complex, {}, "fields and speed", "the type complex64", "real numbers"),
    (Unseeded, {}, "same seed, same bits", "second run differs from the first", "default_rng"),
    (Remembering, {}, "same seed, same bits", "second run differs", "keep nothing"),
    (
        SaysNothingOfItsSeed,
        {},
        "same seed, same bits",
        "other fields, but uses_seed is F",
        "= True",
    ),
    (OneStartOnly, {}, "same seed, same bits", "the same fields, but uses_seed is T", "= False"),
    (NotFinite, {}, "finite at the bounds", r"at 1 of 5 .*first at \[2, 1\]", "Shorten"),
    (BatchDiffers, {}, "solve_batch", "batch of 3 differs", "seed of each row"),
    (MaskGrows, {}, "observe", "high at 1 is not a part", "masks shrink"),
    (ObservesASum, {}, "observe", "half of the image u", "each point by itself"),
    (WrongOrderInTime, {}, "order in time", r"1\.\d\d, but order.time is 2", "claim the order 1"),
    (WrongOrderInSpace, {}, "order in space", r"\d, but order.space is 2", "claim the order 1"),
    (NotSpectral, {}, "order in space", r"1\.\d\d, but order.space is inf", "claim the order 2"),
]


@pytest.mark.parametrize(("kind", "settings", "check", "measured", "advice"), BROKEN)
def test_what_is_broken_is_found_and_the_remedy_told(
    kind: type[Solver], settings: dict[str, Any], check: str, measured: str, advice: str
) -> None:
    assert_told(check_class(kind, settings, LIMIT), check, measured, advice)


def test_initial_noise_on_every_point_leaves_the_order_unmeasured() -> None:
    checked = check_class(NoiseOnEveryPoint, {}, LIMIT)
    (finding,) = found_in(checked.findings, "order in space")
    assert finding.outcome == "skipped"
    assert "function of place" in finding.measured


@pytest.mark.parametrize("kind", [Hangs, Slow])
def test_a_solver_that_never_ends_is_told_of_and_the_rest_not_run(kind: type[Solver]) -> None:
    subject = Simulated(Maker(kind, {}))
    checks = [
        Check("fields", partial(check_fields, subject)),
        Check("seeds", partial(check_seeds, subject)),
    ]
    slow, later = run_checks(checks, limit=0.1)
    assert slow.outcome == "failed"
    assert re.search("still running after 0.2 s|stored steps after 0.1 s", slow.measured)
    assert "smaller settings" in slow.advice
    assert (later.outcome, later.measured) == ("skipped", "not run, as this was too slow: fields")
