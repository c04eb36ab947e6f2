"""The identity of a study's simulations: all that determines the contents of its store.

Studies with the same identity compute and store the same simulations, so they share a store.
"""

import hashlib
import json
from typing import Any

from framework.study import versions
from framework.study.case import Case
from framework.study.component import SOLVER, settings_with_defaults
from framework.study.fingerprint import fingerprint
from framework.study.static import static_sums


def identity(case: Case) -> dict[str, Any]:
    """Return what determines the contents of a study's store, as plain values.

    They are named as in the study. The number of simulations is among them only where a longer
    design has other simulations. Bred simulations differ from run to run: see
    `BredDesign.stranger`.
    """
    study, solver, space = case.study, case.solver, case.space
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
        "format": versions.STORE,
        "code": fingerprint(solver),
        "solver": {"name": study.solver.name, **settings_with_defaults(study.solver, SOLVER)},
        "fields": {field.name: field.units for field in solver.fields},
        "grid": vars(solver.grid),
        "stored_steps": solver.stored_steps,
        "design": design,
        "seed": study.seed,
        "streams": versions.STREAMS,
        "store": {"keep": study.store.keep, "dtype": study.store.dtype},
    }
    if solver.static_fields:
        content["static_fields"] = static_sums(solver)
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def study_hash(identity: dict[str, Any]) -> str:
    """Return a short hash of an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def first_difference(there: dict[str, Any], here: dict[str, Any], prefix: str = "") -> str:
    """Return the first setting that differs, with both values; an empty text if none does."""
    for key in dict.fromkeys([*there, *here]):
        one, other = there.get(key), here.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            if found := first_difference(one, other, f"{prefix}{key}."):
                return found
        elif one != other:
            return f"{prefix}{key} is {one} there and {other} here"
    return ""


def streams_version(identity: dict[str, Any]) -> int:
    """Return the version of the random streams and priors that simulations were drawn by."""
    return int(identity.get("streams", 1))
