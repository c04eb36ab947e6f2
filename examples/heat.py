"""Heat conduction on the unit square, du/dt = d2u/dx2 + d2u/dy2, each side held at its temperature:
the equation of the solver `heat`, by central differences in space and explicit Euler steps.

Its settings come from the environment.
"""

import math
import os
import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parent.parent / "clients" / "python"))
import millstream_client as millstream

n, stored_steps = int(os.environ["GRID_SIZE"]), int(os.environ["STORED_STEPS"])
final_time = float(os.environ["FINAL_TIME"])
initial, left, right, bottom, top = map(float, os.environ["TEMPERATURES"].split())

# Explicit Euler is stable up to h^2 / 4; this is the largest step below h^2 / 5 that fits.
h, interval = 1 / (n - 1), final_time / (stored_steps - 1)
substeps = math.ceil(interval / (h**2 / 5))
weight = interval / substeps / h**2

# u[y, x]; a corner has the mean of its two sides.
u = np.full((n, n), initial)
u[:, 0], u[:, -1], u[0], u[-1] = left, right, bottom, top
u[0, 0], u[0, -1] = (left + bottom) / 2, (right + bottom) / 2
u[-1, 0], u[-1, -1] = (left + top) / 2, (right + top) / 2

millstream.init()
for step in range(stored_steps):
    millstream.send(step, "temperature", u)
    for _ in range(substeps if step < stored_steps - 1 else 0):
        neighbours = u[1:-1, :-2] + u[1:-1, 2:] + u[:-2, 1:-1] + u[2:, 1:-1]
        u[1:-1, 1:-1] += weight * (neighbours - 4 * u[1:-1, 1:-1])
millstream.finalize()
