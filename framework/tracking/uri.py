"""The URI under which a run is tracked: from a study or the environment, and checked."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from urllib.parse import quote, unquote, urlsplit

from framework.errors import StudyError
from framework.study.sections import TrackingConfig

_DEFAULT_URI = "sqlite:///mlflow.db"


def check_uri(config: TrackingConfig) -> None:
    """Raise StudyError if the tracking URI is impossible. Asks no server."""
    uri = resolve(config)
    if why := _impossible(uri):
        place = "MLFLOW_TRACKING_URI" if config.uri is None else "tracking.uri"
        raise StudyError(
            f"{place} is {masked(uri)}: {why}; give {_DEFAULT_URI}, the address of an MLflow "
            "server such as http://localhost:5000, or none"
        )


def resolve(config: TrackingConfig) -> str:
    """Return the URI of the study, else that of the environment, else the default."""
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI") or _DEFAULT_URI


def masked(uri: str) -> str:
    """Return the URI without its password."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", uri)


def sqlite_file(uri: str, cwd: Path) -> Path | None:
    """Return the file of an SQLite URI; None for another URI."""
    scheme, _, path = uri.partition(":///")
    path = unquote(path.partition("?")[0])
    return cwd / path if scheme == "sqlite" and path else None


def sqlite_uri(database: Path, uri: str) -> str:
    """Return the URI of an SQLite database, with the settings of another `uri` of it.

    What would mean something else in a URI is quoted, as SQLAlchemy reads it. MLflow does not read
    it so, and makes the folder before it asks SQLAlchemy: see `plain_folder`.
    """
    path = re.sub("[%?#]", lambda found: quote(found[0]), str(database))
    _, settings, rest = uri.partition("?")
    return f"sqlite:///{path}{settings}{rest}"


@contextmanager
def plain_folder(database: Path) -> Iterator[Path]:
    """Yield a path of a database whose folder needs no quotes in a URI: a link's, if need be."""
    folder = database.parent.resolve()
    if not re.search("[%?#]", str(folder)):
        yield folder / database.name
        return
    with TemporaryDirectory() as directory:
        link = Path(directory, "folder")
        link.symlink_to(folder)
        yield link / database.name


def artifact_root(folder: Path) -> str | None:
    """Return where MLflow is to keep files of runs; None for its own choice, `mlruns` in a folder.

    That is the same place as a URI, if MLflow would take the folder's path for something else.
    """
    plain = re.fullmatch(r"[\w/. -]*", str(folder))
    return None if plain else f"file://{quote(str(folder))}/mlruns"


def _impossible(uri: str) -> str:
    """Return why this tracking URI is impossible; an empty text if it is possible."""
    scheme = uri.partition(":")[0]
    if uri in ("none", "databricks") or scheme == "databricks":
        return ""
    if scheme in ("http", "https"):
        try:
            parts = urlsplit(uri)
            return "" if parts.hostname and parts.port != 0 else "it names no host"
        except ValueError as error:
            return str(error)
    if scheme == "sqlite":
        path = sqlite_file(uri, Path.cwd())
        return _unusable(path) if path else "it names no file"
    if scheme.partition("+")[0] in ("postgresql", "mysql", "mssql"):
        from sqlalchemy import create_engine
        from sqlalchemy.exc import SQLAlchemyError

        try:
            create_engine(uri)
        except (SQLAlchemyError, ImportError) as error:
            return what_mlflow_says(error)
        return ""
    if scheme == "file" or ":" not in uri:
        return "MLflow no longer keeps runs in plain folders"
    return f"MLflow knows no {scheme}"


def _unusable(database: Path) -> str:
    """Return why this file cannot be an SQLite database; an empty text if it can."""
    try:
        if database.exists():
            with database.open("r+b") as file:
                start = file.read(15)
            return "" if start in (b"", b"SQLite format 3") else f"{database} is no such database"
        database = next(parent for parent in database.parents if parent.exists())
        TemporaryFile(dir=database).close()  # the permission bits do not say what root may write
    except OSError as error:
        return f"{database} cannot be written ({error.strerror})"
    return ""


def what_mlflow_says(error: Exception) -> str:
    """Return the reason in an error of MLflow; many such errors are a page long."""
    system = re.search(r"\[Errno -?\d+\] ([^'\")\n]+)", str(error))
    return system[1] if system else str(error).partition("\n")[0][:300]
