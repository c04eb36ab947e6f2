"""A surrogate that cannot be trained is refused in one sentence, before anything starts."""

import sys
from pathlib import Path

import pytest
import torch
from commands import SMALL, in_process, once
from models import STUDY
from places import QUICKSTART

from framework.errors import StudyError
from framework.study.case import Case
from framework.study.study import Study
from framework.training.surrogate import make_surrogate, tell_unlearnable

SURROGATES = '''
import torch
from surrogates.base import Surrogate
from surrogates.mlp import Mlp
from surrogates.message_passing import MessagePassing

class Small(Mlp):
    """A sound one."""
    def __init__(self, problem, mode="direct", width: int = 8) -> None:
        super().__init__(problem, mode, (width,))

class Flat(Small):
    def forward(self, conditions, state):
        return super().forward(conditions, state).flatten(1)

class ChannelsLast(Small):
    """Has as many numbers as it should, in another order."""
    def forward(self, conditions, state):
        return super().forward(conditions, state).movedim(1, -1)

class Pair(Small):
    def forward(self, conditions, state):
        return super().forward(conditions, state), None

class Complex(Small):
    def forward(self, conditions, state):
        return super().forward(conditions, state) * 1j

class Detached(Small):
    def forward(self, conditions, state):
        return super().forward(conditions, state).detach()

class Unregistered(Surrogate):
    def __init__(self, problem, mode="direct") -> None:
        super().__init__(problem, mode)
        self.layers = [torch.nn.Linear(self.conditions, 256)]
    def forward(self, conditions, state):
        return self.layers[0](conditions).view(len(conditions), 1, 16, 16)

class Forgets(Surrogate):
    def __init__(self, problem, mode="direct") -> None:
        torch.nn.Module.__init__(self)
    def forward(self, conditions, state):
        return conditions

class Breaks(Small):
    def forward(self, conditions, state):
        return super().forward(conditions[:, :-1], state)

class BreaksBackward(Small):
    """Changes in place what its gradient needs."""
    def forward(self, conditions, state):
        output = super().forward(conditions, state).exp()
        output += 1
        return output

class BreaksInRollout(Small):
    def rollout(self, parameters, times, initial):
        raise IndexError("no such step")

class ShortRollout(Small):
    def rollout(self, parameters, times, initial):
        yield initial[0]

class OneLoss(Small):
    def losses(self, parameters, times, fields):
        return super().losses(parameters, times, fields).mean()

class BreaksWhenPushed(MessagePassing):
    """Whose second bundle alone goes wrong, by chance every other optimiser step."""
    def __init__(self, problem, mode="autoregressive", bundle: int = 2) -> None:
        super().__init__(problem, mode, bundle, True, hidden=4, layers=1)
    def _pushed(self, parameters, times, current):
        raise IndexError("pushed too far")

class Normalises(Small):
    """Keeps statistics of the batches that it has seen, and draws at random."""
    def __init__(self, problem, mode="direct") -> None:
        super().__init__(problem, mode)
        self.norm = torch.nn.BatchNorm1d(self.conditions)
        self.drop = torch.nn.Dropout(0.5)
    def forward(self, conditions, state):
        return super().forward(self.drop(self.norm(conditions)), state)
'''


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the surrogates of a user."""
    (tmp_path / "networks_of_mine.py").write_text(SURROGATES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "networks_of_mine", raising=False)
    return tmp_path


WRONG = [
    ("Flat", "forward returns [2, 256] for a batch of 2, but it has to return [2, 1, 16, 16]"),
    ("ChannelsLast", "forward returns [2, 16, 16, 1] for a batch of 2, but it has to return [2, 1"),
    ("Pair", "forward returns a tuple, not a tensor"),
    ("Complex", "forward returns complex64, but fields are real numbers: return its real part"),
    ("Detached", "no gradient reaches its parameters: use them in forward"),
    ("Unregistered", "there is nothing to train: register its layers as attributes"),
    ("Forgets", "its constructor does not call super().__init__(problem, mode)"),
    ("Breaks", "a pass of two samples through it failed with RuntimeError: mat1 and mat2 shapes"),
    (
        "BreaksBackward",
        "a pass of two samples through it failed with RuntimeError: one of the vari",
    ),
    ("BreaksInRollout", "a pass of two samples through it failed with IndexError: no such step"),
    ("ShortRollout", "its rollout yields 1 predictions of shape [(1, 16, 16)], but it has to"),
    ("OneLoss", "losses returns [] for a batch of 2, but it has to return [2]"),
]


@pytest.mark.parametrize(("name", "message"), WRONG)
def test_a_surrogate_that_cannot_be_trained_is_refused(
    directory: Path, name: str, message: str
) -> None:
    for mode in ("direct", "autoregressive"):
        surrogate = f"surrogate={{name: networks_of_mine:{name}, mode: {mode}}}"
        ran = in_process(directory, "train", str(QUICKSTART), *once(*SMALL, surrogate))
        assert ran.returncode == 2, ran.stderr
        _checking, sentence = ran.stderr.splitlines()
        assert sentence.startswith(f"millstream: {QUICKSTART}: surrogate: {message}"), sentence
        assert not (directory / "runs").exists()


def test_what_goes_wrong_every_other_step_by_chance_is_found(directory: Path) -> None:
    for command in ("train", "simulate", "compare"):
        surrogate = "surrogate={name: networks_of_mine:BreaksWhenPushed}"
        arguments = once(*SMALL, surrogate, "training.stop.steps=50")
        ran = in_process(directory, command, str(QUICKSTART), *arguments)
        assert ran.returncode == 2, ran.stderr
        assert "failed with IndexError: pushed too far" in ran.stderr.splitlines()[-1]


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
@pytest.mark.usefixtures("directory")
def test_the_trial_leaves_no_trace(precision: str) -> None:
    case = Case(
        Study.of(
            {
                **STUDY,
                "surrogate": {"name": "networks_of_mine:Normalises"},
                "training": {"precision": precision},
            }
        )
    )
    one = make_surrogate(case)
    drawn = torch.rand(3)
    other = make_surrogate(case)
    assert torch.equal(torch.rand(3), drawn)
    assert one.training
    assert all(weight.grad is None for weight in one.parameters())
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert int(first["norm.num_batches_tracked"]) == 0
    assert one.field_mean.dtype == torch.float32


def test_a_window_longer_than_the_simulation_is_refused_before_it_is_tried() -> None:
    surrogate = {"name": "message_passing", "mode": "autoregressive", "bundle": 9}
    with pytest.raises(StudyError, match="stores 5 steps, but the surrogate message_passing learn"):
        make_surrogate(Case(Study.of({**STUDY, "surrogate": surrogate})))


@pytest.mark.parametrize(
    ("solver", "mode", "warned"),
    [
        ("lorenz", "direct", True),
        ("lorenz", "autoregressive", False),
        ("heat", "direct", False),
    ],
)
def test_a_direct_surrogate_of_what_the_seed_decides_is_warned_of(
    solver: str, mode: str, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    surrogate = {"name": "mlp", "mode": mode, "hidden": [4]}
    study = Study.of({**STUDY, "solver": {"name": solver}, "surrogate": surrogate})
    case = Case(study)
    tell_unlearnable(case, make_surrogate(case))
    said = capsys.readouterr().err
    expected = "millstream: surrogate.mode is direct, but the fields of the solver lorenz also"
    assert said.startswith(expected) if warned else said == ""
