"""How much a tumour in the brain depends on the grid: 64^3, 96^3 and 128^3.

    python benchmarks/tumour_grids.py [--simulations 6] [--grids 64 96 128]

The same parameters on every grid, drawn from the filtered prior of the coarsest, so that all of
them resolve the front. On each grid the atlas is averaged anew, so that thin tissue and its gaps
differ, too.

How to read it: the volume at c >= 0.2 and at c >= 0.6, and the mass of cells, at the end, as
differences from those on the finest grid; then the front's width over the coarsest spacing.
"""

import argparse

import numpy as np
import torch
from numpy.typing import NDArray
from table import print_table

from solvers.tumor.fisher_kolmogorov import FisherKolmogorov


def sizes(solver: FisherKolmogorov, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Volumes at c >= 0.2 and at c >= 0.6 and the mass of cells, all in cm3."""
    *_, final = solver.solve(parameters, 0)
    counts = [(final >= 0.2).sum(), (final >= 0.6).sum(), final.sum(dtype=np.float64)]
    return np.array(counts) * np.prod(solver.grid.spacing) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--simulations", type=int, default=6)
    parser.add_argument("--grids", type=int, nargs="+", default=[64, 96, 128])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    solvers = [FisherKolmogorov(n, stored_steps=2) for n in sorted(arguments.grids)]
    points = np.random.default_rng(0).random((arguments.simulations, 5))
    lines = []
    for parameters in solvers[0].parameters.from_unit(points):
        *coarse, finest = (sizes(solver, parameters) for solver in solvers)
        width = parameters[0] / np.sqrt(parameters[1]) / solvers[0].grid.spacing[0]
        line = [f"{parameters[0]:.1f} mm, {parameters[1]:.1f}", f"{finest[0]:.1f}"]
        for size in coarse:
            line.append(" ".join(f"{change:+.1%}" for change in size / finest - 1))
        lines.append([*line, f"{width:.1f}"])
    head = ["sqrt_DT, rho_T", "cm3", *(f"{s.grid.shape[0]}^3" for s in solvers[:-1]), "width"]
    print_table(head, lines)


if __name__ == "__main__":
    main()
