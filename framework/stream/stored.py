"""Training from a store instead of a stream: shuffled epochs over its complete simulations.

An epoch puts the simulations in a random order and goes through them in portions that fit the
buffer's capacity; the windows of a portion are shuffled. If everything fits there is one portion,
and it is read once. Everything random is a function of the seed, the epoch and the portion, so a
checkpoint needs only a position in an epoch.

Shapes: S simulations, K kept steps, w steps in a window, n windows in a batch, C fields,
p parameters, `*grid` the grid's axes.
"""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from framework.errors import StudyError
from framework.store.reader import StoreReader
from framework.stream.ledger import Ledger
from framework.stream.samples import Batch, Samples
from framework.study.identity import first_difference
from framework.study.streams import Stream, generator

# Windows for the statistics are handed over in pieces of about this size.
_PIECE_BYTES = 4 * 2**20


def check_source(source: StoreReader, identity: dict[str, Any]) -> None:
    """Raise StudyError unless the store is of the same solver as a study with this identity."""
    parts = ("solver", "fields", "grid", "stored_steps")
    there, here = ({part: study[part] for part in parts} for study in (source.study, identity))
    there["parameters"], here["parameters"] = (
        list(study["design"]["bounds"]) for study in (source.study, identity)
    )
    if difference := first_difference(there, here):
        raise StudyError(
            f"training.source is {source.path}, a store of another solver: {difference}; give a "
            "store that was written with this study's solver"
        )


class StoredSamples:
    """A `Source` of every window of a store, once an epoch, in batches.

    `received` counts the different samples read so far; it and the length may be read from any
    thread.
    """

    sink = None  # nothing is received for training

    def __init__(
        self,
        source: StoreReader,
        ledger: Ledger,
        capacity: int,
        batch_size: int,
        epochs: int,
        seed: int,
        simulations: int | None = None,
        device: str = "cpu",
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """`capacity`: samples in memory, on the `device`.

        `ledger`: has the window, and is told what was trained on. `simulations`: how many to train
        on, the first ones; all by default. `part`: (k, n) if this is rank k of n, which share them.
        Raises StudyError if the store cannot be trained on.
        """
        window = ledger.window
        self.source = source
        self._ledger = ledger
        self.lock = threading.RLock()
        self.received = 0
        self._batch_size = batch_size
        self._window = window
        self._epochs = epochs
        self._seed = seed
        self._closed = threading.Event()
        self._epoch = 0
        self._position = 0  # in the epoch, in windows
        self._simulations: NDArray[np.int64] = source.complete[:simulations]
        self._windows = len(source.steps) - window + 1  # of one simulation
        self._check(capacity, simulations or 1, part[1])
        self._count = len(self._simulations)  # of all ranks
        self._simulations = self._simulations[part[0] :: part[1]]
        self._rows = min(capacity // self._windows, len(self._simulations))
        self._portion = (-1, 0)  # the one in memory: its epoch and its number
        self._held: NDArray[np.int64] = self._simulations[:0]  # its simulations, one a row
        self._order: NDArray[np.int64] = self._simulations[:0]  # its windows, shuffled
        steps, parameters = len(source.steps), source.parameters.shape[1]
        self._tensors = tuple(
            torch.empty(self._rows, *shape, dtype=torch.float32, device=device)
            for shape in ((parameters,), (steps,), (steps, *source.field_shape))
        )

    def __len__(self) -> int:
        """How many samples are in memory."""
        return len(self._held) * self._windows

    @property
    def identity(self) -> dict[str, Any]:
        """The identity of the data that is trained on."""
        return {**self.source.identity, "simulations": self._count}

    @property
    def samples(self) -> int:
        """How many different samples there are, which is what an epoch draws."""
        return len(self._simulations) * self._windows

    def progress(self, drawn: float, unique_trained: float) -> float:
        """Return the share done of all epochs."""
        return drawn / (self._count * self._windows * self._epochs)

    def counts(self) -> tuple[int, int]:
        """Count the different samples in the store, and how many of them are untrained."""
        return self.samples, self.samples - self._ledger.unique_trained

    def get(self, seconds: float | None = None) -> Batch | None:
        """Return the next batch; None at the end, or once closed.

        The last batch of an epoch may be short. Waits while the next portion is read. Raises
        RunError if the store is damaged.
        """
        with self.lock:
            if self._epoch == self._epochs:
                return None
            parts, position = [], self._position
            end = min(position + self._batch_size, self.samples)
            while position < end:  # a batch may begin in one portion and end in the next
                self._load(position)
                if self._closed.is_set():
                    return None
                parts.append(self._take(position, end))
                position += len(parts[-1])
            self._position = end
            if end == self.samples:
                self._epoch, self._position = self._epoch + 1, 0
            return parts[0] if len(parts) == 1 else _one_batch(parts)

    def close(self) -> None:
        """Make `get` return None from now on, and stop a read under way."""
        self._closed.set()

    def statistics(self) -> Iterator[Samples]:
        """Yield the samples of the first portion: as many as fit, of random simulations.

        They stay in memory for the first batches.
        """
        with self.lock:
            self._load(self._position)
            starts = np.arange(self._windows)
            size = 4 * self._window * self._tensors[2][0, 0].numel()
            pieces = np.array_split(starts, -(-len(starts) * size // _PIECE_BYTES))
            for row in range(len(self._held)):
                for piece in pieces:
                    batch = self._gather(np.full(len(piece), row), piece)
                    arrays = (batch.parameters, batch.times, batch.fields)
                    yield Samples(
                        batch.simulation,
                        batch.first_step,
                        *(tensor.cpu().numpy() for tensor in arrays),
                    )

    def state(self) -> dict[str, Any]:
        """Return what decides the next batches, as plain numbers and a tensor."""
        with self.lock:
            return {
                "epoch": self._epoch,
                "position": self._position,
                "received": self.received,
                "simulations": torch.from_numpy(self._simulations),
            }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, with the same simulations even if the store grew.

        Raises StudyError if it lacks one of them.
        """
        with self.lock:
            simulations = state["simulations"].numpy()
            if not np.isin(simulations, self.source.complete).all():
                raise StudyError(
                    f"training.source is {self.source.path}, which lacks simulations that the run "
                    "was trained on before: give the store that it was started with"
                )
            self._simulations = simulations
            self._epoch, self._position = state["epoch"], state["position"]
            self.received = state["received"]

    def _check(self, capacity: int, simulations: int, ranks: int) -> None:
        source = self.source
        given = f"training.source is {source.path}"
        if not len(self._simulations):
            raise StudyError(
                f"{given}, which has no complete simulation: run `millstream simulate` on its study"
            )
        if len(self._simulations) < simulations:
            raise StudyError(
                f"training.simulations is {simulations}, but {source.path} has "
                f"{len(self._simulations)} complete ones: lower it, or simulate more"
            )
        if len(self._simulations) < ranks:
            raise StudyError(
                f"training.ranks is {ranks}, but {len(self._simulations)} simulations are trained "
                "on: lower it, so that each rank has one"
            )
        if self._window > 1 and (self._windows < 1 or (np.diff(source.steps) != 1).any()):
            raise StudyError(
                f"{given}, of which store.keep is {source.study['store']['keep']}, but the "
                f"surrogate learns from {self._window} consecutive steps: simulate with store.keep "
                "all, or choose a direct surrogate"
            )
        if capacity < self._windows:
            raise StudyError(
                f"buffer.capacity is {capacity}: to train from {source.path} it has to hold "
                f"a whole simulation, {self._windows} samples"
            )

    # A portion has `_rows` simulations, the last one of an epoch perhaps fewer; p counts portions.

    def _load(self, position: int) -> None:
        """Load the portion that a position in the epoch lies in; stop early when closed."""
        p = position // (self._rows * self._windows)
        if self._portion == (self._epoch, p):
            return
        epoch = generator(self._seed, Stream.EPOCH, self._epoch)
        shuffled = epoch.permutation(self._simulations)[p * self._rows : (p + 1) * self._rows]
        self._read(np.sort(shuffled))
        if self._closed.is_set():
            return
        order = generator(self._seed, Stream.PORTION, self._epoch, p)
        self._order = order.permutation(len(self))
        self._portion = (self._epoch, p)
        if self._epoch == 0:
            self.received = max(self.received, p * self._rows * self._windows + len(self))

    def _read(self, simulations: NDArray[np.int64]) -> None:
        if np.array_equal(simulations, self._held):
            return
        self._held = simulations[:0]
        parameters, times, fields = self._tensors
        for row, simulation in enumerate(simulations.tolist()):
            if self._closed.is_set():
                return
            parameters[row] = torch.from_numpy(self.source.parameters[simulation])
            times[row] = torch.from_numpy(self.source.t[simulation])
            fields[row] = torch.from_numpy(self.source.fields(simulation))
        self._held = simulations

    def _take(self, position: int, end: int) -> Batch:
        """Return the windows at these positions of the epoch that are in memory."""
        start = position % (self._rows * self._windows)
        chosen = self._order[start : start + end - position]
        return self._gather(*np.divmod(chosen, self._windows))

    def _gather(self, rows: NDArray[np.int64], starts: NDArray[np.int64]) -> Batch:
        """Return the windows that begin in these rows at these kept steps."""
        parameters, times, fields = self._tensors
        kept = times.shape[1]
        first = torch.from_numpy(rows * kept + starts)
        steps = (first[:, None] + torch.arange(self._window)).flatten().to(fields.device)

        def windows(tensor: Tensor) -> Tensor:  # [rows, K, ...] -> [n, w, ...]
            chosen = tensor.flatten(0, 1).index_select(0, steps)
            return chosen.view(len(rows), self._window, *chosen.shape[1:])

        return Batch(
            self._held[rows],
            self.source.steps[starts],
            parameters.index_select(0, torch.from_numpy(rows).to(fields.device)),
            windows(times),
            windows(fields),
        )


def _one_batch(parts: list[Batch]) -> Batch:
    columns = [[getattr(part, name) for part in parts] for name in vars(parts[0])]
    return Batch(
        np.concatenate(columns[0]),
        np.concatenate(columns[1]),
        *(torch.cat(tensors) for tensors in columns[2:]),
    )
