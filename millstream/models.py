"""Trained surrogates: load them, and predict with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

from framework.run.prediction import Prediction, Start, load_surrogate, predicted
from framework.study.case import Case
from framework.study.study import Study
from millstream.arguments import checked
from solvers.base import Solver
from surrogates.base import Surrogate


@dataclass(frozen=True)
class Model:
    """A trained surrogate, with the study and the solver that it was trained for.

    Attributes:
        case: The study with the parts that it names: see `study` and `solver`.
        surrogate: The trained network, a `torch.nn.Module` in evaluation mode, on the CPU. Its
            method `rollout` predicts many simulations at once, without gradients; `direct`, of a
            surrogate in mode `direct`, predicts single times with gradients.
        overrides: Settings of the solver that replace those trained with.

    Example:
        >>> model = millstream.load("runs/quickstart")
        >>> model.solver.parameters.names
        ('initial', 'left', 'right', 'bottom', 'top')
        >>> prediction = model.predict(
        ...     {"initial": 150, "left": 480, "right": 200, "bottom": 300, "top": 120}
        ... )
        >>> prediction.field.shape  # stored times, fields, grid
        (50, 1, 64, 64)
    """

    case: Case
    surrogate: Surrogate
    overrides: tuple[str, ...] = ()

    @property
    def study(self) -> Study:
        """What was simulated and trained."""
        return self.case.study

    @property
    def solver(self) -> Solver:
        """The solver that the surrogate stands for: its parameters, fields, grid and times."""
        return self.case.solver

    @checked
    def predict(
        self, parameters: Mapping[str, float], initial: Any = None, seed: int | None = None
    ) -> Prediction:
        """Predict the fields at every stored time.

        An autoregressive surrogate starts from the solver's first fields, unless told otherwise.

        Args:
            parameters: One value of each of the solver's parameters, in their units.
            initial: The fields to start from, an array [C, *grid] in their units.
            seed: Or the seed of the solver's first fields; by default that of the study.

        Returns:
            The fields `field` [T, C, *grid] in the fields' units, and the times `t` [T]. `outside`
            names the parameters outside the bounds that the surrogate was trained within, where
            the fields may be wrong.

        Raises:
            StudyError: A parameter is missing, unknown or not finite; or the solver cannot start
                from the parameters.
        """
        start = Start(initial, seed)
        return predicted(self.case, self.surrogate, parameters, bool(self.overrides), start)


@checked
def load(run_or_model: str | PathLike[str], overrides: Sequence[str] = ()) -> Model:
    """Load a trained surrogate.

    Args:
        run_or_model: The folder of a run, `runs/NAME`, the folder of a model, or a model that is
            registered in MLflow, such as `models:/heat/1` or `models:/heat@best`.
        overrides: Settings of the solver that replace those trained with, such as
            `solver.grid_size=128`, for surrogates that are not bound to their grid: those that the
            solver declares to refine its grid alone.

    Returns:
        The surrogate, with its study and its solver.

    Raises:
        StudyError: There is no trained surrogate there, or it cannot be used with the overrides.
        RunError: MLflow cannot be reached.

    Example:
        >>> model = millstream.load("runs/quickstart")
        >>> model.study.surrogate.name
        'fno'
    """
    case, surrogate = load_surrogate(fspath(run_or_model), overrides)
    return Model(case, surrogate, tuple(overrides))


@checked
def predict(
    run_or_model: str | PathLike[str],
    parameters: Mapping[str, float],
    overrides: Sequence[str] = (),
    initial: Any = None,
    seed: int | None = None,
) -> Prediction:
    """Predict the fields at every stored time for one value of each parameter.

    For several predictions `load` the model once, and call its method `predict`.

    Args:
        run_or_model: As for `load`.
        parameters: One value of each of the solver's parameters, in their units.
        overrides: As for `load`.
        initial: As for `Model.predict`.
        seed: As for `Model.predict`.

    Returns:
        The fields `field` [T, C, *grid] in the fields' units, and the times `t` [T]. Its method
        `save` writes them as a numpy file.

    Raises:
        StudyError: As `load` and `Model.predict` raise it.
        RunError: MLflow cannot be reached.

    Example:
        >>> point = {"initial": 150, "left": 480, "right": 200, "bottom": 300, "top": 120}
        >>> prediction = millstream.predict("runs/quickstart", point)
        >>> prediction.field.shape  # stored times, fields, grid
        (50, 1, 64, 64)
    """
    return load(run_or_model, overrides).predict(parameters, initial, seed)
