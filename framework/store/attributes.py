"""How a store describes itself: its attributes, and the solver that made its simulations."""

import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np

from framework.errors import StudyError, tell
from framework.store.reader import StoreReader
from framework.study import versions
from framework.study.component import SOLVER, Component, factory
from framework.study.identity import study_hash
from framework.study.sections import StoreConfig
from framework.study.static import changed_static_fields, has_only_hash
from solvers.base import Solver


def solver_factory(reader: StoreReader) -> Callable[[], Solver]:
    """Return a function that makes the solver of a store; it can be sent to another process.

    Raises ValueError if the solver is not found or its settings are wrong.
    """
    component = Component.model_validate(reader.study["solver"])
    return factory(component, SOLVER)


def solver_of(reader: StoreReader) -> Solver:
    """Make the solver of a store's simulations anew.

    Raises StudyError if it cannot be made, or has changed since.
    """
    try:
        solver = solver_factory(reader)()
    except (ValueError, OSError) as error:
        raise StudyError(f"the solver of the store {reader.path} cannot be made: {error}") from None
    noted = reader.study.get("static_fields", {})
    for name in changed_static_fields(noted, solver):
        if not has_only_hash(noted.get(name)):
            raise StudyError(
                f"{name} is not what it was when the store {reader.path} was made: restore the "
                "files that the solver's settings name"
            )
        tell(
            f"{name} has other bits than when the store {reader.path} was made, by an earlier "
            "version: another processor rounds it otherwise; that files which the solver's "
            "settings name are the same cannot be told"
        )
    return solver


def attributes(config: StoreConfig, identity: dict[str, Any], solver: Solver) -> dict[str, Any]:
    """Return the attributes of a new store, by which readers know it; `hash` is among them."""
    kind, ours = type(solver), metadata.version("millstream")
    package = kind.__module__.partition(".")[0]
    version = ours if package == "solvers" else getattr(sys.modules[package], "__version__", None)
    affine = solver.affine
    settings = {key: value for key, value in identity["solver"].items() if key != "name"}
    return {
        "coordinates": "t resolved complete",  # the arrays that xarray reads as coordinates
        "millstream_format": versions.STORE,
        "millstream_version": ours,
        "solver": {
            "name": identity["solver"]["name"],
            "settings": settings,
            "class": f"{kind.__module__}:{kind.__qualname__}",
            "version": version,
        },
        "fields": identity["fields"],
        "grid": identity["grid"],
        "affine": None if affine is None else np.asarray(affine).tolist(),
        "keep": config.keep,
        "dtype": config.dtype,
        "compression": config.compression,
        "study": identity,
        "hash": study_hash(identity),
    }
