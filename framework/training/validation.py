"""Held-out trajectories, scored in a process of their own while training goes on.

Shapes: V held-out simulations, T stored times, C fields, `*grid` the grid's axes.
With e the error and u the reference of one simulation at one time:
- relative L2: ||e|| / ||u|| over all fields and points,
- nRMSE: for each field RMSE(e) / RMS(u), averaged over the fields, as PDEBench defines it
  (arXiv 2210.07182); with one field it equals the relative L2,
- max: the greatest |e|, in the field's units.
A trajectory's score is the mean over its stored times; means and percentiles are taken over
trajectories. Where u is zero there is no relative error: such a time does not count. A prediction
that is infinite or not a number counts as the greatest number of single precision.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from framework.files import replacing, writing
from framework.simulation.block import Block
from surrogates.base import Surrogate

# How many grid points are predicted at once, to bound the memory of scoring.
_POINTS = 2**18


@dataclass(frozen=True)
class Trajectories:
    """Held-out simulations as the solver computed them."""

    simulations: NDArray[np.int64]  # [V]
    parameters: NDArray[np.float32]  # [V, p]
    times: NDArray[np.float32]  # [V, T]
    fields: NDArray[np.float32]  # [V, T, C, *grid]


# The errors of one predictor: name of the measure -> [V, T].
Errors = dict[str, NDArray[np.float64]]


def measure(predicted: NDArray[np.float32], reference: NDArray[np.float32]) -> Errors:
    """The errors of fields [V, T, C, *grid]; an axis of the prediction may have length 1."""
    worst = float(np.finfo(np.float32).max)
    finite = np.nan_to_num(predicted.astype(np.float64), nan=worst, posinf=worst, neginf=-worst)
    error = finite - reference
    points = tuple(range(3, reference.ndim))
    squared_error = np.square(error).sum(points)  # [V, T, C]
    squared_norm = np.square(reference, dtype=np.float64).sum(points)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.sqrt(squared_error.sum(-1) / squared_norm.sum(-1))
        by_field = np.sqrt(squared_error / squared_norm)
    relative[squared_norm.sum(-1) == 0] = np.nan
    by_field[squared_norm == 0] = np.nan
    return {
        "relative_l2": relative,
        "nrmse": _mean(by_field, -1),
        "max": np.abs(error).max((2, *points)),
    }


def score(surrogate: Surrogate, held_out: Trajectories) -> Errors:
    """The surrogate's errors on the held-out trajectories; autoregressive ones by rollout."""
    predicted = np.empty_like(held_out.fields)
    chunk = max(1, _POINTS // held_out.fields[0, 0].size)
    for start in range(0, len(predicted), chunk):
        part = slice(start, start + chunk)
        rollout = surrogate.rollout(
            torch.tensor(held_out.parameters[part]),
            torch.tensor(held_out.times[part]),
            torch.tensor(held_out.fields[part, 0]),
        )
        for step, fields in enumerate(rollout):
            predicted[part, step] = fields.numpy()
    return measure(predicted, held_out.fields)


def trivial_errors(held_out: Trajectories) -> dict[str, float]:
    """Mean relative L2 of two predictors that know nothing of the physics.

    `mean_field` is, at each time, the mean of the held-out trajectories themselves: the best that
    any fixed field can do. `initial_field` is that of the first stored step.
    """
    predictors = {
        "mean_field": held_out.fields.mean(0, keepdims=True, dtype=np.float64),
        "initial_field": held_out.fields[:, :1],
    }
    return {
        name: _overall(measure(fields.astype(np.float32), held_out.fields)["relative_l2"])
        for name, fields in predictors.items()
    }


def summarise(errors: Errors, held_out: Trajectories) -> dict[str, Any]:
    """The scores as plain numbers, over all times and for each stored time."""
    relative = errors["relative_l2"]
    by_error = np.argsort(_mean(relative, 1))
    return {
        "simulations": len(relative),
        "median_simulation": int(held_out.simulations[by_error[(len(relative) - 1) // 2]]),
        "relative_l2": _distribution(_mean(relative, 1)),
        "nrmse": _overall(errors["nrmse"]),
        "max": float(errors["max"].max()),
        "trivial": trivial_errors(held_out),
        "per_time": [
            {
                "t": float(held_out.times[:, step].mean()),
                "relative_l2": _distribution(relative[:, step]),
                "nrmse": float(_mean(errors["nrmse"][:, step], 0)),
                "max": float(errors["max"][:, step].max()),
            }
            for step in range(relative.shape[1])
        ],
    }


class Validation:
    """Collects held-out blocks and has surrogates scored, as Ray tasks, which Ray retries.

    `add` is called by the receive thread, the rest by the training loop.
    """

    def __init__(
        self,
        make_surrogate: Callable[[], Surrogate],
        stored_steps: int,
        cpus: float,
        directory: Path | None = None,
    ) -> None:
        """`directory`: where complete trajectories are kept, for a run that is resumed."""
        self.latest: dict[str, Any] | None = None
        self._make_surrogate = make_surrogate
        self._stored_steps = stored_steps
        self._directory = directory
        self._score = ray.remote(_score_task).options(num_cpus=cpus)
        self._blocks: dict[int, list[Block]] = {}
        self._held_out: Any = None  # reference to the trajectories that were complete
        self._completions = 0  # how often a trajectory became complete
        self._put = 0  # that number when the trajectories were last put
        self._outstanding: Any = None

    def add(self, block: Block) -> None:
        """Keep a block of a held-out simulation; a block with its first step begins it anew."""
        if block.first_step == 0:
            self._blocks[block.simulation] = []
        blocks = self._blocks[block.simulation]
        blocks.append(block)
        if sum(map(len, blocks)) == self._stored_steps:
            self._completions += 1
            self._keep(block.simulation)

    def load(self) -> set[int]:
        """Take up the trajectories that an earlier process has kept; return their ids."""
        assert self._directory is not None
        for path in sorted(self._directory.glob("*.npz")):
            with np.load(path) as kept:
                id, steps = -1 - int(path.stem), len(kept["times"])
                unused = np.zeros(steps, dtype=np.uint32)
                block = Block(id, 0, kept["fields"], kept["parameters"], kept["times"], unused)
            self._blocks[id] = [block]
            self._completions += 1
        return set(self._blocks)

    def trajectory(self, simulation: int) -> Trajectories:
        """One complete trajectory."""
        return _join([self._blocks[simulation]])

    def _keep(self, simulation: int) -> None:
        if self._directory is None:
            return
        with writing(self._directory):
            self._directory.mkdir(exist_ok=True)
        joined = self.trajectory(simulation)
        with (
            replacing(self._directory / f"{-1 - simulation}.npz") as temporary,
            temporary.open("wb") as file,
        ):
            np.savez(
                file,
                parameters=self._blocks[simulation][0].parameters,
                times=np.concatenate([block.times for block in self._blocks[simulation]]),
                fields=joined.fields[0],
            )

    def submit(self, surrogate: Surrogate, step: int) -> None:
        """Start scoring the surrogate as it is now, unless the last scoring is still under way."""
        self.poll()
        completions = self._completions  # read before the blocks, to miss none
        complete = [
            blocks
            for blocks in list(self._blocks.values())
            if sum(map(len, blocks)) == self._stored_steps
        ]
        if self._outstanding is not None or len(complete) < 2:
            return
        if self._put != completions:
            self._held_out = ray.put(_join(complete))
            self._put = completions
        # As numpy arrays, which Ray moves without copying.
        weights = {name: tensor.numpy() for name, tensor in surrogate.tensors().items()}
        self._outstanding = self._score.remote(self._make_surrogate, weights, self._held_out, step)

    def poll(self, timeout: float | None = 0) -> None:
        """Take a finished score into `latest`; wait for it up to `timeout` seconds."""
        if self._outstanding is not None:
            ready, _ = ray.wait([self._outstanding], timeout=timeout)
            if ready:
                self.latest = ray.get(self._outstanding)
                self._outstanding = None

    def final(
        self, surrogate: Surrogate, step: int, interrupted: Callable[[], bool] = lambda: False
    ) -> dict[str, Any] | None:
        """Score the surrogate as it is now, and wait; None without two complete trajectories."""
        self._wait(interrupted)
        self.submit(surrogate, step)
        self._wait(interrupted)
        return self.latest

    def _wait(self, interrupted: Callable[[], bool]) -> None:
        while self._outstanding is not None and not interrupted():
            self.poll(timeout=0.5)


def _score_task(
    make_surrogate: Callable[[], Surrogate],
    weights: dict[str, NDArray[Any]],
    held_out: Trajectories,
    step: int,
) -> dict[str, Any]:
    surrogate = make_surrogate()
    surrogate.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    surrogate.eval()
    return {"step": step, **summarise(score(surrogate, held_out), held_out)}


def _join(trajectories: list[list[Block]]) -> Trajectories:
    return Trajectories(
        np.array([blocks[0].simulation for blocks in trajectories]),
        np.stack([blocks[0].parameters for blocks in trajectories]).astype(np.float32),
        np.stack([np.concatenate([b.times for b in blocks]) for blocks in trajectories]).astype(
            np.float32
        ),
        np.stack([np.concatenate([b.fields for b in blocks]) for blocks in trajectories]),
    )


def _mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """The mean of what is not NaN; NaN where nothing is left."""
    count = np.isfinite(values).sum(axis)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.nansum(values, axis) / count
    return mean


def _overall(values: NDArray[np.float64]) -> float:
    """The mean over trajectories of the scores of errors [V, T]."""
    return float(_mean(_mean(values, 1), 0))


def _distribution(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean, percentiles and maximum of the finite values [V]; all NaN if there are none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return dict.fromkeys(("mean", "p50", "p90", "p99", "max"), float("nan"))
    parts = [values.mean(), *np.percentile(values, (50, 90, 99, 100))]
    return dict(zip(("mean", "p50", "p90", "p99", "max"), map(float, parts), strict=True))
