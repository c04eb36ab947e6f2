"""One run: wires the parts, starts and ends them, and says what came of it.

    design --simulations--> solver actors --blocks--> receive thread --samples--> buffer
                                                        |                           | batches
                                     held-out blocks    v                           v
                     Ray task <--weights, trajectories-- validation <--after steps-- training loop

    who waits             for whom                                            until
    a solver actor        the receive thread, with CREDIT messages ready      one is drawn
    the receive thread    the buffer                                          a place is free
    the training loop     the buffer                                          a batch is permitted
    validation, progress  nobody; and nobody for them, but for the last score

This process holds the receive thread, the buffer and the training loop; solvers and scoring have
processes of their own. Whoever fails closes the buffer, which wakes the other side: the receive
thread's error is raised here once the training loop has returned. However a run ends, the weights
and the summary of what was done are written.
"""

import json
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from framework.buffer import make_buffer
from framework.ensemble import Ensemble, EnsembleConfig, steps_per_block
from framework.errors import RunError, StudyError
from framework.ledger import Ledger
from framework.study import Study
from framework.trainer import FieldStatistics, Reception, Trainer
from framework.validation import Validation

# Seconds between two lines of progress.
_PROGRESS_SECONDS = 5.0
# Optimiser steps between two looks at the loss: on a GPU each look waits for the step to finish.
_CHECK_STEPS = 20


def train(study: Study) -> dict[str, Any]:
    """Simulate, stream and train as the study says; return the summary (see `Run.summary`).

    Raises StudyError before anything is started, and RunError when the run cannot be finished.
    """
    run = Run(study)
    run.train()
    return run.summary()


class Run:
    """One training run, in a directory of its own under runs/."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.directory = Path()
        self._status = "new"
        self._seconds = 0.0
        self._steps_while_simulating = 0
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        solver, design = study.solver_factory()(), study.make_design()
        field_shape = (len(solver.fields), *solver.grid.shape)
        held_out, training = study.validation.simulations, study.design.simulations
        self._ensemble = Ensemble(
            study.solver_factory(),
            study.ensemble,
            chain(map(design.held_out, range(held_out)), map(design.training, range(training))),
            held_out + training,
            solver.stored_steps,
            steps_per_block(
                study.ensemble.group_size, solver.stored_steps, 4 * math.prod(field_shape)
            ),
        )
        torch.manual_seed(study.seed)
        self.surrogate = study.surrogate_factory()()
        self._ledger = Ledger(solver.stored_steps, self.surrogate.window)
        _check_memory(study, 4 * self.surrogate.window * math.prod(field_shape))
        try:
            self._buffer = make_buffer(
                study.buffer,
                study.training.batch_size,
                self.surrogate.window,
                len(solver.parameters),
                field_shape,
                study.seed,
            )
        except ValueError as error:
            raise StudyError(str(error)) from None
        self._trainer = Trainer(
            self.surrogate,
            study.training,
            self._device,
            self._buffer,
            self._ledger,
            training * self._ledger.samples_per_simulation,
        )
        self._validation = Validation(
            study.surrogate_factory(), solver.stored_steps, study.validation.cpus
        )
        self._statistics = FieldStatistics(len(solver.fields))
        self._reception = Reception(
            self._ensemble, self._ledger, self._buffer, self._statistics, self._validation.add
        )

    def train(self) -> None:
        """Run to the study's stop. However it ends, weights and summary are written."""
        started = time.monotonic()
        self.directory = _new_directory(self.study.name)
        self.study.save(self.directory / "study.yaml")
        names = f"{self.study.solver.name} into {self.study.surrogate.name}"
        print(f"{self.directory}: {names}, training on {self._device}", file=sys.stderr)
        self._status = "failed"
        with _Progress(self._line):
            try:
                with _ray(self.study.ensemble, self.study.validation.cpus):
                    self._stream_and_train()
                self._status = "done"
            except KeyboardInterrupt:
                self._status = "interrupted"
                raise
            finally:
                self._seconds = time.monotonic() - started
                if self._trainer.step:
                    torch.save(self.surrogate.tensors(), self.directory / "model.pt")
                text = json.dumps(self.summary(), indent=2)
                (self.directory / "summary.json").write_text(text + "\n")

    def summary(self) -> dict[str, Any]:
        """What was done so far, as plain numbers for JSON.

        `samples` counts different samples, but for `drawn`; `produced` is what the solvers
        delivered, `received` what entered the buffer.
        """
        quarantined = self._ensemble.quarantined
        received, untrained = self._ledger.count()
        trainer = self._trainer
        summary = {
            "run_dir": str(self.directory),
            "status": self._status,
            "simulations": {
                "requested": self.study.design.simulations,
                "completed": sum(id >= 0 for id in self._ensemble.completed),
                "quarantined": sum(item.simulation.id >= 0 for item in quarantined),
            },
            "quarantined": [
                {
                    "simulation": item.simulation.id,
                    "parameters": self._named(item.simulation.parameters),
                    "step": item.step,
                    "error": item.error,
                }
                for item in quarantined
            ],
            "samples": {
                "produced": received,
                "received": self._buffer.received,
                "unique_trained": self._ledger.unique_trained,
                "untrained": untrained,
                "drawn": trainer.drawn,
            },
            "training": {
                "steps": trainer.step,
                "steps_while_simulating": self._steps_while_simulating,
                "samples_per_second": _ratio(trainer.drawn, trainer.seconds),
                "wait_fraction": _ratio(trainer.waited, trainer.seconds),
                "loss": float(trainer.loss),
                "device": str(self._device),
            },
            "validation": self._validation.latest,
            "seconds": self._seconds,
        }
        return {key: _without_nan(value) for key, value in summary.items()}

    def _stream_and_train(self) -> None:
        self._reception.start()
        try:
            self._trainer.train(self._statistics, self._after_step)
            if self._reception.error:
                raise self._reception.error
            self._check_loss()
            self._validation.final(self.surrogate, self._trainer.step)
        finally:
            self._ensemble.stop()
            self._buffer.close()
            self._reception.join()
            self._ensemble.close()

    def _after_step(self) -> None:
        self._steps_while_simulating += not self._reception.over.is_set()
        if self._trainer.step % _CHECK_STEPS == 0:
            self._check_loss()
        if self._trainer.step % self.study.validation.every_steps == 0:
            self._validation.submit(self.surrogate, self._trainer.step)

    def _check_loss(self) -> None:
        if not torch.isfinite(self._trainer.loss):
            raise RunError(
                f"training has diverged: the loss is {float(self._trainer.loss)} at step "
                f"{self._trainer.step}; lower training.learning_rate "
                f"({self.study.training.learning_rate:g})"
            )

    def _named(self, parameters: NDArray[np.float64]) -> dict[str, float]:
        return dict(zip(self.surrogate.problem.names, parameters.tolist(), strict=True))

    def _line(self) -> str:
        """One line of progress."""
        received, _ = self._ledger.count()
        requested = self.study.design.simulations
        done = sum(id >= 0 for id in self._ensemble.completed.copy())
        parts = [
            f"simulations {done}/{requested}",
            f"samples {received} received, {self._trainer.drawn} drawn",
            f"buffer {len(self._buffer)}/{self.study.buffer.capacity}",
            f"step {self._trainer.step}",
        ]
        if self._trainer.step:
            parts.append(f"loss {float(self._trainer.loss):.2e}")
        if self._validation.latest:
            error = self._validation.latest["relative_l2"]["mean"]
            parts.append(f"validation {100 * error:.2f} %")
        if self._ensemble.quarantined:
            parts.append(f"quarantined {len(self._ensemble.quarantined)}")
        return ", ".join(parts)


class _Progress:
    """Writes a line to standard error now and then, while it is entered."""

    def __init__(self, line: Callable[[], str]) -> None:
        self._line = line
        self._started = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._write()

    def _run(self) -> None:
        while not self._over.wait(_PROGRESS_SECONDS):
            self._write()

    def _write(self) -> None:
        print(f"[{time.monotonic() - self._started:4.0f} s] {self._line()}", file=sys.stderr)


@contextmanager
def _ray(config: EnsembleConfig, validation_cpus: float) -> Iterator[None]:
    """Ray for the length of a run: the cluster that the study or RAY_ADDRESS names, or a local one.

    A Ray that this process had started before is used and left as it is.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = config.address or os.environ.get("RAY_ADDRESS") or "local"
    # Standard output belongs to the caller, so the workers' output stays in Ray's logs.
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        # A local Ray counts CPUs as the study does: a laptop may run more actors than it has cores.
        cpus = math.ceil(config.actors * config.cpus_per_actor + validation_cpus)
        options |= {"num_cpus": cpus, "include_dashboard": False}
    try:
        ray.init(address, **options)
    except ConnectionError as error:
        raise RunError(f"no Ray cluster answers at {address}: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _new_directory(name: str) -> Path:
    """runs/NAME under the current directory, or runs/NAME-2 and so on where that exists."""
    for number in range(1, 10**6):
        directory = Path("runs", name if number == 1 else f"{name}-{number}")
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            continue
        return directory
    raise RunError(f"runs/{name} has too many runs: remove some")


def _check_memory(study: Study, sample_bytes: int) -> None:
    """Raise StudyError if the buffer cannot be held where the study wants it."""
    if study.buffer.device == "cuda":
        if not torch.cuda.is_available():
            raise StudyError("buffer.device is cuda, but there is no GPU here: set it to cpu")
        free = torch.cuda.mem_get_info()[0]
    else:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = study.buffer.capacity * sample_bytes
    if needed > free:
        raise StudyError(
            f"buffer.capacity is {study.buffer.capacity}: that takes {needed / 2**30:.1f} GiB, "
            f"but there are {free / 2**30:.1f} GiB on {study.buffer.device}; lower the capacity"
        )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
