"""What a study's store holds: its section of the study, its identity, and its attributes.

Studies of one identity compute the same simulations and store them alike, so they share a store.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

import solvers.base
from framework.errors import StudyError
from framework.store.layout import FORMAT
from framework.study.component import Component, factory, find, settings_of
from framework.study.sections import StoreConfig
from solvers.base import Solver

if TYPE_CHECKING:  # it imports this file
    from framework.store.reader import StoreReader
    from framework.study.study import Study


def identity(study: "Study", config: StoreConfig) -> dict[str, Any]:
    """What determines the content of a study's store, as plain values named as in the study.

    The number of simulations is part of it only where a longer design has other simulations. Bred
    ones differ from run to run: see `BredDesign.check`.
    """
    solver, space = study.solver_factory()(), study.make_design().space
    found = find(study.solver.name, "solver", solvers.base.REGISTERED, Solver)
    settings = settings_of(found, 0).model_validate(study.solver.model_extra)
    design: dict[str, Any] = {
        "sampler": study.design.sampler,
        "bounds": {item.name: [item.low, item.high] for item in space.items},
        "priors": {item.name: item.prior for item in space.items},
    }
    if study.design.sampler in ("latin_hypercube", "breed"):
        design["simulations"] = study.design.simulations
    if study.design.breed:
        design["breed"] = study.design.breed.model_dump()
    content = {
        "format": FORMAT,
        "solver": {"name": study.solver.name, **settings.model_dump(mode="json")},
        "fields": {field.name: field.units for field in solver.fields},
        "grid": vars(solver.grid),
        "stored_steps": solver.stored_steps,
        "design": design,
        "seed": study.seed,
        "store": {"keep": config.keep, "dtype": config.dtype},
    }
    if solver.static_fields:
        # They may come from files, whose names say nothing of what is in them.
        content["static_fields"] = _hashes(solver)
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def _hashes(solver: Solver) -> dict[str, str]:
    """Short names for what is in the static fields."""
    return {
        name: hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]
        for name, values in solver.static_fields.items()
    }


def solver_factory(reader: "StoreReader") -> Callable[[], Solver]:
    """Makes the solver of a store; can be sent to another process. Raises ValueError."""
    component = Component.model_validate(reader.study["solver"])
    return factory(component, "solver", solvers.base.REGISTERED, Solver)


def solver_of(reader: "StoreReader") -> Solver:
    """The solver that a store's simulations were made by, made anew.

    Raises StudyError if it cannot be, or is another one now.
    """
    try:
        solver = solver_factory(reader)()
    except (ValueError, OSError) as error:
        raise StudyError(f"the solver of the store {reader.path} cannot be made: {error}") from None
    for name, hash in reader.study.get("static_fields", {}).items():
        if _hashes(solver).get(name) != hash:
            raise StudyError(
                f"{name} is not what it was when the store {reader.path} was made: restore the "
                "files that the solver's settings name"
            )
    return solver


def study_hash(identity: dict[str, Any]) -> str:
    """A short name for an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def first_difference(there: dict[str, Any], here: dict[str, Any], prefix: str = "") -> str:
    """The first setting that differs between two identities, with both values; empty if none."""
    for key in dict.fromkeys([*there, *here]):
        one, other = there.get(key), here.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            if found := first_difference(one, other, f"{prefix}{key}."):
                return found
        elif one != other:
            return f"{prefix}{key} is {one} there and {other} here"
    return ""


def attributes(config: StoreConfig, identity: dict[str, Any], solver: Solver) -> dict[str, Any]:
    """What a reader has to know, `hash` among it."""
    kind, ours = type(solver), metadata.version("millstream")
    package = kind.__module__.partition(".")[0]
    version = ours if package == "solvers" else getattr(sys.modules[package], "__version__", None)
    affine = getattr(solver, "affine", None)
    settings = {key: value for key, value in identity["solver"].items() if key != "name"}
    return {
        "coordinates": "t resolved complete",  # which arrays xarray is to take for coordinates
        "millstream_format": FORMAT,
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
