"""A trained surrogate as a model of MLflow: its flavour pyfunc, signature, example, requirements.

    MLmodel                     what MLflow reads
    data/model/                 the model's folder, tensors and JSON
    wheels/millstream-*.whl     our own code, which no index has
    requirements.txt ...        the wheel, and the versions that it ran with

MLflow loads it by framework/run/pyfunc.py; nothing is pickled.
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from framework.tracking.wheel import requirements, write_wheel

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

# Where the model's folder lies in that of MLflow.
MODEL_IN_FLAVOUR = "data/model"
# The input that has the fields a rollout starts from.
INITIAL = "initial_fields"
_LOADER = "framework.run.pyfunc"
# An example with more numbers is left out: it is kept as JSON.
_LONGEST_EXAMPLE = 10_000


def write_flavour(model: Path, target: Path) -> None:
    """Write the folder `target`, in an empty folder, that MLflow loads `model` from.

    `model`: the model's folder. Raises OSError, and an error of MLflow.
    """
    from mlflow.pyfunc import save_model

    contents = json.loads((model / "model.json").read_bytes())
    if contents.get("solver") is None:  # written by an earlier version: it says too little
        shutil.copytree(model, target)
        return
    example = _example(contents)
    size = sum(values.size for values in example.values())
    wheels = target.parent / "wheels"
    wheels.mkdir()
    wheel = write_wheel(wheels)
    data = target.parent / "model"
    data.symlink_to(model.absolute())
    save_model(
        target,
        loader_module=_LOADER,
        data_path=str(data),
        signature=_signature(contents, example),
        input_example=example if size <= _LONGEST_EXAMPLE else None,
        pip_requirements=requirements(f"wheels/{wheel.name}"),
    )
    wheels.rename(target / "wheels")


def _example(contents: dict[str, Any]) -> dict[str, Any]:
    """Return an input of two simulations: each parameter [2], and what a rollout starts from."""
    example: dict[str, Any] = {}
    for item in contents["solver"]["parameters"]:
        middle = (item["low"] * item["high"]) ** 0.5 if item["prior"] == "log_uniform" else None
        example[item["name"]] = np.array(
            [(item["low"] + item["high"]) / 2 if middle is None else middle] * 2
        )
    if contents["study"]["surrogate"].get("mode", "direct") == "autoregressive":
        shape = (2, len(contents["solver"]["fields"]), *contents["solver"]["grid"]["shape"])
        example[INITIAL] = np.zeros(shape, dtype=np.float32)
    return example


def _signature(contents: dict[str, Any], example: dict[str, Any]) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    solver = contents["solver"]
    outputs = [
        TensorSpec(np.dtype(np.float32), (-1, -1, *solver["grid"]["shape"]), field["name"])
        for field in solver["fields"]
    ]
    return ModelSignature(
        inputs=Schema(
            [
                TensorSpec(values.dtype, (-1, *values.shape[1:]), name)
                for name, values in example.items()
            ]
        ),
        outputs=Schema([*outputs, TensorSpec(np.dtype(np.float64), (-1, -1), "t")]),
        params=ParamSchema([ParamSpec("times", DataType.double, solver["times"] or [], (-1,))]),
    )
