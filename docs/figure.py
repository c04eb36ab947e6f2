"""Draws docs/quickstart.png: the solver, the surrogate and their difference for one simulation.

After `make demo`:  .venv/bin/python docs/figure.py runs/quickstart
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from framework.prediction import load_surrogate, predict

PARAMETERS = {"initial": 150.0, "left": 480.0, "right": 200.0, "bottom": 300.0, "top": 120.0}
STEPS = (0, 2, 8, 20, 49)


def main(run: str) -> None:
    """Draw the picture from the surrogate of a run."""
    study, _ = load_surrogate(Path(run))
    solver = study.solver_factory()()
    prediction = predict(run, PARAMETERS)
    values = np.array(list(PARAMETERS.values()))
    truth = np.array(list(solver.solve(values, 0)))[:, 0]
    predicted = prediction.field[:, 0]

    figure = Figure(figsize=(10.5, 6.2), layout="constrained", dpi=110)
    axes = figure.subplots(3, len(STEPS))
    for column, step in enumerate(STEPS):
        axes[0, column].set_title(f"t = {prediction.t[step]:.3f}", fontsize=11)
        temperature = {"vmin": 100, "vmax": 500, "cmap": "inferno", "origin": "lower"}
        warm = axes[0, column].imshow(truth[step], **temperature)
        axes[1, column].imshow(predicted[step], **temperature)
        difference = axes[2, column].imshow(
            predicted[step] - truth[step], vmin=-40, vmax=40, cmap="RdBu_r", origin="lower"
        )
        error = np.linalg.norm(predicted[step] - truth[step]) / np.linalg.norm(truth[step])
        axes[2, column].set_xlabel(f"relative L2 {100 * error:.1f} %", fontsize=10)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    for row, name in enumerate(("solver", "surrogate", "difference")):
        axes[row, 0].set_ylabel(name, fontsize=12)
    figure.colorbar(warm, ax=axes[:2], label="temperature [K]", shrink=0.8)
    figure.colorbar(difference, ax=axes[2], label="[K]")
    figure.savefig(Path(__file__).with_name("quickstart.png"))


if __name__ == "__main__":
    main(sys.argv[1])
