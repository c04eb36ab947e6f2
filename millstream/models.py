"""Trained surrogates: load them, and predict with them."""

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import Any

import xarray
from torch import nn

from framework.run.loading import load_trained
from framework.run.prediction import Asked, Predictor, Rollout
from framework.study.study import Study
from millstream.arguments import checked
from solvers.base import Solver
from surrogates.base import Surrogate

# How many frames the caller is from a warning: between them, arguments are checked.
_CALLER = 6


class Model:
    """A trained surrogate, with what is known of the solver that it stands for.

    Example:
        >>> model = millstream.load("runs/quickstart")
        >>> model.solver.parameters.names
        ('initial', 'left', 'right', 'bottom', 'top')
        >>> fields = model.predict(
        ...     {"initial": 150, "left": [480, 200], "right": 200, "bottom": 300, "top": 120}
        ... )
        >>> fields.temperature.dims
        ('simulation', 'time', 'axis_0', 'axis_1')
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    @property
    def study(self) -> Study:
        """What was simulated and trained."""
        return self._predictor.trained.study

    @property
    def solver(self) -> Solver:
        """What the solver declares: parameters, fields, grid, time_units, static_fields.

        It cannot simulate: the solver itself need not be installed.
        """
        return self._predictor.trained.solver

    @property
    def surrogate(self) -> Surrogate:
        """The trained network, in evaluation mode."""
        return self._predictor.surrogate

    @checked
    def predict(
        self,
        parameters: Mapping[str, Any],
        times: Any = None,
        initial: Any = None,
        static: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> xarray.Dataset:
        """Predict the fields of one or many simulations.

        Args:
            parameters: A number or an array [n] for each of the solver's parameters, in its units.
            times: The times [T] to predict, ascending; by default those that were stored. An
                autoregressive surrogate makes steps of the length that it was trained with.
            initial: The fields that an autoregressive surrogate starts from, at the first time: an
                array [C, *grid] or [n, C, *grid], or a mapping, such as a dataset, of field names
                to arrays [*grid] or [n, *grid].
            static: Static fields [*grid] by name, in place of those trained with.
            seed: Without `initial`, the solver is asked for its first fields, and so has to be
                installed. This is their seed, by default that of the study.

        Returns:
            A variable for each field, in its units, with the dimensions `simulation` (if an array
            was given), `time`, and an axis for each of the grid's. Coordinates are `t`, the times;
            `time`, the numbers of the stored steps, where these are predicted; positions along the
            axes; `parameters`; and `within_bounds`, false where a parameter lies outside what the
            surrogate was trained within. A warning says so, too: the fields may be wrong there.

        Raises:
            StudyError: A parameter is missing, unknown or not finite; a time was not trained for;
                the fields to start from do not fit; or the solver is needed and not there.
        """
        return self._answer(self._predictor.ask(parameters, times, initial, static, seed))

    def torch(self) -> nn.Module:
        """Return the surrogate as a module, to compute with it: gradients flow through it.

        Its arguments are parameters [n, p] in the order of `solver.parameters`, times [T] or
        [n, T], and, of an autoregressive surrogate, the fields [n, C, *grid] at the first time. It
        returns the fields [n, T, C, *grid]. All are tensors on the surrogate's device, in physical
        units. Its weights are those of `surrogate`.

        Example:
            >>> module = millstream.load("runs/quickstart").torch()
            >>> point = torch.tensor([[150.0, 480, 200, 300, 120]], requires_grad=True)
            >>> module(point, torch.tensor([0.02])).mean().backward()
            >>> point.grad.shape
            torch.Size([1, 5])
        """
        return Rollout(self.surrogate)

    def _answer(self, asked: Asked) -> xarray.Dataset:
        for warning in asked.warnings:
            warnings.warn(warning, stacklevel=_CALLER)
        return self._predictor.predict(asked)


@checked
def load(
    run_or_model: str | PathLike[str], overrides: Sequence[str] = (), device: str = "cpu"
) -> Model:
    """Load a trained surrogate.

    Args:
        run_or_model: The folder of a run, `runs/NAME`, the folder of a model, or a model that is
            registered in MLflow, such as `models:/heat/1` or `models:/heat@best`.
        overrides: Settings of the solver that replace those trained with, such as
            `solver.grid_size=128`, for surrogates that are not bound to their grid: those that the
            solver declares to refine its grid alone. The solver has to be installed for them.
        device: Where to predict: a torch device, such as `cuda`.

    Returns:
        The surrogate. Its solver need not be installed.

    Raises:
        StudyError: There is no trained surrogate there, or it cannot be used with the overrides or
            on the device.
        RunError: MLflow cannot be reached.

    Example:
        >>> model = millstream.load("runs/quickstart")
        >>> model.study.surrogate.name
        'fno'
    """
    return Model(Predictor(load_trained(fspath(run_or_model), overrides), device))


@checked
def predict(
    run_or_model: str | PathLike[str],
    parameters: Mapping[str, Any],
    overrides: Sequence[str] = (),
    times: Any = None,
    initial: Any = None,
    static: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> xarray.Dataset:
    """Load a trained surrogate, and predict the fields of one or many simulations.

    To predict again and again, `load` the model once, and call its method `predict`.

    Args:
        run_or_model: As for `load`.
        parameters: A number or an array [n] for each of the solver's parameters, in its units.
        overrides: As for `load`.
        times: As for `Model.predict`.
        initial: As for `Model.predict`.
        static: As for `Model.predict`.
        seed: As for `Model.predict`.

    Returns:
        The fields, as `Model.predict` returns them.

    Raises:
        StudyError: As `load` and `Model.predict` raise it.
        RunError: MLflow cannot be reached.

    Example:
        >>> point = {"initial": 150, "left": 480, "right": 200, "bottom": 300, "top": 120}
        >>> fields = millstream.predict("runs/quickstart", point)
        >>> fields.temperature.shape  # stored times, grid
        (50, 64, 64)
    """
    predictor = Predictor(load_trained(fspath(run_or_model), overrides))
    return Model(predictor)._answer(predictor.ask(parameters, times, initial, static, seed))
