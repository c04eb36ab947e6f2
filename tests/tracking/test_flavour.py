"""The model that MLflow is given: loaded and served by MLflow itself, without the solver."""

import json
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas
import pytest
from fastapi.testclient import TestClient
from mlflow.pyfunc import scoring_server
from models import trained
from waiting import LIMIT

import millstream
from framework.tracking.flavour import write_flavour
from framework.tracking.wheel import requirements, write_wheel
from framework.training.model import save_model

POINT = {"initial": 150.0, "left": 480.0, "right": 200.0, "bottom": 300.0, "top": 120.0}
TWO: dict[str, Any] = {name: np.array([value, value + 9]) for name, value in POINT.items()}
STATE = np.linspace(100, 500, 512, dtype=np.float32).reshape(2, 1, 16, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with models, each beside the folder that MLflow is given."""
    directory = tmp_path_factory.mktemp("flavour")
    for kind in ("fno", "stepping"):
        case, surrogate = trained(kind)
        save_model(surrogate, case, directory / kind, {})
        (directory / f"{kind}-mlflow").mkdir()
        write_flavour(directory / kind, directory / f"{kind}-mlflow" / "flavoured")
    return directory


def flavoured(folder: Path, kind: str) -> str:
    return str(folder / f"{kind}-mlflow" / "flavoured")


def test_mlflow_predicts_what_millstream_does(folder: Path) -> None:
    loaded = mlflow.pyfunc.load_model(flavoured(folder, "fno"))
    found, model = loaded.predict(TWO), millstream.load(folder / "fno")
    expected = model.predict(TWO)
    np.testing.assert_array_equal(found["temperature"], expected.temperature)
    np.testing.assert_allclose(found["t"], np.linspace([0, 0], [0.1, 0.1], 5, axis=1))
    table = loaded.predict(pandas.DataFrame(TWO), params={"times": [0.03]})
    at_once = model.predict(TWO, times=[0.03])
    np.testing.assert_array_equal(table["temperature"], at_once.temperature)
    rolled = mlflow.pyfunc.load_model(flavoured(folder, "stepping")).predict(
        {**TWO, "initial_fields": STATE}
    )
    expected = millstream.load(folder / "stepping").predict(TWO, initial=STATE)
    np.testing.assert_array_equal(rolled["temperature"], expected.temperature)


def test_a_model_says_what_it_takes_and_gives_and_needs(folder: Path) -> None:
    for kind in ("fno", "stepping"):
        path = Path(flavoured(folder, kind))
        loaded = mlflow.pyfunc.load_model(str(path))
        signature = loaded.metadata.signature
        state = ["initial_fields"] if kind == "stepping" else []
        assert signature.inputs.input_names() == [*POINT, *state]
        assert signature.outputs.input_names() == ["temperature", "t"]
        example = loaded.metadata.load_input_example(str(path))
        assert loaded.predict(example)["temperature"].shape == (2, 5, 16, 16)
        kinds = {file.suffix for file in path.rglob("*") if file.is_file()}
        assert kinds == {"", ".json", ".safetensors", ".txt", ".whl", ".yaml"}  # no pickle
        lines = (path / "requirements.txt").read_text().splitlines()
        assert (path / lines[0]).suffix == ".whl"
        assert f"safetensors=={metadata.version('safetensors')}" in lines[1:]


def test_a_server_of_mlflow_answers(folder: Path) -> None:
    loaded = mlflow.pyfunc.load_model(flavoured(folder, "fno"))
    client = TestClient(scoring_server.init(loaded))
    columns = {name: values.tolist() for name, values in TWO.items()}
    example = Path(flavoured(folder, "fno")) / "serving_input_example.json"
    for body in (json.dumps({"inputs": columns}), example.read_text()):
        answer = client.post(
            "/invocations", content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 200, answer.text
        found = np.array(answer.json()["predictions"]["temperature"])
        assert found.shape == (2, 5, 16, 16)


def test_a_process_without_solver_or_ray_loads_it(folder: Path) -> None:
    code = f"""
import sys
for name in ("solvers.heat", "ray", "cma"):
    sys.modules[name] = None
import mlflow, numpy
point = {{name: numpy.array([value]) for name, value in {POINT!r}.items()}}
print(mlflow.pyfunc.load_model({flavoured(folder, "fno")!r}).predict(point)["t"].shape)
"""
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert ran.stdout == "(1, 5)\n", ran.stderr


def test_the_wheel_is_installed_and_runs(tmp_path: Path) -> None:
    """Into an empty environment, whose further packages are those here."""
    wheel = write_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
    assert requirements("a.whl")[0] == "a.whl"
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "-q"]
    ran = subprocess.run([*pip, str(wheel)], capture_output=True, text=True, timeout=LIMIT)
    assert ran.returncode == 0, ran.stderr
    packages = Path(np.__file__).parents[1]
    code = f"""
import sys
sys.path.append({str(packages)!r})
import millstream, framework, surrogates.fno
print(framework.__file__, millstream.__version__)
"""
    ran = subprocess.run(
        [python, "-I", "-c", code], capture_output=True, text=True, timeout=LIMIT, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr
    file, version = ran.stdout.split()
    assert Path(file).is_relative_to(tmp_path)
    assert version == millstream.__version__
    again = write_wheel(tmp_path / "venv")
    assert again.read_bytes() == wheel.read_bytes()
