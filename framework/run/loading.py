"""Find and load the trained surrogate of a run, of a model's folder, or of MLflow's registry."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from framework.errors import StudyError
from framework.tracking.registry import download
from framework.training.model import Trained, load_model


def load_trained(run_or_model: str | Path, overrides: Sequence[str] = ()) -> Trained:
    """Load the trained surrogate of a run or a model.

    `run_or_model`: a run's directory, a model's folder, or a model registered in MLflow, such as
    `models:/heat/1` or `models:/heat@best`. `overrides` as in `load_model`. Raises StudyError, and
    RunError if MLflow cannot be reached.
    """
    if str(run_or_model).startswith("models:"):
        with TemporaryDirectory() as directory:
            return load_model(download(str(run_or_model), Path(directory)), overrides)
    return load_model(model_folder(Path(run_or_model)), overrides)


def model_folder(path: Path) -> Path:
    """Return the model's folder that a path means: itself, or that of a run. Raises StudyError."""
    if (path / "model.json").is_file():
        return path
    if not (path / "study.yaml").is_file():
        raise StudyError(
            f"{path} is not the directory of a run, nor the folder of a model: it has neither "
            "study.yaml nor model.json"
        )
    if not (path / "model").is_dir():
        raise StudyError(
            f"{path} holds no trained surrogate: it has no model; go on with the run by "
            f"millstream resume {path}"
        )
    return path / "model"
