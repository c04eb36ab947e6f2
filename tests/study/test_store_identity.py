"""The `store` section of a study, and what makes two studies share a store."""

import hashlib
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
from framework.study.static import changed_static_fields, static_sums
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


def test_static_fields_agree_within_rounding_and_no_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As another processor computes them, which rounds otherwise; or from another file."""
    random = np.random.default_rng(3)
    fields = random.random((16, 16)).astype(np.float32)
    solver = Heat(16)
    monkeypatch.setattr(Heat, "static_fields", {"map": fields})
    noted = json.loads(json.dumps(static_sums(solver)))
    rounded = np.nextafter(fields, np.where(random.random(fields.shape) < 0.5, 0, 1), dtype="f4")
    assert (rounded != fields).all()
    other = fields.copy()
    other[3, 5] += 0.01
    for values, changed in (
        (fields, []),
        (rounded, []),
        (other, ["map"]),
        (fields[::-1], ["map"]),
        (np.roll(fields, 1, 0), ["map"]),
    ):
        monkeypatch.setattr(Heat, "static_fields", {"map": values})
        assert changed_static_fields(noted, solver) == changed
    monkeypatch.setattr(Heat, "static_fields", {})
    assert changed_static_fields(noted, solver) == ["map"]
    # Of before: a hash, which knows the same bits again.
    older = {"map": hashlib.sha256(fields.tobytes()).hexdigest()[:16]}
    for values, changed in ((fields, []), (rounded, ["map"])):
        monkeypatch.setattr(Heat, "static_fields", {"map": values})
        assert changed_static_fields(older, solver) == changed


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
