"""Access to MLflow: its settings, what it raises, and look-ups that more than one file needs.

MLflow takes seconds to import, so only functions that ask it import it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

# A server that is away is noticed soon; MLflow draws no progress bars and calls nobody.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def set_up() -> None:
    """Set MLflow's environment, but for what the user has set. Call this before MLflow is used."""
    os.environ.update({**_ENVIRONMENT, **os.environ})


def mlflow_failures() -> tuple[type[Exception], ...]:
    """What MLflow raises when it cannot be reached, or lacks a package that its server needs."""
    from alembic.util.exc import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, CommandError, OSError, ImportError)


@contextmanager
def tolerating(*codes: str) -> Iterator[None]:
    """Pass over an error of MLflow that has one of these codes."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code not in codes:
            raise


def model_versions(client: "MlflowClient", where: str) -> list[int]:
    """The versions of registered models that match a filter of MLflow."""
    return [int(version.version) for version in client.search_model_versions(where)]
