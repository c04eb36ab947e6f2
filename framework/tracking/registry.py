"""Download registered models from MLflow."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from framework.errors import StudyError, TrackingError
from framework.study.sections import TrackingConfig
from framework.tracking.access import mlflow_failures, model_versions, set_up, tolerating
from framework.tracking.flavour import MODEL_IN_FLAVOUR
from framework.tracking.uri import (
    check_uri,
    masked,
    plain_folder,
    resolve,
    sqlite_file,
    sqlite_uri,
    what_mlflow_says,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient


def download(uri: str, directory: Path) -> Path:
    """Download a registered model, `models:/NAME/VERSION` or `models:/NAME@ALIAS`.

    Returns the folder, which lies in `directory`. Raises StudyError if there is no such model,
    TrackingError if MLflow cannot be reached.
    """
    check_uri(TrackingConfig())
    tracking = resolve(TrackingConfig())
    database = sqlite_file(tracking, Path.cwd())
    if tracking == "none" or (database and not database.exists()):
        raise StudyError(
            f"{uri} is not there: no MLflow is at {masked(tracking)}; set MLFLOW_TRACKING_URI, or "
            "give the directory of a run"
        )
    set_up()
    # MLflow keeps a connection for every URI, even after the process has changed its directory.
    try:
        if database is None:
            return _download(uri, directory, tracking, tracking)
        with plain_folder(database) as path:
            return _download(uri, directory, tracking, sqlite_uri(path, tracking))
    except mlflow_failures() as error:
        raise TrackingError(
            f"MLflow at {masked(tracking)} cannot be asked for {uri}: {what_mlflow_says(error)}"
        ) from None


def _download(uri: str, directory: Path, tracking: str, address: str) -> Path:
    """Download from MLflow at `address`, which the user knows as `tracking`."""
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    match = re.fullmatch(r"models:/+([^/@']+)([/@])([^/']+)", uri)
    if match is None:
        raise StudyError(f"{uri} is not of the form models:/NAME/VERSION or models:/NAME@ALIAS")
    name, separator, wanted = match.groups()
    client = MlflowClient(address, address)
    there = model_versions(client, f"name = '{name}'")
    version = _version(client, name, separator, wanted, there)
    if version not in there:
        known = _known(client, name, there)
        raise StudyError(f"MLflow at {masked(tracking)} has no {uri}: {known}")
    source = client.get_model_version_download_uri(name, str(version))
    path = Path(download_artifacts(source, dst_path=str(directory), tracking_uri=address))
    # Models of before had no flavour.
    return path / MODEL_IN_FLAVOUR if (path / MODEL_IN_FLAVOUR).is_dir() else path


def _version(
    client: "MlflowClient", name: str, separator: str, wanted: str, there: list[int]
) -> int | None:
    """Return the version wanted, by alias, by number or as the latest; None if unknown."""
    if separator == "@":
        with tolerating("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
            return int(client.get_model_version_by_alias(name, wanted).version)
        return None
    if wanted == "latest":
        return max(there, default=None)
    return int(wanted) if wanted.isdecimal() else None


def _known(client: "MlflowClient", name: str, there: list[int]) -> str:
    """Say which versions or models there are instead."""
    if there:
        return f"{name} has the versions {', '.join(map(str, sorted(there)))}"
    names = ", ".join(model.name for model in client.search_registered_models())
    return f"it has the models {names}" if names else "it has no models"
