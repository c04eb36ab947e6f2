"""Millstream trains neural surrogates of PDE solvers while the solvers run.

Example:
    >>> import millstream
    >>> summary = millstream.train("configs/quickstart.yaml")
    >>> fields = millstream.predict(
    ...     summary.run_dir,
    ...     {"initial": 150, "left": 480, "right": 200, "bottom": 300, "top": 120},
    ... )
    >>> fields.temperature.shape  # stored times, grid
    (50, 64, 64)

Everything here can be imported from `millstream`; each name is loaded when it is first used, so
`import millstream` itself takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from framework.errors import RunError as RunError
    from framework.errors import StudyError as StudyError
    from framework.report.summary import StoreSummary as StoreSummary
    from framework.report.summary import Summary as Summary
    from framework.study.study import Study as Study
    from millstream.inverse import invert as invert
    from millstream.models import Model as Model
    from millstream.models import load as load
    from millstream.models import predict as predict
    from millstream.runs import compare as compare
    from millstream.runs import resume as resume
    from millstream.runs import simulate as simulate
    from millstream.runs import train as train
    from millstream.stores import open_store as open_store

    __version__: str

# Where each name is defined.
_HOMES = {
    "Model": "millstream.models",
    "RunError": "framework.errors",
    "StoreSummary": "framework.report.summary",
    "Study": "framework.study.study",
    "StudyError": "framework.errors",
    "Summary": "framework.report.summary",
    "compare": "millstream.runs",
    "invert": "millstream.inverse",
    "load": "millstream.models",
    "open_store": "millstream.stores",
    "predict": "millstream.models",
    "resume": "millstream.runs",
    "simulate": "millstream.runs",
    "train": "millstream.runs",
}
__all__ = [
    "Model",
    "RunError",
    "StoreSummary",
    "Study",
    "StudyError",
    "Summary",
    "__version__",
    "compare",
    "invert",
    "load",
    "open_store",
    "predict",
    "resume",
    "simulate",
    "train",
]

if not TYPE_CHECKING:  # else every wrong name would have a type

    def __getattr__(name: str) -> object:
        if name == "__version__":
            return import_module("importlib.metadata").version("millstream")
        if name not in _HOMES:
            raise AttributeError(f"millstream has no {name}")
        return getattr(import_module(_HOMES[name]), name)

    def __dir__() -> list[str]:
        return __all__
