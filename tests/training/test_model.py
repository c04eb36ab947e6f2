"""Trained surrogates as folders: read back to the bit, on other grids, and refused when damaged."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray
import yaml
from models import STUDY, SURROGATES, outputs, trained
from safetensors.torch import load_file, save_file

from framework.errors import StudyError
from framework.run.loading import load_trained
from framework.training.model import load_model, save_model
from framework.training.weights import write_tensors
from millstream import load, predict

torch.set_num_threads(1)
POINT = {"initial": 150.0, "left": 480.0, "right": 200.0, "bottom": 300.0, "top": 120.0}
# Heat with a field that the surrogate is told: a different picture of it on every grid.
CONDUCTIVITY = '''
import numpy as np
from solvers.heat import Heat

class Inhomogeneous(Heat):
    """Heat with a conductivity."""
    def __init__(self, grid_size: int = 16, stored_steps: int = 5) -> None:
        super().__init__(grid_size, stored_steps)
        x = np.linspace(0, 1, grid_size)
        self.static_fields = {"conductivity": np.exp(np.add.outer(x, 2 * x)).astype(np.float32)}
'''


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", SURROGATES)
def test_a_loaded_surrogate_predicts_the_same_bits(kind: str, double: bool, tmp_path: Path) -> None:
    if double and kind != "mlp":
        return  # the library's spectral weights stay in single precision
    case, surrogate = trained(kind, double)
    save_model(surrogate, case, tmp_path / "model", {"relative_l2": 0.1})
    again = load_model(tmp_path / "model")
    loaded = again.surrogate
    assert again.study == case.study
    for n in (1, 2, 7):
        before, after = outputs(surrogate, n), outputs(loaded, n)
        assert before.dtype == after.dtype == (torch.float64 if double else torch.float32)
        assert torch.equal(before, after)


def test_a_folder_holds_tensors_and_json_alone(tmp_path: Path) -> None:
    case, surrogate = trained("fno", tracking={"uri": "postgresql://me:secret@host/db"})
    save_model(surrogate, case, tmp_path / "model", {"relative_l2": 0.1})
    files = {"weights.safetensors", "model.json"}
    assert {path.name for path in (tmp_path / "model").iterdir()} == files
    found = load_file(tmp_path / "model/weights.safetensors")
    kinds = {name: tensor.dtype for name, tensor in found.items()}
    assert kinds["low"] == torch.float64
    assert torch.complex64 in kinds.values()
    text = (tmp_path / "model/model.json").read_text()
    content = json.loads(text)
    assert content["extra"] == {"relative_l2": 0.1}
    assert content["study"]["solver"]["grid_size"] == 16
    assert "secret" not in text


def test_a_model_is_replaced_whole(tmp_path: Path) -> None:
    for kind in ("mlp", "fno"):
        case, surrogate = trained(kind)
        save_model(surrogate, case, tmp_path / "model", {})
    assert torch.equal(outputs(load_model(tmp_path / "model").surrogate), outputs(surrogate))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("kind", ["fno", "stepping"])
def test_an_fno_is_used_on_another_grid(kind: str, tmp_path: Path) -> None:
    case, surrogate = trained(kind)
    save_model(surrogate, case, tmp_path / "model", {})
    prediction = predict(tmp_path / "model", POINT, ["solver.grid_size=32"])
    assert prediction.temperature.shape == (5, 32, 32)
    loaded = load_model(tmp_path / "model", ["solver.grid_size=32"]).surrogate
    for name, tensor in surrogate.tensors().items():
        if name != "static":
            assert torch.equal(loaded.tensors()[name], tensor)
    assert predict(tmp_path / "model", POINT).temperature.shape == (5, 16, 16)


@pytest.mark.parametrize("setting", ["final_time=0.05", "stored_steps=9", "dimensions=1"])
@pytest.mark.parametrize("kind", ["fno", "stepping"])
def test_what_would_change_more_than_the_grid_is_refused_by_name(
    kind: str, setting: str, tmp_path: Path
) -> None:
    save_model(*reversed(trained(kind)), tmp_path / "model", {})  # type: ignore[arg-type]
    name = setting.partition("=")[0]
    with pytest.raises(StudyError, match=f"solver.{name} cannot be set .*heat is solver.grid_size"):
        predict(tmp_path / "model", POINT, [f"solver.{setting}"])


BOX = """
from solvers.heat import Heat

class Box(Heat):
    grid_settings = ("size", "final_time", "dimensions")
    def __init__(self, size: float = 1.0, final_time: float = 0.1, dimensions: int = 2) -> None:
        super().__init__(16, 5, final_time, dimensions=dimensions)
        self.grid = type(self.grid)(self.grid.shape, tuple(size * h for h in self.grid.spacing))
"""


def test_a_solver_that_declares_more_than_its_grid_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "box.py").write_text(BOX)
    monkeypatch.syspath_prepend(tmp_path)
    save_model(*reversed(trained("fno", solver={"name": "box:Box"})), tmp_path / "model", {})  # type: ignore[arg-type]
    with pytest.raises(StudyError, match="has another extent: ask for more or fewer points"):
        predict(tmp_path / "model", POINT, ["solver.size=2.0"])
    with pytest.raises(StudyError, match="the surrogate was trained for a solver with the names"):
        predict(tmp_path / "model", POINT, ["solver.dimensions=1"])
    with pytest.raises(StudyError, match=r"the time is in \[0, 0.2\]: the surrogate was trained w"):
        predict(tmp_path / "model", POINT, ["solver.final_time=0.2"])


def test_static_fields_are_those_of_the_grid_in_the_units_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conductivity.py").write_text(CONDUCTIVITY)
    monkeypatch.syspath_prepend(tmp_path)
    case, surrogate = trained("fno", solver={"name": "conductivity:Inhomogeneous"})
    save_model(surrogate, case, tmp_path / "model", {})
    loaded = load_model(tmp_path / "model", ["solver.grid_size=31"]).surrogate
    assert loaded.static.shape == (1, 31, 31)
    # Every other point of the finer grid is one of the coarser.
    torch.testing.assert_close(loaded.static[:, ::2, ::2], surrogate.static)
    model = load(tmp_path / "model", ["solver.grid_size=31"])
    point = dict.fromkeys(model.solver.parameters.names, 200.0)
    same = model.predict(point, static=model.solver.static_fields)
    xarray.testing.assert_identical(same, model.predict(point))


def test_an_mlp_is_bound_to_its_grid(tmp_path: Path) -> None:
    case, surrogate = trained("mlp")
    save_model(surrogate, case, tmp_path / "model", {})
    with pytest.raises(StudyError, match=r"the mlp is bound to its grid of \(16, 16\)"):
        load_model(tmp_path / "model", ["solver.grid_size=32"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("design.bounds.top=[0, 1]", "design.bounds.top cannot be set for a trained surrogate"),
        ("solver.name=wave", "solver.name cannot be set"),
        ("solver.grid_size", "solver.grid_size is not of the form section.key=value"),
        ("solver={grid_size: 32}", "solver cannot be set"),
        ("solver.grid_size=small", "solver.grid_size"),
        ("solver.planet=3", "solver.planet cannot be set"),
        ("solver.grid_size=3", r"modes is 4, but a grid of \(3, 3\) has at most 3"),
    ],
)
def test_overrides_that_cannot_be(override: str, message: str, tmp_path: Path) -> None:
    case, surrogate = trained("fno")
    save_model(surrogate, case, tmp_path / "model", {})
    with pytest.raises(StudyError, match=message):
        load_model(tmp_path / "model", [override])


def rewrite(model: Path, **changes: Any) -> None:
    path = model / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_is_no_whole_model_is_refused(tmp_path: Path) -> None:
    case, surrogate = trained("mlp")
    whole = tmp_path / "whole"
    save_model(surrogate, case, whole, {})
    model = tmp_path / "model"

    def refused(message: str) -> None:
        with pytest.raises(StudyError, match=message):
            load_model(model)
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(whole, model)

    refused("model is not the folder of a model")
    rewrite(model, format=99)
    refused("model.json has format 99, but this version of Millstream reads 2 and 3")
    (model / "model.json").write_text("{")
    refused("model.json is damaged")
    (model / "model.json").write_text("[]")
    refused("does not describe a model")
    rewrite(model, problem={"channels": 1})
    refused("model.json is damaged: problem.names is missing")
    rewrite(model, study={})
    refused("buffer is missing")
    solver = json.loads((model / "model.json").read_text())["solver"]
    rewrite(model, solver={**solver, "parameters": []})
    refused("was trained for a solver with the names")
    with_static = {**solver, "static_fields": ["permeability"]}
    write_tensors({"other": torch.zeros(16, 16)}, model / "static.safetensors")
    rewrite(model, solver=with_static)
    refused("model.json is damaged: 'permeability'")
    rewrite(model, solver=with_static)
    refused("static.safetensors is damaged or not there")
    weights = (whole / "weights.safetensors").read_bytes()
    for damaged in (weights[:-100], weights[:10], b"", b"\x80\x04N.", flipped(weights)):
        (model / "weights.safetensors").write_bytes(damaged)
        refused("weights.safetensors is damaged")
    (model / "weights.safetensors").unlink()
    refused("weights.safetensors is damaged or not there")
    save_file({"low": torch.zeros(3)}, model / "weights.safetensors")
    refused("weights.safetensors is damaged")
    write_tensors({"low": torch.zeros(3)}, model / "weights.safetensors")
    refused("the weights in .*model do not fit the mlp")
    load_model(model)


def flipped(data: bytes) -> bytes:
    """With one bit changed in the middle of a tensor."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def test_a_run_is_asked_for_its_model(tmp_path: Path) -> None:
    case, surrogate = trained("mlp")
    run = tmp_path / "run"
    with pytest.raises(StudyError, match="run is not the directory of a run"):
        load_trained(run)
    run.mkdir()
    (run / "study.yaml").write_text(yaml.safe_dump(STUDY))
    with pytest.raises(StudyError, match=r"run holds no trained surrogate: .* millstream resume"):
        load_trained(run)
    save_model(surrogate, case, run / "model", {})
    assert torch.equal(outputs(load_trained(run).surrogate), outputs(surrogate))
    with pytest.raises(StudyError, match="the parameter top is missing"):
        predict(run, {name: POINT[name] for name in POINT if name != "top"})


def test_predict_says_why_the_solver_has_no_initial_state(tmp_path: Path) -> None:
    solver = {"name": "fisher_kolmogorov", "grid_size": 24, "stored_steps": 2}
    case, surrogate = trained("stepping", solver=solver)
    save_model(surrogate, case, tmp_path / "model", {})
    outside = {"sqrt_DT": 12.0, "rho_T": 7.0, "x": 0.16, "y": 0.21, "z": 0.16}
    message = (
        r"^the first fields of the solver fisher_kolmogorov: the seed \(.*\) lies outside tiss"
    )
    with pytest.raises(StudyError, match=message):
        predict(tmp_path / "model", outside)
