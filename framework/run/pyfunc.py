"""What MLflow loads of a registered model: `mlflow.pyfunc.load_model`, `mlflow models serve`.

MLflow finds this file by its name, in a model's file MLmodel, which framework/tracking/flavour.py
writes.

Shapes: n simulations, T times, C fields, `*grid` the grid's axes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.run.prediction import Predictor
from framework.tracking.flavour import INITIAL
from framework.training.model import load_model


class Served:
    """A trained surrogate as MLflow asks it."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(
        self, model_input: Mapping[str, Any], params: Mapping[str, Any] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Predict the fields of n simulations.

        `model_input`: for each parameter an array [n], or a data frame with a column; of an
        autoregressive surrogate also `initial_fields` [n, C, *grid] to start from. `params` may
        have `times` [T]; none are those stored. Returns each field [n, T, *grid], and the times `t`
        [n, T]. Raises StudyError.
        """
        given = {str(name): np.atleast_1d(model_input[name]) for name in model_input}
        initial = given.pop(INITIAL, None)
        asked = self._predictor.ask(given, (params or {}).get("times") or None, initial)
        fields = self._predictor.predict(asked)
        t = np.broadcast_to(fields["t"].values, (len(asked.values), fields.sizes["time"]))
        return {**{str(name): fields[name].values for name in fields.data_vars}, "t": t}


def _load_pyfunc(path: str) -> Served:
    """Load the model's folder at `path`, as MLflow asks for it. Raises StudyError."""
    return Served(Predictor(load_model(Path(path))))
