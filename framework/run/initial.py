"""Training that starts from a trained surrogate (`training.initial`)."""

from framework.run.loading import load_trained
from framework.study.case import Case
from framework.study.component import SURROGATE, Component, settings_with_defaults
from framework.study.identity import first_difference
from solvers.base import Solver
from surrogates.base import Surrogate


def start_from_initial(case: Case, surrogate: Surrogate) -> None:
    """Give a new surrogate the weights and the normalisation of the one that the study names.

    Its static fields stay those of the study's solver. Does nothing if the study names none. Raises
    StudyError if there is none, or it is of other settings, parameters, fields or grid; and
    RunError if MLflow cannot be reached.
    """
    initial = case.study.training.initial
    if initial is None:
        return
    there = load_trained(initial)
    trained = there.surrogate
    theirs = _meaning(there.study.surrogate, there.solver)
    if difference := first_difference(theirs, _meaning(case.study.surrogate, case.solver)):
        raise case.mistake(f"training.initial is {initial}, another surrogate: {difference}")
    if case.study.training.precision == "float64":
        surrogate.double()
    tensors, own = trained.tensors(), surrogate.tensors()
    tensors["static"] = own["static"]
    wrong = [name for name, tensor in own.items() if tensor.shape != tensors[name].shape]
    if wrong:
        name, grid = case.study.surrogate.name, trained.problem.grid
        raise case.mistake(
            f"training.initial is {initial}, which was trained on a grid of {grid}: the {name} is "
            f"bound to it, and cannot go on with {surrogate.problem.grid}"
        )
    surrogate.load_state_dict(tensors)


def _meaning(component: Component, solver: Solver) -> dict[str, object]:
    """Return what has to be equal for weights to mean the same, named as in messages."""
    return {
        "surrogate": {"name": component.name, **settings_with_defaults(component, SURROGATE)},
        "solver.parameters": {item.name: item.units for item in solver.parameters.items},
        "solver.fields": {field.name: field.units for field in solver.fields},
    }
