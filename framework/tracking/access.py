"""Access to MLflow: its settings, its errors, and look-ups that more than one file needs.

MLflow takes seconds to import, so only functions that ask it import it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

# A server that is away is noticed soon; MLflow draws no progress bars and sends no telemetry.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def set_up() -> None:
    """Set MLflow's environment, except what the user has set. Call this before using MLflow."""
    os.environ.update({**_ENVIRONMENT, **os.environ})


def mlflow_failures() -> tuple[type[Exception], ...]:
    """Return the errors that MLflow raises if it is out of reach or lacks a package it needs."""
    from alembic.util.exc import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, CommandError, OSError, ImportError)


@contextmanager
def tolerating(*codes: str) -> Iterator[None]:
    """Ignore an error of MLflow that has one of these codes."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code not in codes:
            raise


def model_versions(client: "MlflowClient", where: str) -> list[int]:
    """Return the versions of registered models that match a filter of MLflow."""
    return [int(version.version) for version in client.search_model_versions(where)]
