"""Our own surrogates and buffers pass their checks; each broken one is found out, and told how."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import broken_buffers as buffers
import broken_surrogates as surrogates
import pytest
from checking import LIMIT, assert_told, outcomes, run_check
from commands import MILLSTREAM, the_object, with_support
from waiting import until

from framework.check.named import check_class, check_named
from framework.errors import StudyError
from framework.stream.buffers.buffer import Buffer
from framework.study.buffers import BUFFERS
from millstream.testing import check_buffer, check_solver, check_surrogate
from solvers.heat import Heat
from surrogates.base import Surrogate

pytestmark = pytest.mark.usefixtures("one_thread")

# In sizes that learn in little time.
SMALL: list[tuple[str, dict[str, Any]]] = [
    ("mlp", {"hidden": [64, 64]}),
    ("fno", {"modes": 4, "hidden_channels": 24, "layers": 2}),
    ("unet", {"hidden_channels": 16, "levels": 1, "periodic": True}),
    ("message_passing", {"hidden": 32, "layers": 2, "periodic": True}),
    ("message_passing", {"hidden": 32, "layers": 2, "periodic": True, "bundle": 2}),
    ("message_passing", {"hidden": 32, "layers": 2, "bundle": 3, "pushforward": True}),
]


@pytest.mark.parametrize(("name", "settings"), SMALL)
def test_a_surrogate_of_ours_passes_every_check(name: str, settings: dict[str, Any]) -> None:
    checked = check_named(name, settings, LIMIT)
    assert set(outcomes(checked.findings).values()) == {"ok"}, checked.text()


@pytest.mark.parametrize("name", BUFFERS)
def test_a_buffer_of_ours_passes_every_check(name: str) -> None:
    checked = check_named(name, {}, LIMIT)
    assert set(outcomes(checked.findings).values()) == {"ok"}, checked.text()


def test_what_a_user_has_written_soundly_passes() -> None:
    check_surrogate(surrogates.Sound, hidden=64, limit=LIMIT)
    check_buffer(buffers.Newest, limit=LIMIT)


@pytest.mark.parametrize(
    "kind",
    [
        surrogates.ZeroAtFirst,
        surrogates.DoubleOnly,
        surrogates.SquaresOnly,
        surrogates.WithDropout,
        surrogates.OneMode,
        surrogates.OneModeNamed,
        buffers.StateOfArrays,
    ],
)
def test_what_is_unusual_and_sound_passes(kind: type[Surrogate | Buffer]) -> None:
    checked = check_class(kind, {}, LIMIT)
    assert not checked.failures, checked.text()


def test_what_a_surrogate_does_not_offer_is_skipped() -> None:
    checked = check_class(surrogates.OnlyLines, {}, LIMIT)
    assert not checked.failures
    skipped = {check for check, found in outcomes(checked.findings).items() if found == "skipped"}
    assert skipped == {
        f"{axes}-D {mode}" for axes in (2, 3) for mode in ("direct", "autoregressive")
    }


BROKEN: list[tuple[type[Surrogate | Buffer], str, str, str]] = [
    (surrogates.RefusesEveryGrid, "any grid", "no grid will do", "Accept"),
    (surrogates.FlatOutput, "2-D direct", r"returns \[5, 96\], not \[5, 2, 8, 6\]", "K C"),
    (surrogates.NotFinite, "1-D direct", "NaN or infinity", "smaller weights"),
    (surrogates.MixesSamples, "1-D direct", "1 of 5 samples", "each sample by itself"),
    (surrogates.Detached, "1-D direct", r"2 of 4 parameters: first.bias, first.weight", "detach"),
    (surrogates.NothingToTrain, "1-D direct", "no parameter", "Register layers"),
    (surrogates.OtherWeights, "1-D direct", "start with different weights", "global generator"),
    (surrogates.NotSaved, "1-D direct", "predicts something else", "register_buffer"),
    (surrogates.ScaleNotSaved, "1-D direct", "predicts something else", "register_buffer"),
    (surrogates.OnePrecision, "precisions", "a step in float64 fails", "Leave float64 out"),
    (surrogates.UnknownPrecision, "precisions", "names float16", "Choose among"),
    (surrogates.IgnoresTheTime, "learns, direct", r"not 0\.003", "input that the network"),
    (surrogates.Raises, "1-D direct", "RuntimeError: the device is lost .*py:", "Mend"),
    (buffers.RefusesAll, "settings", "refuses all of", "same arguments as Buffer"),
    (buffers.WithoutDevice, "settings", "raised TypeError: .* positional arguments", "Mend"),
    (buffers.PowersOfTwo, "what is drawn", "were never drawn", "Overwrite in `place` only"),
    (buffers.AcceptsAnything, "settings", "capacity 3, batch_size 4", r"Buffer.__init__"),
    (buffers.Twice, "what is drawn", "twice in a batch", "different places"),
    (buffers.TooFew, "what is drawn", "has 3 samples", "as many places"),
    (buffers.FreePlaces, "what is drawn", "more than once|what was put", "pick.* returns"),
    (
        buffers.AltersFields,
        "what is drawn",
        "the fields of simulation ., step . are not",
        "alter nothing",
    ),
    (buffers.NeverRemoves, "what is drawn", "more than once, though", "Remove from `order`"),
    (buffers.OverwritesUnseen, "what is drawn", "were never drawn", "Overwrite in `place` only"),
    (buffers.Stalls, "what is drawn", "put and get would wait for ever", "`room` or `ready`"),
    (buffers.IgnoresDiscard, "a simulation again", "samples of it are drawn", "in `discard`"),
    (buffers.OwnRandom, "same seed, same draws", "different batches", r"`self\.random` alone"),
    (buffers.HiddenState, "stopped and resumed", "draws other batches", "Add to `state`"),
    (buffers.UnsavedLock, "stopped and resumed", "cannot be saved", "Return arrays"),
    (buffers.IgnoresClose, "the end", "get still waits after close", "Leave waiting"),
    (buffers.FailsAtTheEnd, "the end", "raised OSError: nothing was put", ""),
]


@pytest.mark.parametrize(("kind", "check", "measured", "advice"), BROKEN)
def test_what_is_broken_is_found_and_the_remedy_told(
    kind: type[Surrogate | Buffer], check: str, measured: str, advice: str
) -> None:
    assert_told(run_check(kind, {}, check), check, measured, advice)


def test_the_helpers_for_tests_raise_with_the_table() -> None:
    with pytest.raises(AssertionError, match=r"(?s)buffer Twice: .*FAIL .*twice in a batch"):
        check_buffer(buffers.Twice, limit=LIMIT)
    with pytest.raises(ValueError, match="Heat is not a subclass of Surrogate"):
        check_surrogate(Heat)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is not a subclass of Buffer"):
        check_buffer(object())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="grid_size"):
        check_solver(Heat, grid_size=-1)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "heet",
            {},
            "heet is not known: it must be one of .*heat, .*mlp, .*reservoir, or an import",
        ),
        ("fifo", {"capacity": 3}, "capacity: a buffer is checked with .* no settings"),
        ("mlp", {"hiden": [3]}, "hiden is not a setting.*did you mean hidden"),
        ("pathlib:Path", {}, "Path is neither a Solver nor a Surrogate nor a Buffer"),
        ("pathlib:Nothing", {}, "pathlib has no class Nothing"),
        ("no_such_module:Mine", {}, "importing no_such_module failed with ModuleNotFoundError"),
    ],
)
def test_what_cannot_be_checked_is_refused(
    name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        check_named(name, settings, LIMIT)


def test_an_interrupt_ends_the_command_whatever_the_check_computes(tmp_path: Path) -> None:
    with subprocess.Popen(
        [MILLSTREAM, "check", "broken_surrogates:NeverEnds", "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=with_support(),
    ) as process:
        until((tmp_path / "begun").exists, process)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert the_object(output) == {"error": "interrupted"}
    assert errors.splitlines()[-1] == "millstream: interrupted"
