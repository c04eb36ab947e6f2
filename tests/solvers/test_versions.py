"""A built-in solver whose results change has another version: stores rely on that.

If this fails on purpose, raise `version` of that solver, and write the new numbers by
`python tests/solvers/test_versions.py`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from solvers.base import Solver
from solvers.burgers import Burgers
from solvers.darcy import Darcy
from solvers.gray_scott import GrayScott
from solvers.heat import Heat
from solvers.kuramoto_sivashinsky import KuramotoSivashinsky
from solvers.lorenz import Lorenz
from solvers.navier_stokes import NavierStokes
from solvers.table import TABLE
from solvers.tumor.fisher_kolmogorov import FisherKolmogorov
from solvers.tumor.two_species import TwoSpecies

REFERENCES = Path(__file__).parent.parent / "data" / "solver_versions.json"
SOLVERS: dict[str, Solver] = {
    "burgers": Burgers(64, 4, 0.2),
    "kuramoto_sivashinsky": KuramotoSivashinsky(64, stored_steps=4, final_time=2.0),
    "gray_scott": GrayScott(32, stored_steps=4, final_time=60.0, substeps=4),
    "navier_stokes": NavierStokes(32, 4, 0.3, 4),
    "darcy": Darcy(17),
    "lorenz": Lorenz(4, 0.2),
    "heat": Heat(9, 4),
    "fisher_kolmogorov": FisherKolmogorov(grid_size=24, stored_steps=3),
    "two_species": TwoSpecies(grid_size=24, stored_steps=3),
}


def result(solver: Solver) -> dict[str, Any]:
    """The version, and two sums over each field at each stored time, in the middle of the prior.

    The second one, of the values by their places, sees what only moves.
    """
    middle = solver.parameters.from_unit(np.full(len(solver.parameters), 0.4))
    fields = np.stack(list(solver.solve(middle, 7))).astype(np.float64)
    flat = fields.reshape(*fields.shape[:2], -1)
    places = np.linspace(1, 2, flat.shape[2])
    return {
        "version": solver.version,
        "norms": np.linalg.norm(flat, axis=2).tolist(),
        "moments": np.linalg.norm(flat * places, axis=2).tolist(),
    }


def test_all_solvers_that_compute_have_a_reference() -> None:
    assert {*SOLVERS, "external"} == set(TABLE)
    assert set(json.loads(REFERENCES.read_text())) == set(SOLVERS)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_version_means_its_results(name: str) -> None:
    reference, found = json.loads(REFERENCES.read_text())[name], result(SOLVERS[name])
    assert found["version"] == reference["version"]
    for key in ("norms", "moments"):
        np.testing.assert_allclose(found[key], reference[key], rtol=2e-5, err_msg=__doc__ or "")


if __name__ == "__main__":
    found = {name: result(solver) for name, solver in SOLVERS.items()}
    REFERENCES.write_text(json.dumps(found, indent=1) + "\n")
