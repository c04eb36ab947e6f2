"""A trained surrogate is asked for many parameters, at any times, where its solver is not."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
import zarr
from commands import in_process, the_object
from numpy.typing import NDArray
from waiting import LIMIT

import millstream
from framework.run import prediction
from framework.study.case import Case
from framework.study.study import Study
from framework.training.export import DESCRIPTION
from framework.training.model import save_model

# A solver of one's own: two fields, a static one, stored times by a parameter or by none.
WAVE = '''
import numpy as np
from solvers.base import *

class Wave(Solver):
    """A standing wave over a bed."""
    order = Order(2, 2)
    parameters = ParameterSpace(
        Parameter("speed", 0.5, 2, "m/s", "log_uniform"), Parameter("depth", 1, 9, "m", minimum=0)
    )
    fields = (Field("height", "m"), Field("flow", "m/s"))
    time_units = "s"
    stored_steps = 5

    def __init__(self, own_times: bool = False) -> None:
        self.grid = Grid((8, 6), (0.5, 0.25), "m")
        self.static_fields = {"bed": np.linspace(0, 1, 48, dtype=np.float32).reshape(8, 6)}
        self.own_times = own_times

    def times(self, parameters):
        return np.linspace(0, 1, 5) * (parameters[0] if self.own_times else 1)

    def solve(self, parameters, seed):
        for t in self.times(parameters):
            yield np.full((2, 8, 6), parameters[0] * np.cos(t), dtype=np.float32)
'''
SPEEDS, DEPTHS = np.array([0.5, 1.0, 2.0, 1.5]), np.array([1.0, 2.0, 9.0, 4.0])
MANY: dict[str, Any] = {"speed": SPEEDS, "depth": DEPTHS}
STATE = np.arange(96.0, dtype=np.float32).reshape(2, 8, 6) / 50
LEARNT = torch.ones(1, requires_grad=True)  # no array, unless detached
NAMES = ("direct", "autoregressive", "own_times")


def save(name: str, directory: Path) -> None:
    """Save a model with weights and normalisation that no new one has."""
    mode = "autoregressive" if name == "autoregressive" else "direct"
    study = Study.of(
        {
            "name": name,
            "solver": {"name": "standing:Wave", "own_times": name == "own_times"},
            "design": {"simulations": 8},
            "buffer": {"capacity": 100},
            "surrogate": {"name": "unet", "hidden_channels": 4, "mode": mode},
        }
    )
    case = Case(study)
    torch.manual_seed(1)
    surrogate = case.make_surrogate()
    ones = torch.ones(2)
    surrogate.normalise_fields(ones, ones / 2, ones / 9)
    save_model(surrogate, case, directory / name, {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with models, whose solver is gone."""
    directory = tmp_path_factory.mktemp("prediction")
    (directory / "standing.py").write_text(WAVE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(directory)
        for name in NAMES:
            save(name, directory)
    sys.modules.pop("standing")
    (directory / "standing.py").unlink()
    return directory


def stacked(fields: xarray.Dataset) -> NDArray[Any]:
    """The fields [..., C, *grid]."""
    return np.moveaxis(fields.to_array().values, 0, -3)


def rollout(model: Any, times: NDArray[Any], rows: slice = slice(None)) -> NDArray[Any]:
    """What the network itself says, one simulation and one step after the other."""
    network, found = model.surrogate, []
    for row in np.stack([SPEEDS, DEPTHS], 1)[rows]:
        arguments = torch.tensor(row[None]), torch.tensor(times[None]), torch.tensor(STATE[None])
        with torch.no_grad():
            found.append([step[0].numpy() for step in network.rollout(*arguments)])
    return np.array(found)


def test_many_are_predicted_with_coordinates_and_units_without_the_solver(folder: Path) -> None:
    model = millstream.load(folder / "direct")
    fields = model.predict(MANY)
    assert fields.height.dims == ("simulation", "time", "axis_0", "axis_1")
    assert dict(fields.sizes) == {
        "simulation": 4,
        "time": 5,
        "axis_0": 8,
        "axis_1": 6,
        "parameter": 2,
    }
    units = {name: fields[name].attrs["units"] for name in ("height", "flow", "t", "axis_1")}
    assert units == {"height": "m", "flow": "m/s", "t": "s", "axis_1": "m"}
    assert fields.parameters.attrs["units"] == {"speed": "m/s", "depth": "m"}
    assert fields.axis_1.values.tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25]
    assert fields.time.values.tolist() == [0, 1, 2, 3, 4]
    assert fields.parameters.sel(parameter="depth").values.tolist() == DEPTHS.tolist()
    times = np.linspace(0, 1, 5)
    np.testing.assert_allclose(stacked(fields), rollout(model, times), rtol=1e-5, atol=1e-6)
    one = model.predict({"speed": 1.0, "depth": 2})
    assert one.height.dims == ("time", "axis_0", "axis_1")
    np.testing.assert_allclose(stacked(one), stacked(fields)[1], rtol=1e-5, atol=1e-6)
    broadcast = model.predict({"speed": 1.0, "depth": [2, 9]})
    assert broadcast.parameters.values.tolist() == [[1, 2], [1, 9]]
    any_times = model.predict(MANY, times=[0.1, 0.77])
    np.testing.assert_allclose(stacked(any_times), rollout(model, np.array([0.1, 0.77])), rtol=1e-5)
    assert "time" not in any_times.coords
    assert any_times.t.values.tolist() == [0.1, 0.77]


def test_a_process_without_the_solver_and_without_ray_and_mlflow_predicts(folder: Path) -> None:
    code = """
import sys, warnings
for name in ("standing", "ray", "mlflow"):
    sys.modules[name] = None
import millstream
print(float(millstream.load("direct").predict({"speed": 1, "depth": 2}).height.sum()))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=LIMIT
    )
    assert ran.returncode == 0, ran.stderr
    fields = millstream.load(folder / "direct").predict({"speed": 1, "depth": 2})
    assert float(ran.stdout) == pytest.approx(float(fields.height.sum()), rel=1e-5)


def test_a_rollout_goes_through_the_times_between(folder: Path) -> None:
    model = millstream.load(folder / "autoregressive")
    whole = rollout(model, np.linspace(0, 1, 5))
    some = model.predict(MANY, times=[0, 0.75], initial=STATE)
    np.testing.assert_allclose(stacked(some), whole[:, [0, 3]], rtol=1e-5, atol=1e-6)
    assert some.time.values.tolist() == [0, 3]
    # From the state at a later time, given as a dataset and for each simulation.
    later = model.predict(MANY, initial=STATE, times=[0.5]).isel(time=0)
    middle = model.predict(MANY, initial=STATE).isel(time=2)
    assert set(later.height.values.ravel().round(5)) == set(STATE[0].ravel().round(5))
    end = model.predict(MANY, times=[0.5, 1.0], initial=middle)
    np.testing.assert_allclose(stacked(end)[:, 1], whole[:, 4], rtol=1e-5, atol=1e-6)
    with pytest.raises(
        millstream.StudyError, match="the first fields of the solver standing:Wave: "
    ):
        model.predict(MANY)
    with pytest.raises(millstream.StudyError, match=r"times begins at 0.1, but a rollout begins"):
        millstream.load(folder / "autoregressive").predict(MANY, times=[0.1, 0.35])
    shifted = model.predict(MANY, times=[0.1, 0.35], initial=STATE)  # steps as trained with
    assert shifted.t.values.tolist() == [0.1, 0.35]


def test_parts_that_fit_into_memory_are_the_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("direct", "autoregressive"):
        model = millstream.load(folder / name)
        state = None if name == "direct" else np.stack([STATE * factor for factor in range(4)])
        whole = model.predict(MANY, initial=state)
        monkeypatch.setattr(prediction, "POINTS_TOGETHER", 3 * 48)
        xarray.testing.assert_allclose(model.predict(MANY, initial=state), whole, atol=1e-5)
        monkeypatch.undo()


def test_gradients_flow_to_parameters_times_and_state(folder: Path) -> None:
    for name in ("direct", "autoregressive"):
        module = millstream.load(folder / name).torch().double()
        parameters = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
        times = torch.tensor([0.0, 0.25, 0.5], dtype=torch.float64)
        state = torch.tensor(STATE[None], dtype=torch.float64, requires_grad=True)
        initial = None if name == "direct" else state
        assert torch.autograd.gradcheck(
            lambda p, m=module, t=times, s=initial: m(p, t, s).mean((-1, -2)), (parameters,)
        )
        if initial is not None:
            module(parameters, times, state)[:, -1].sum().backward()
            assert state.grad is not None
            assert state.grad.abs().max() > 0
    with pytest.raises(ValueError, match="an autoregressive surrogate needs initial"):
        module(parameters, times)


def test_static_fields_are_replaced_in_their_units(folder: Path) -> None:
    model = millstream.load(folder / "direct")
    bed = model.solver.static_fields["bed"]
    as_trained = model.predict(MANY)
    xarray.testing.assert_identical(model.predict(MANY, static={"bed": bed}), as_trained)
    other = model.predict(MANY, static={"bed": bed[::-1]})
    assert abs(other.height - as_trained.height).max() > 1e-4
    xarray.testing.assert_identical(model.predict(MANY), as_trained)  # nothing has stayed changed


def test_times_that_depend_on_the_parameters_are_given(folder: Path) -> None:
    model = millstream.load(folder / "own_times")
    assert model.predict(MANY, times=[0.0, 0.5]).sizes["time"] == 2
    with pytest.raises(
        millstream.StudyError, match=r"the stored times of the solver standing:Wave: .*"
    ):
        model.predict(MANY)
    (folder / "standing.py").write_text(WAVE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        importlib.invalidate_caches()
        fields = millstream.load(folder / "own_times").predict(MANY)
    (folder / "standing.py").unlink()
    sys.modules.pop("standing")
    assert fields.t.dims == ("simulation", "time")
    np.testing.assert_allclose(fields.t[:, -1], SPEEDS)


@pytest.mark.parametrize(
    ("name", "parameters", "further", "message"),
    [
        ("direct", {"speed": 1}, {}, "the parameter depth is missing: give speed in"),
        ("direct", {**MANY, "dept": 1}, {}, "dept is not a parameter: .*; did you mean depth?"),
        ("direct", {**MANY, "depth": [1.0, 2]}, {}, r"numbers of values \(speed 4, depth 2\)"),
        ("direct", {**MANY, "depth": [[1.0]]}, {}, r"depth has shape \[1, 1\]: give a number, or"),
        ("direct", {**MANY, "depth": []}, {}, r"depth has shape \[0\]: give a number, or"),
        ("direct", {**MANY, "depth": "deep"}, {}, "depth is 'deep': give a number"),
        ("direct", {**MANY, "depth": [1, 2, -1, 3]}, {}, "depth is -1 in simulation 2: it has to"),
        ("direct", {"speed": 0.0, "depth": 1}, {}, "speed is 0: it has to be positive"),
        ("direct", MANY, {"times": [0.5, 0.25]}, "give one or more numbers that ascend"),
        ("direct", MANY, {"times": []}, "give one or more numbers that ascend"),
        ("direct", MANY, {"times": "late"}, "times is 'late'"),
        ("direct", {**MANY, "depth": LEARNT}, {}, "depth is tensor.*: give a number"),
        ("direct", MANY, {"times": LEARNT}, "times is tensor"),
        ("direct", MANY, {"static": {"bed": LEARNT.expand(8, 6)}}, "static fields cannot be used"),
        ("autoregressive", MANY, {"initial": LEARNT}, "fields cannot be used: .*requires grad"),
        ("direct", MANY, {"times": [0.5, 2]}, r"the time is in \[0.5, 2\]: the surrogate was trai"),
        ("direct", MANY, {"static": {"bad": STATE[0]}}, "bad is not a static field: there are bed"),
        ("direct", MANY, {"static": {"bed": STATE}}, r"bed has shape \[2, 8, 6\]: it has to be"),
        ("direct", MANY, {"static": {"bed": STATE[0] * np.nan}}, "are not all finite"),
        ("direct", MANY, {"initial": STATE}, "a surrogate in mode direct sees parameters"),
        (
            "autoregressive",
            MANY,
            {"initial": STATE, "times": [0, 0.6]},
            r"the time step is in \[0.6, 0.6\]: the surrogate was trained within \[0.25, 0.25\]",
        ),
        (
            "autoregressive",
            MANY,
            {"initial": STATE[:, :4]},
            r"shape \[2, 4, 6\], but the surrogate",
        ),
        ("autoregressive", MANY, {"initial": {"height": STATE[0]}}, "they have no flow"),
        ("autoregressive", MANY, {"initial": STATE, "seed": 1}, "initial fields and a seed are gi"),
    ],
)
def test_what_cannot_be_predicted_is_refused(
    folder: Path, name: str, parameters: dict[str, Any], further: dict[str, Any], message: str
) -> None:
    with pytest.raises(millstream.StudyError, match=message):
        millstream.load(folder / name).predict(parameters, **further)


def test_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(millstream.StudyError, match="device is cuda:99, which cannot be used: "):
        millstream.load(folder / "direct", device="cuda:99")


def test_fields_that_do_not_fit_into_memory_are_refused(folder: Path) -> None:
    model = millstream.load(folder / "direct")
    with pytest.raises(millstream.StudyError, match=r"the fields of 9999999 .* GiB of memory: ask"):
        model.predict({"speed": np.ones(9_999_999), "depth": 2}, times=np.linspace(0, 1, 999))


def test_a_table_of_parameters_becomes_a_store_of_predictions(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "POINTS_TOGETHER", 3 * 48)  # two parts
    rows = "\n".join(f"{id},{speed}, 7" for id, speed in enumerate(SPEEDS))
    (folder / "many.csv").write_text(f"simulation, speed,seed\n{rows}\n\n")
    out = folder / "many.zarr"
    for times in ("0.25,1", "0.5,0.75"):  # the second replaces the first
        arguments = ("direct", "depth=2", "--parameters", "many.csv", "--times", times)
        ran = in_process(folder, "predict", *arguments, "--out", "many.zarr", "--json")
        assert ran.returncode == 0, ran.stderr
    told = the_object(ran.stdout)
    assert (told["simulations"], told["times"], told["shape"]) == (4, 2, [4, 2, 2, 8, 6])
    assert "4/4" in ran.stderr
    expected = millstream.load(folder / "direct").predict(
        {"speed": SPEEDS, "depth": 2}, times=[0.5, 0.75]
    )
    with xarray.open_zarr(out, consolidated=False) as found:
        xarray.testing.assert_allclose(found.load(), expected, rtol=1e-5)
        assert found.height.attrs["units"] == "m"
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    ran = in_process(folder, "predict", *arguments, "--out", "many.npz")
    assert ran.returncode == 0, ran.stderr
    with np.load(folder / "many.npz") as saved:
        np.testing.assert_allclose(saved["field"], stacked(expected), rtol=1e-5)


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, [], "table.csv cannot be read: No such file"),
        ("", [], "table.csv is empty: its first line has to name the columns"),
        ("speed,depth\n", [], "table.csv has no line but the first"),
        ("pace\n1\n", ["depth=2"], "has none of the columns speed, depth"),
        ("speed\n1\n", [], "the parameter depth is missing"),
        ("speed,depth\n\n1,2\n\n1,deep\n", [], "table.csv, line 5: depth is 'deep', which is no"),
        ("speed,depth\n1,2\n1\n", [], "table.csv, line 3: there is no value of depth"),
        ("speed,depth,speed\n1,2,3\n", [], "table.csv has the column speed twice"),
        ("speed,depth\n1,2\n", ["depth=2"], "depth is given twice: in table.csv and as an arg"),
        ("speed,depth\n1,nan\n", [], "depth is nan in simulation 0: give a number"),
        ("speed\n1\n", ["depth=2", "--times", "0.1;0.2"], "--times is 0.1;0.2: it has to be num"),
        ("speed\n1\n", ["depth=2", "--times", "3"], "the time is in [3, 3]: the surrogate was"),
        ("speed\n1\n", ["depth=2", "--out", "a.csv"], "a.csv has to end in .npz or .zarr"),
        ("speed\n1\n", ["depth=2", "--out", "no/a.zarr"], "no/a.zarr cannot be written: there is"),
        ("speed\n1\n", ["depth=2", "--out", "kept.zarr"], "kept.zarr is there, and no earlier pre"),
    ],
)
def test_a_wrong_table_is_refused_and_nothing_written(
    folder: Path, content: str | None, arguments: list[str], message: str
) -> None:
    table = folder / "table.csv"
    table.unlink(missing_ok=True)
    if content is not None:
        table.write_text(content)
    (folder / "kept.zarr").mkdir(exist_ok=True)
    before = {*folder.rglob("*")}
    ran = in_process(folder, "predict", "direct", "--parameters", "table.csv", *arguments)
    assert ran.returncode == 2
    assert message in ran.stderr
    assert ran.stderr.count("\n") <= 2  # what is loaded, and what is wrong
    assert {*folder.rglob("*")} == before


def test_a_surrogate_is_exported_with_its_units(folder: Path) -> None:
    ran = in_process(folder, "export", "autoregressive", "--format", "pt2", "--json")
    assert ran.returncode == 0, ran.stderr
    told = the_object(ran.stdout)
    assert (told["out"], told["mode"]) == ("autoregressive.pt2", "autoregressive")
    extra = {DESCRIPTION: ""}
    program = torch.export.load(folder / told["out"], extra_files=extra).module()
    described = json.loads(extra[DESCRIPTION])
    assert described["parameters"][0] == {"name": "speed", "units": "m/s", "low": 0.5, "high": 2}
    assert described["fields"][1] == {"name": "flow", "units": "m/s"}
    points = torch.tensor(np.stack([SPEEDS, DEPTHS], 1), dtype=torch.float32)
    times, state = (
        torch.tensor([[0, 0.25]]).expand(4, -1),
        torch.tensor(STATE).expand(4, -1, -1, -1),
    )
    model = millstream.load(folder / "autoregressive")
    expected = stacked(model.predict(MANY, times=[0, 0.25], initial=STATE))[:, 1:]
    np.testing.assert_allclose(program(points, times, state).numpy(), expected, rtol=1e-4)


def test_what_cannot_be_exported_is_refused(folder: Path) -> None:
    zarr.create_group(folder / "store.zarr")
    for path, message in (
        ("nowhere", "nowhere is not the directory of a run"),
        ("store.zarr", "store.zarr is a store of simulations: pt2 is a format of trained surr"),
    ):
        ran = in_process(folder, "export", path, "--format", "pt2")
        assert ran.returncode == 2
        assert message in ran.stderr
    ran = in_process(folder, "export", "direct", "--format", "pt2", "--out", "no/where.pt2")
    assert (ran.returncode, (folder / "no").exists()) == (2, False)
