"""Directories and files of every legal name: all that is written can be found and read again."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from balls import stored_balls
from commands import SMALL, in_process, the_object
from places import QUICKSTART

from framework.study.overrides import parsed_value
from framework.study.study import Study
from framework.tracking.uri import sqlite_file, sqlite_uri
from millstream import open_store

# What means something in a URI, a glob, YAML, a shell or a formula; and a line break.
NAMES = ["a b%41?x=1#y é*[z]:&'\"\n::$w$;~{v}!", "%", "50%25 done", "what?"]
POINT = ["initial=150", "left=480", "right=200", "bottom=300", "top=120"]
TRACKED = [setting for setting in SMALL if "tracking" not in setting]


@pytest.mark.usefixtures("on_cluster")
@pytest.mark.parametrize("name", NAMES[:2])
def test_whatever_a_run_writes_is_found_in_a_directory_of_any_name(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    directory = tmp_path / name
    directory.mkdir()
    study = directory / "study.yaml"
    Study.load(QUICKSTART, TRACKED).save(study)
    place = directory / f"{name}.zarr"
    settings = ["design.simulations=12", f"store.path={as_yaml(str(place))}"]
    ran = in_process(directory, "train", f"../{name}/study.yaml", *settings, "--json")
    assert ran.returncode == 0, ran.stderr
    summary = the_object(ran.stdout)
    assert summary["store"] == str(place)
    assert summary["model"] == {"name": "small", "version": "1"}
    assert len(list((directory / "runs/small/pictures").iterdir())) == 4
    with open_store(str(place)) as store:
        assert store.complete.values.all()
    found = []
    for model in ("runs/small", "models:/small/1"):
        out = f"{name} {len(found)}.npz"
        ran = in_process(directory, "predict", model, *POINT, "--out", out, "--json")
        assert ran.returncode == 0, ran.stderr
        assert the_object(ran.stdout)["out"] == out
        assert (directory / out).with_suffix(".png").is_file()
        with np.load(directory / out) as saved:
            found.append(saved["field"])
    np.testing.assert_array_equal(*found)
    assert [path.name for path in tmp_path.iterdir()] == [name]  # nothing beside it


def as_yaml(text: str) -> str:
    return "'" + text.replace("'", "''").replace("\n", "\n\n") + "'"


@pytest.mark.parametrize("name", NAMES)
def test_a_store_of_any_name_is_indexed(tmp_path: Path, name: str) -> None:
    place = tmp_path / f"{name}.zarr"
    stored_balls(place, 12)
    ran = in_process(tmp_path, "index", f"{name}.zarr", "--json")
    assert ran.returncode == 0, ran.stderr
    assert the_object(ran.stdout)["index"] == f"{place}.index"
    there = {path.name for path in tmp_path.iterdir()}
    assert there == {place.name, f"{place.name}.index"}


@pytest.mark.parametrize("name", NAMES)
def test_the_uri_of_a_database_leads_back_to_its_file(tmp_path: Path, name: str) -> None:
    from sqlalchemy import create_engine, text

    database = tmp_path / f"{name}.db"
    uri = sqlite_uri(database, "sqlite:///other.db?timeout=7")
    assert sqlite_file(uri, tmp_path) == database
    engine = create_engine(uri)
    with engine.connect() as connection:
        connection.execute(text("create table t (x)"))
    engine.dispose()
    there = sqlite3.connect(database)
    assert there.execute("select name from sqlite_master").fetchall() == [("t",)]
    there.close()
    assert [path.name for path in tmp_path.iterdir()] == [database.name]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a #1.zarr", "a #1.zarr"),
        ("#1.zarr", "#1.zarr"),
        ("&a b", "&a b"),
        ("'a #1' # text", "a #1"),
        ("12", 12),
        ("[1, 2] # two", [1, 2]),
        ("null", None),
    ],
)
def test_a_value_without_quotes_loses_nothing(text: str, value: object) -> None:
    assert parsed_value(text, text) == value
