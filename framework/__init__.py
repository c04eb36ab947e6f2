"""Train neural surrogates of PDE solvers while the solvers run."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from framework.predict import predict
    from framework.run import resume, train
    from framework.simulate import simulate
    from framework.study import Study

__all__ = ["Study", "predict", "resume", "simulate", "train"]
_HOME = {
    "Study": "framework.study",
    "predict": "framework.predict",
    "resume": "framework.run",
    "simulate": "framework.simulate",
    "train": "framework.run",
}


def __getattr__(name: str) -> Any:
    """Import on first use: solver processes need neither torch nor the training code."""
    if name not in _HOME:
        raise AttributeError(f"module 'framework' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
