"""A wrong study is refused in one sentence that names the key, the value and what is allowed."""

import copy
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from commands import once
from numpy.typing import NDArray
from places import QUICKSTART
from typing_extensions import TypedDict

from framework.errors import StudyError
from framework.study.case import Case
from framework.study.component import SOLVER, Component, factory
from framework.study.study import Study
from framework.training.surrogate import make_surrogate
from solvers.base import Solver
from solvers.heat import Heat

VALUES: dict[str, Any] = yaml.safe_load(QUICKSTART.read_text())


def scalar_numbers(values: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in values.items():
        if isinstance(value, dict):
            keys += scalar_numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            keys.append(prefix + key)
    return keys


def refusal(*overrides: str) -> str:
    with pytest.raises(StudyError) as caught:
        make_surrogate(Case(Study.load(QUICKSTART, overrides), QUICKSTART))
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{QUICKSTART}: ")


@pytest.mark.parametrize("key", scalar_numbers(VALUES))
@pytest.mark.parametrize("value", ["-1", "-0.5", ".nan", "nan", ".inf", "a lot", "null"])
def test_no_number_of_the_quickstart_may_be_negative_or_not_a_number(key: str, value: str) -> None:
    assert key in refusal(f"{key}={value}")


def test_the_quickstart_has_numbers_in_every_section_that_has_any() -> None:
    sections = {key.partition(".")[0] for key in scalar_numbers(VALUES)}
    assert sections == set(VALUES) - {"name", "store"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.batchsize=5"], "training.batchsize is not a setting: training has batch_size,"),
        (["solver.size=5"], "solver.size is not a setting: solver has grid_size, stored_steps,"),
        (["surrogate.depth=5"], "surrogate.depth is not a setting: surrogate has mode, modes,"),
        (["extra.key=1"], "extra is not a setting: a study has name, seed, solver,"),
        (["training.batch_size=0"], "training.batch_size is 0: input should be greater than 0"),
        (["training.optimiser=lion"], "training.optimiser is 'lion': input should be 'adam',"),
        (["solver.name=wave"], "solver.name is wave: it must be one of burgers, darcy"),
        (["surrogate.name=mlp:Mlp"], "surrogate.name is mlp:Mlp: importing mlp failed with Mod"),
        (["solver.name=solvers.heat:Cold"], "solver.name is solvers.heat:Cold: solvers.heat has "),
        (["solver.name=surrogates.mlp:Mlp"], "that is not a subclass of Solver"),
        (["surrogate.modes=65"], "modes is 65, but a grid of (64, 64) has at most 64 along its"),
        (
            ["surrogate={name: unet, levels: 7}"],
            "levels is 7, but a grid of (64, 64) can be halved 6",
        ),
        (["design.bounds.initial=[500, 100]"], "bounds of initial are [500.0, 100.0]"),
        (["design.bounds.initial=[-5, 100]"], "lower bound of initial is -5.0 K: it must be at l"),
        (["design.bounds.initial=[100, .inf]"], "design.bounds.initial.1 is inf"),
        (
            ["design.bounds.middle=[1, 2]"],
            "design.bounds: middle is not a parameter of this sol",
        ),
        (["design.sampler=grid"], "design.sampler is 'grid': input should be 'monte_carlo'"),
        (["training.stop=never"], "training.stop: must be drained, or one limit such as {steps:"),
        (["training.stop.steps=5", "training.stop.samples=5"], "training.stop: give only one of"),
        (["training.precision=float64"], "surrogate fno can be trained in float32"),
        (["buffer.replay=[2, 1]"], "buffer"),
        (["buffer.kind=fifo"], "buffer"),
        (["buffer.watermark=1500"], "buffer"),
        (["name=a/b"], "name is 'a/b'"),
    ],
)
def test_refusals_say_what_is_allowed(overrides: list[str], message: str) -> None:
    assert message in refusal(*overrides)


def test_bounds_that_the_solvers_step_cannot_follow_are_refused() -> None:
    burgers = "solver={name: burgers, points: 64, stored_steps: 6, substeps: 9}"
    surrogate = "surrogate={name: mlp, hidden: [8]}"
    message = refusal(burgers, surrogate, "design.bounds={amplitude: [0.2, 5.0]}")
    assert "solver, within design.bounds: substeps is 9: its time steps of 0.0222 wou" in message
    message = refusal(burgers.replace("9", "1"), surrogate, "design.bounds={}")
    assert "solver: substeps is 1: " in message
    Study.load(
        QUICKSTART, [burgers.replace("9", "1"), surrogate, "design.bounds={amplitude: [0, 0.05]}"]
    )


@pytest.mark.parametrize(
    ("surrogate", "message"),
    [
        (
            "pushforward: true",
            "3 consecutive ones: let the solver store more, or set surrogate.push",
        ),
        (
            "bundle: 5",
            "6 consecutive ones: let the solver store more, or lower surrogate.bundle, wh",
        ),
        (
            "bundle: 5, pushforward: true",
            "which is 5, or set surrogate.pushforward to false, which",
        ),
    ],
)
def test_a_window_longer_than_a_simulation_is_refused(surrogate: str, message: str) -> None:
    whole = f"surrogate={{name: message_passing, mode: autoregressive, {surrogate}}}"
    assert message in refusal(whole, "solver.stored_steps=2")


def test_every_mistake_is_named_at_once() -> None:
    message = refusal("training.batch_size=-3", "seed=-1")
    assert "training.batch_size is -3" in message
    assert "seed is -1" in message


@pytest.mark.parametrize("override", ["training.batch_size", "=5", "training.=5", ".x=5"])
def test_overrides_of_another_form_are_refused(override: str) -> None:
    assert f"{override} is not of the form section.key=value" in refusal(override)


def test_overrides_are_read_as_yaml() -> None:
    study = Study.load(
        QUICKSTART,
        [
            "training.learning_rate=1e-4",
            "training.stop.steps=7",
            "design.bounds.left=[150, 160]",
            "surrogate={name: mlp, hidden: [8, 9]}",
        ],
    )
    assert study.training.learning_rate == 1e-4
    assert study.training.stop.steps == 7
    assert study.design.bounds["left"] == (150.0, 160.0)
    assert [layer.weight.shape[0] for layer in Case(study).make_surrogate().layers[::2]] == [
        8,
        9,
        64 * 64,
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", "is not YAML: while parsing"),
        ("- 1\n- 2", "is not a study: it has to hold sections"),
        ("", "is not a study"),
        ("name: x", "solver is missing; design is missing"),
    ],
)
def test_files_that_are_not_studies_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(StudyError, match=re.escape(message)):
        Study.load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="cannot be read: No such file"):
        Study.load(tmp_path / "study.yaml")
    with pytest.raises(StudyError, match="cannot be read: Is a directory"):
        Study.load(tmp_path)


def test_a_saved_study_is_the_same_study(tmp_path: Path) -> None:
    study = Study.load(QUICKSTART, ["training.stop.seconds=5", "solver.substeps=2"])
    study.save(tmp_path / "study.yaml")
    assert Study.load(tmp_path / "study.yaml") == study


def test_a_study_can_be_written_in_python() -> None:
    values = copy.deepcopy(VALUES)
    assert Study(**values) == Study.load(QUICKSTART)


def test_the_problem_is_known_before_the_first_simulation() -> None:
    problem = Case(Study.load(QUICKSTART, ["design.bounds.left=[150, 160]"])).problem
    assert problem.names == ("initial", "left", "right", "bottom", "top")
    assert problem.low == (100, 150, 100, 100, 100)
    assert problem.times == (0.0, 0.1)
    assert math.isclose(problem.steps[0], 0.1 / 49)
    assert math.isclose(problem.steps[1], 0.1 / 49)
    assert problem.grid == (64, 64)
    assert np.shape(problem.static) == (0, 64, 64)


def test_the_readme_explains_the_quickstart_as_it_is() -> None:
    readme = (QUICKSTART.parent.parent / "README.md").read_text()
    assert f"```yaml\n{QUICKSTART.read_text().rstrip()}\n```" in readme


class Place(TypedDict):
    x: float


class Single(Solver):
    """Heat without `solve_batch`."""

    heat = Heat(8, stored_steps=5)
    parameters, fields, grid, stored_steps = heat.parameters, heat.fields, heat.grid, 5

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.heat.times(parameters)

    def solve(self, parameters: NDArray[np.float64], seed: int) -> Iterator[NDArray[np.float32]]:
        return self.heat.solve(parameters, seed)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ensemble.gpus_per_actor=0.5", "ensemble.gpus_per_actor is 0.5, but the solver test_stu"),
        ("ensemble.group_size=2", "ensemble.group_size is 2, but the solver test_study:Single"),
    ],
)
def test_what_asks_for_batches_is_refused_of_another_solver(override: str, message: str) -> None:
    single = ["solver={name: 'test_study:Single'}", "surrogate={name: mlp, hidden: [8]}"]
    assert message in refusal(*single, *once("ensemble.group_size=1", override))
    assert Study.load(QUICKSTART, ["ensemble.gpus_per_actor=0.5"]).ensemble.gpus_per_actor == 0.5
    assert "ensemble.gpus_per_actor is 2" in refusal("ensemble.gpus_per_actor=2")


class Placed(Heat):
    """A solver with a setting that has parts and is no model of pydantic's."""

    def __init__(self, place: Place) -> None:
        super().__init__()


def test_an_unknown_part_of_a_setting_is_refused() -> None:
    settings = {"name": f"{__name__}:Placed", "place": {"x": 1, "y": 2}}
    with pytest.raises(ValueError, match=r"^solver\.place\.y is not a setting$"):
        factory(Component.model_validate(settings), SOLVER)
