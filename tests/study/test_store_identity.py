"""The `store` section of a study, and what makes two studies share a store."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from framework.study.case import Case
from framework.study.component import explain
from framework.study.identity import identity, study_hash
from framework.study.sections import StoreConfig
from framework.study.study import Study
from solvers.heat import Heat


def study(**values: Any) -> Study:
    return Study.model_validate(
        {
            "name": "study",
            "solver": {"name": "heat", "grid_size": 16},
            "design": {"simulations": 8},
            "buffer": {"capacity": 100},
            "surrogate": {"name": "mlp"},
            **values,
        }
    )


def test_what_decides_the_content_is_the_identity_of_a_study() -> None:
    base = identity(Case(study()))
    assert json.loads(json.dumps(base)) == base
    others = [
        study(design={"simulations": 9}),
        study(design={"simulations": 8, "bounds": {"left": (100, 500)}}),  # the solver's own
        study(solver={"name": "heat", "grid_size": 16, "substeps": 4}),  # the default
        study(buffer={"capacity": 50}, surrogate={"name": "fno", "modes": 4}, name="other"),
    ]
    assert {study_hash(identity(Case(other))) for other in others} == {study_hash(base)}
    latin = [{"sampler": "latin_hypercube", "simulations": simulations} for simulations in (8, 9)]
    differing = [
        *(identity(Case(study(design=design))) for design in latin),
        identity(Case(study(seed=1))),
        identity(Case(study(solver={"name": "heat", "grid_size": 17}))),
        identity(Case(study(design={"simulations": 8, "bounds": {"left": (100, 400)}}))),
        identity(Case(study(store={"keep": 2}))),
        identity(Case(study(store={"dtype": "float16"}))),
    ]
    assert len({study_hash(other) for other in [base, *differing]}) == 1 + len(differing)


def test_static_fields_are_part_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may come from a file whose name stays while its content changes."""
    hashes = set()
    for value in (0.0, 1.0, 1.0):
        fields = {"map": np.full((16, 16), value, dtype=np.float32)}
        monkeypatch.setattr(Heat, "static_fields", fields)
        hashes.add(study_hash(identity(Case(study()))))
    assert len(hashes) == 2


@pytest.mark.parametrize("keep", ["all", "last", "none", 1, 7])
def test_what_may_be_kept(keep: str | int) -> None:
    assert StoreConfig.model_validate({"keep": keep}).keep == keep


@pytest.mark.parametrize("keep", [0, -1, 1.5, 2.0, True, False, "5", "some", "", None, [1], {}])
def test_what_may_not_be_kept(keep: Any) -> None:
    with pytest.raises(ValidationError) as refusal:
        StoreConfig.model_validate({"keep": keep})
    assert explain(refusal.value, StoreConfig, "store") == (
        f"store.keep: it is {keep!r}, but has to be all, last, none, or a number of steps from 1 on"
    )


@pytest.mark.parametrize(
    "values", [{"path": ""}, {"path": 3}, {"dtype": "float64"}, {"compression": "gzip"}, {"at": 1}]
)
def test_other_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        StoreConfig.model_validate(values)


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert StoreConfig().location("heat") == str(tmp_path / "stores" / "heat.zarr")
    assert StoreConfig(path="here.zarr").location("heat") == str(tmp_path / "here.zarr")
    assert StoreConfig(path="s3://bucket/a.zarr").location("heat") == "s3://bucket/a.zarr"
