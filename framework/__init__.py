"""Train neural surrogates of PDE solvers while the solvers run."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from framework.prediction import predict
    from framework.run import resume, train
    from framework.simulating import simulate
    from framework.study import Study

__all__ = ["Study", "predict", "resume", "simulate", "train"]
_HOME = {
    "Study": "framework.study",
    "predict": "framework.prediction",
    "resume": "framework.run",
    "simulate": "framework.simulating",
    "train": "framework.run",
}


def __getattr__(name: str) -> Any:
    """Import on first use: solver processes need neither torch nor the training code."""
    if name not in _HOME:
        raise AttributeError(f"module 'framework' has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return found
