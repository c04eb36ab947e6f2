"""Every key counts once, in a file and on the command line; equal numbers are the same study."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import in_process
from hypothesis import given
from hypothesis import strategies as st
from places import CONFIGS, QUICKSTART

from framework.errors import StudyError
from framework.study.case import Case
from framework.study.identity import identity, study_hash
from framework.study.reading import read_yaml, write_yaml
from framework.study.study import Study

SMALLEST = """
name: one
solver: {name: heat, grid_size: 8, stored_steps: 4}
design: {simulations: 4}
buffer: {capacity: 40}
surrogate: {name: mlp, hidden: [4]}
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return in_process(directory, *arguments)


REPEATED = [
    ("seed: 1\nseed: 2", "seed is given twice, in lines 7 and 8: leave out one"),
    ("solver: {name: darcy}", "solver is given twice, in lines 3 and 7: leave out one"),
    ("training:\n  epochs: 1\n  epochs: 1", "training.epochs is given twice, in lines 8 and 9"),
    ("training: {stop: {steps: 1, steps: 2}}", "training.stop.steps is given twice, in line 7"),
    ("'seed': 1\nseed: 1", "seed is given twice, in lines 7 and 8"),
    (
        "training: &a {}\nstore:\n  <<: *a\n  <<: *a",
        "store.<< is given twice, in lines 9 and 10: m",
    ),
    ("training: &a [*a]", "training.0 holds itself: its alias"),
    ("training: &a {stop: *a}", "training.stop holds itself"),
    ("training: &a {<<: *a}", "training.<< holds itself"),
]


@pytest.mark.parametrize("command", ["train", "simulate", "compare"])
@pytest.mark.parametrize(("added", "message"), REPEATED)
def test_a_file_that_contradicts_itself_is_refused(
    directory: Path, command: str, added: str, message: str
) -> None:
    (directory / "study.yaml").write_text(SMALLEST + added)
    done = ran(directory, command, "study.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith(f"millstream: study.yaml: {message}")


def test_a_run_whose_study_was_changed_so_is_refused(directory: Path) -> None:
    run = directory / "runs" / "one"
    run.mkdir(parents=True)
    (run / "study.yaml").write_text(SMALLEST + "seed: 1\nseed: 2")
    done = ran(directory, "resume", "runs/one")
    assert done.returncode == 2
    assert "seed is given twice" in done.stderr


def test_merge_keys_may_be_overridden_and_anchors_used_again(directory: Path) -> None:
    text = SMALLEST.replace("{name: heat,", "&heat {name: heat,") + (
        "training: &t {batch_size: 5, epochs: 1}\ncheckpoint: {every_seconds: &n 7, keep: *n}\n"
    )
    merged = text.replace("batch_size: 5", "<<: {batch_size: 3, learning_rate: 0.5}, batch_size: 5")
    (directory / "study.yaml").write_text(merged)
    study = Study.load("study.yaml")
    assert (study.training.batch_size, study.training.learning_rate) == (5, 0.5)
    assert study.checkpoint.keep == 7
    both = "a: &a {x: 1}\nb: &b {y: 2, x: 3}\nc: {<<: [*a, *b], y: 4}\nd: {<<: *a, z: *b}"
    assert read_yaml(both) == yaml.safe_load(both)


CONTRADICTIONS = [
    (["seed=1", "seed=2"], "seed is given twice, by seed=1 and by seed=2: give one"),
    (["seed=1", "seed=1"], "seed is given twice, by seed=1 and by seed=1: give one"),
    (
        ["solver.grid_size=9", "solver={name: heat}"],
        "solver.grid_size is given twice, by solver.gr",
    ),
    (
        ["solver={name: heat, grid_size: 9}", "solver.grid_size=8"],
        "solver.grid_size is given twice",
    ),
    (
        ["training.stop=drained", "training.stop.steps=5"],
        "training.stop.steps is given twice, by t",
    ),
    (
        ["training={stop: {steps: 3}}", "training.stop.steps=5"],
        "training.stop.steps is given twice",
    ),
    (["training={stop: {steps: 3, steps: 4}}"], "is not YAML with each key once"),
]


@pytest.mark.parametrize("command", ["train", "simulate", "compare"])
@pytest.mark.parametrize(("overrides", "message"), CONTRADICTIONS)
def test_overrides_of_which_only_one_could_count_are_refused(
    directory: Path, command: str, overrides: list[str], message: str
) -> None:
    done = ran(directory, command, str(QUICKSTART), *overrides)
    assert done.returncode == 2
    assert message in done.stderr
    with pytest.raises(StudyError, match=r"twice|each key once"):
        Study.load(QUICKSTART, overrides)


def test_a_section_can_be_followed_by_keys_that_it_does_not_have() -> None:
    overrides = ["surrogate={name: mlp}", "surrogate.mode=autoregressive", "surrogate.hidden=[4]"]
    surrogate = Study.load(QUICKSTART, [*overrides, "training.stop.steps=5"]).surrogate
    assert surrogate.model_extra == {"mode": "autoregressive", "hidden": [4]}


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "runs/one", "a=1", "a=2"],
        ["check", "heat", "grid_size=8", "grid_size=9"],
        ["invert", "stores/one.zarr", "--weights", "t1c=1,t1c=2"],
        ["invert", "stores/one.zarr", "--mask", "t1c=a.nii", "--mask", "t1c=b.nii"],
        ["compare", "study.yaml", "--seeds", "3", "--seeds", "4"],
        ["predict", "runs/one", "--out", "a.npz", "--out", "b.npz"],
        ["index", "stores/one.zarr", "--thresholds", "t1c=0.5", "--thresholds", "t1c=0.6"],
    ],
)
def test_what_a_command_is_given_twice_is_refused(directory: Path, arguments: list[str]) -> None:
    done = ran(directory, *arguments)
    assert done.returncode == 2
    assert " given twice" in done.stderr or " is given 2 times: give it once" in done.stderr


def study(**changes: str) -> Study:
    values = {"final_time": "0.2", "rate": "0.2", "hidden": "4", "substeps": "4", **changes}
    return Study.of(
        read_yaml(
            f"""
name: one
solver: {{name: heat, grid_size: 8, final_time: {values["final_time"]},
  substeps: {values["substeps"]}}}
design: {{simulations: 4}}
buffer: {{capacity: 40}}
surrogate: {{name: mlp, hidden: [{values["hidden"]}]}}
training: {{learning_rate: {values["rate"]}}}
"""
        )
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"final_time": "0.2"}, {"final_time": "2e-1"}),
        ({"final_time": "0.2"}, {"final_time": "'2e-1'"}),
        ({"final_time": "0.2"}, {"final_time": "+.2"}),
        ({"final_time": "1"}, {"final_time": "1.0"}),
        ({"final_time": "1"}, {"final_time": "1e0"}),
        ({"rate": "0.2"}, {"rate": "2e-1"}),
        ({"rate": "1"}, {"rate": "1.0"}),
        ({"hidden": "4"}, {"hidden": "4.0"}),
        ({"substeps": "10"}, {"substeps": "1e1"}),
    ],
)
def test_a_number_written_otherwise_is_the_same_study(
    one: dict[str, str], other: dict[str, str]
) -> None:
    assert study(**one).hash() == study(**other).hash() != study(rate="0.3").hash()
    hashes = {study_hash(identity(Case(study(**values)))) for values in (one, other)}
    assert len(hashes) == 1


def test_a_number_of_a_solver_of_ones_own_is_the_same_too(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "from solvers.heat import Heat\n"
        "class Free(Heat):\n"
        "    def __init__(self, length=1, final_time: float = 1.0) -> None:\n"
        "        super().__init__(8, 4, float(final_time))\n"
    )
    (directory / "free_settings.py").write_text(text)
    monkeypatch.syspath_prepend(str(directory))
    base = study().model_dump(mode="json")
    for key in ("length", "final_time"):
        given = [{"name": "free_settings:Free", key: value} for value in (2, 2.0)]
        studies = [Study.of({**base, "solver": solver}) for solver in given]
        assert len({one.hash() for one in studies}) == 1
        assert len({study_hash(identity(Case(one))) for one in studies}) == 1


# Those of programs need the program; their lists of times are written as 0, and kept as 0.0.
OURS = sorted(path for path in CONFIGS.glob("**/*.yaml") if "external" not in path.stem)


@pytest.mark.parametrize("config", OURS, ids=lambda path: path.stem)
def test_studies_written_the_plain_way_keep_their_hash(config: Path) -> None:
    one = Study.load(config)
    assert one.hash() == one.hash_as_written()


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text("0123456789eE+-._:xyno~ ", max_size=8)
    | st.from_regex(r"[-+]?[0-9]{1,3}(\.[0-9]{0,2})?[eE][-+]?[0-9]{1,3}", fullmatch=True),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab1e", max_size=4), inner),
    max_leaves=8,
)


@given(PLAIN)
def test_what_is_written_is_read_as_the_same(values: Any) -> None:
    assert read_yaml(write_yaml(values)) == values


@given(
    st.from_regex(
        r"[-+]?([0-9]{1,3}(\.[0-9]{0,3})?|\.[0-9]{1,3})[eE][-+]?[0-9]{1,2}", fullmatch=True
    )
)
def test_a_number_with_an_exponent_is_a_number(text: str) -> None:
    assert read_yaml(text) == float(text)
