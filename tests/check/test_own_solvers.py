"""Our own solvers are what the checks ask of a solver, and have the orders that they claim."""

from typing import Any

import pytest
from checking import LIMIT, outcomes

from framework.check.named import check_class
from solvers.base import Solver
from solvers.burgers import Burgers
from solvers.darcy import Darcy
from solvers.gray_scott import GrayScott
from solvers.heat import Heat
from solvers.kuramoto_sivashinsky import KuramotoSivashinsky
from solvers.lorenz import Lorenz
from solvers.navier_stokes import NavierStokes
from solvers.tumor.fisher_kolmogorov import FisherKolmogorov
from solvers.tumor.two_species import TwoSpecies

pytestmark = pytest.mark.usefixtures("one_thread")

SPACE, TIME = "order in space", "order in time"
# Each in a size that takes little time, and the orders that cannot be measured: Lorenz has no
# space, Darcy no time, and an atlas and a seed of another grid are another problem.
CASES: list[tuple[type[Solver], dict[str, Any], set[str]]] = [
    (Heat, {"grid_size": 33, "stored_steps": 5, "dimensions": 1}, set()),
    (Heat, {"grid_size": 33, "stored_steps": 5}, set()),
    (Heat, {"grid_size": 17, "stored_steps": 5, "dimensions": 3}, set()),
    (Burgers, {"points": 64, "stored_steps": 3, "final_time": 0.5, "substeps": 32}, set()),
    (
        KuramotoSivashinsky,
        {"points": 64, "stored_steps": 3, "final_time": 8.0, "substeps": 32},
        set(),
    ),
    (
        GrayScott,
        {"points": 64, "stored_steps": 3, "final_time": 200.0, "substeps": 16},
        set(),
    ),
    (NavierStokes, {"points": 32, "stored_steps": 3, "final_time": 0.8, "substeps": 16}, set()),
    (Darcy, {"grid_size": 33}, {TIME}),
    (Lorenz, {"stored_steps": 3, "final_time": 2.0, "substeps": 64}, {SPACE}),
    (FisherKolmogorov, {"grid_size": 24, "stored_steps": 3}, {SPACE}),
    (TwoSpecies, {"grid_size": 24, "stored_steps": 3}, {SPACE}),
]


def name(value: object) -> str:
    return value.__name__ if isinstance(value, type) else ""


@pytest.mark.parametrize(("kind", "settings", "unmeasured"), CASES, ids=name)
def test_a_solver_of_ours_passes_every_check(
    kind: type[Solver], settings: dict[str, Any], unmeasured: set[str]
) -> None:
    checked = check_class(kind, settings, LIMIT)
    assert not checked.failures, checked.text()
    found = outcomes(checked.findings)
    assert {check for check, outcome in found.items() if outcome == "skipped"} == unmeasured, (
        checked.text()
    )
