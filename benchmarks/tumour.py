"""How fast a tumour grows on a brain's grid, against the field's explicit scheme in numpy.

    python benchmarks/tumour.py [--grid 128] [--simulations 3] [--step 0.75] [--first 0]

Every simulation is drawn from the filtered prior and computed in three ways, on one thread, all
from the same cells on the same tissue:

- explicit: what TumorGrowthToolkit does, in our own words: forward Euler near its stability limit
  (8 D T / h^2 + 100 steps), arrays rolled along each axis, float64 numpy, on the tissue's bounding
  box with a margin of two voxels. Only the final state is made.
- millstream: the solver as it is, eleven stored states of the whole grid included; the median of
  three runs.
- the reference: the same solver in float64, with steps FINE times as short and a window that
  reaches to 1e-14. The tests check that scheme against others.

How to read it: seconds of the processor for a simulation, which on a shared machine vary less than
those of the clock, and their ratio; the goal is 50. Errors are those at the end, against the
reference, in the relative L2 norm and in the volume at c >= 0.2; the comparison is fair where
millstream's are not larger. The share of copy bandwidth is what the steps of diffusion read and
write, over what np.copyto reads and writes in the same time in arrays that do not fit into the
cache; more than 1 means that the windows do.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from table import print_table

from solvers.tumor import growth, window
from solvers.tumor.diffusion import Diffusion, stages
from solvers.tumor.fisher_kolmogorov import GREY_MOBILITY, FisherKolmogorov
from solvers.tumor.seed import seed

Floats = NDArray[np.float64]
FINE = 10
# How many arrays of the window's size a stage of diffusion reads or writes.
STREAMS_A_STAGE = 33


def explicit(solver: FisherKolmogorov, cells: Floats, spread: float, rate: float) -> Floats:
    """Forward Euler for D T = `spread` and rho T = `rate`, on the tissue's bounding box."""
    box = tuple(slice(max(a - 2, 0), b + 2) for a, b in solver.limits)
    mask = solver.tissue.mask[box]
    mobility = (solver.tissue.white + GREY_MOBILITY * solver.tissue.grey)[box].astype(float)
    h = solver.grid.spacing[0]
    count = int(np.ceil(8 * spread / h**2 + 100))
    ahead, behind = [], []
    for axis in range(3):
        pair = mask & np.roll(mask, -1, axis)
        faces = np.where(pair, (mobility + np.roll(mobility, -1, axis)) / 2, 0) * spread
        ahead.append(faces)
        behind.append(np.roll(faces, 1, axis))
    c = cells[box].astype(float)
    for _ in range(count):
        change = rate * c * (1 - c)
        for axis in range(3):
            inflow = behind[axis] * (np.roll(c, 1, axis) - c)
            outflow = ahead[axis] * (c - np.roll(c, -1, axis))
            change += (inflow - outflow) / h**2
        c += change / count
    whole = np.zeros(cells.shape)
    whole[box] = c
    return whole


class Counted(Diffusion):
    """Diffusion that knows how many bytes it has moved."""

    moved = 0

    def advance(self, u: torch.Tensor, step: float) -> None:
        Counted.moved += u.nbytes * STREAMS_A_STAGE * stages(step * self._largest)
        super().advance(u, step)


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = run()
    return result, time.process_time() - start


def last(solver: FisherKolmogorov, parameters: Floats) -> NDArray[np.float32]:
    """The final cells; every stored state is made and let go, as a consumer would."""
    for fields in solver.solve(parameters, 0):
        cells = fields[0]
    return cells


def copy_bandwidth() -> float:
    """Bytes that np.copyto reads and writes in a second."""
    source, target = np.ones(2**24), np.zeros(2**24)
    best = min(timed(lambda: np.copyto(target, source))[1] for _ in range(5))
    return 2 * source.nbytes / best


def reference(grid: int, step: float, parameters: Floats) -> NDArray[np.float32]:
    solver = FisherKolmogorov(grid, stored_steps=2, step=step / FINE)
    solver.precision = torch.float64
    empty, spreading = window.EMPTY, growth.SPREADING
    window.EMPTY, growth.SPREADING = 1e-14, spreading / FINE
    cells = last(solver, parameters)
    window.EMPTY, growth.SPREADING = empty, spreading
    return cells


def errors(cells: NDArray[Any], exact: NDArray[Any]) -> str:
    l2 = np.linalg.norm(cells - exact) / np.linalg.norm(exact)
    volume = (cells >= 0.2).sum() / max((exact >= 0.2).sum(), 1) - 1
    return f"{l2:.2%} {volume:+.1%}"


def row(solver: FisherKolmogorov, parameters: Floats, bandwidth: float) -> tuple[list[str], float]:
    """A line of the table, and the ratio of the times."""
    spread, rate = parameters[0] ** 2, parameters[1]
    cells = seed(solver.tissue, parameters[2:])
    last(solver, parameters)  # memory is touched for the first time
    Counted.moved = 0
    runs = [timed(lambda: last(solver, parameters)) for _ in range(3)]
    ours, seconds = runs[0][0], float(np.median([run[1] for run in runs]))
    share = Counted.moved / 3 / seconds / bandwidth
    theirs, slow = timed(lambda: explicit(solver, cells, spread, rate))
    exact = reference(solver.grid.shape[0], solver.step, parameters)
    line = [
        f"{parameters[0]:.1f} mm, {rate:.1f}",
        f"{(exact >= 0.2).sum() * solver.grid.spacing[0] ** 3 / 1000:.1f}",
        f"{slow:.2f}",
        f"{seconds:.3f}",
        f"{slow / seconds:.0f}",
        errors(theirs, exact),
        errors(ours, exact),
        f"{share:.2f}",
    ]
    return line, slow / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--grid", type=int, default=128)
    parser.add_argument("--simulations", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first simulation of the design")
    parser.add_argument("--step", type=float, default=0.75)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    growth.Diffusion = Counted  # type: ignore[misc]
    bandwidth = copy_bandwidth()
    solver = FisherKolmogorov(arguments.grid, step=arguments.step)
    points = np.random.default_rng(0).random((arguments.first + arguments.simulations, 5))
    lines, ratios = [], []
    for parameters in solver.parameters.from_unit(points[arguments.first :]):
        line, ratio = row(solver, parameters, bandwidth)
        lines.append(line)
        ratios.append(ratio)
    head = ["sqrt_DT, rho_T", "cm3", "explicit s", "millstream s", "ratio"]
    print_table([*head, "its error", "our error", "of copy"], lines)
    print(f"ratio: median {np.median(ratios):.0f}; np.copyto: {bandwidth / 1e9:.1f} GB/s")


if __name__ == "__main__":
    main()
