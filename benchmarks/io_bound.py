"""Training on fields of 1000 x 1000: from a stream, and from a disk that has to be read.

    python benchmarks/io_bound.py [--rounds 3] [--folder /tmp]

16 simulations of the heat equation, 16 stored steps each, make 256 fields of 4 MB: 1 GB, which is
simulated into a store in `--folder` (so name one on the disk to be measured), written once more as
.npy files, and removed at the end. A turn is 32 batches of 8 fields, for all ways the same MLP
(hidden layers of 64 and 4, 5.0 million weights, 240 MFLOP a step) and the same loop, `Trainer`:

- store: `StoredSamples`, what `training.source` reads by, with room for 64 fields.
- loader, store: torch's DataLoader, shuffled, WORKERS worker processes that read ahead, over the
  store, a field (one chunk) at a time.
- loader, npy: the same over a .npy file for every field, without compression.
- online, heat: a reservoir of 64 fields, filled from one solver process as in `millstream train`.
- online, ready: the same, from a solver that costs nothing, as it yields fields computed once: as
  many cores for solvers as it takes.

Online every field is drawn once, or 8 times (replay 1 and 8, both bounds of the band); with heat
once each, which takes the solver long, a turn is 8 batches. A turn offline is one epoch, each field
once. Cold: every file is dropped from the page cache before the turn, and mincore has to find none
of it there; what a host of virtual machines holds of the disk is beyond that. Warm: every file is
in the page cache. The clock runs from the first request for a
batch of the files to the end of the last step, so nothing is read ahead uncounted; the loader's
processes run already, as does online the solver, whose buffer is in its steady state: it receives
in a turn as many fields as its replay says. `different` counts those drawn in a turn and never
before. Nobody validates.

The ways take turns, each with a fresh network, torch with one thread in this process. "Fed" is the
same without a network: every batch is copied once, as if to a GPU. It is what a trainer gets that
is faster than anything here.

How to read it: medians over the rounds; the ratios are those of the rounds, with the quarters below
and above. MB/s are those of float32 fields, whatever they take on the disk.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from page_cache import drop, files_in, read_all
from stream import Stream
from table import print_table, spread
from torch.utils.data import DataLoader, Dataset

from framework.run.assembly import make_buffer, trainer_settings
from framework.run.simulating import simulate
from framework.simulation.cluster import ray_for
from framework.store.reader import StoreReader
from framework.stream.ledger import Ledger
from framework.stream.samples import Batch, Samples, SampleShape
from framework.stream.source import StreamSource
from framework.stream.statistics import FieldStatistics
from framework.stream.stored import StoredSamples
from framework.study.case import Case
from framework.study.study import Study
from framework.training.surrogate import make_surrogate
from framework.training.trainer import Trainer
from solvers.base import Solver
from solvers.heat import Heat

QUICKSTART = Path(__file__).parent.parent / "configs" / "quickstart.yaml"
SIDE, STEPS, SIMULATIONS, BATCH = 1000, 16, 16, 8
SETTINGS = (
    f"solver={{name: heat, grid_size: {SIDE}, stored_steps: {STEPS}}}",
    f"design={{sampler: monte_carlo, simulations: {SIMULATIONS}}}",
    "ensemble={actors: 1}",
    "buffer={capacity: 64, watermark: 16}",
    "surrogate={name: mlp, hidden: [64, 4]}",
    f"training={{batch_size: {BATCH}}}",
)
COUNTED = SIMULATIONS * STEPS // BATCH  # batches of a turn
FEW = COUNTED // 4  # of a turn whose every field has to be solved for
UNCOUNTED = 4  # before it, of blank fields or of the stream
WORKERS, AHEAD = 2, 4  # batches that each of them reads ahead
MB = 4 * SIDE**2 * BATCH / 1e6  # of a batch


@dataclass(frozen=True)
class Turn:
    """What one turn has measured; the last two not where there is no network."""

    rate: float  # batches a second
    waited: float  # share of the time
    different: int  # samples never drawn before


class Ready(Heat):
    """Heat whose fields cost nothing: those of the first simulation, whatever the parameters."""

    _fields: tuple[NDArray[np.float32], ...] = ()

    def solve_batch(
        self, parameters: NDArray[np.float64], seeds: NDArray[np.uint64], device: str = "cpu"
    ) -> Iterator[NDArray[np.float32]]:
        self._fields = self._fields or tuple(super().solve_batch(parameters, seeds, device))
        yield from self._fields


class Fields(Dataset[tuple[int, int, NDArray[np.float32], NDArray[np.float32], torch.Tensor]]):
    """Sample by sample, for a DataLoader: from a store, or from a folder of .npy files."""

    def __init__(self, reader: StoreReader, folder: Path | None) -> None:
        self._reader = reader
        self._folder = folder

    def __len__(self) -> int:
        return SIMULATIONS * STEPS

    def __getitem__(
        self, index: int
    ) -> tuple[int, int, NDArray[np.float32], NDArray[np.float32], torch.Tensor]:
        simulation, step = divmod(index, STEPS)
        parameters = self._reader.parameters[simulation].astype(np.float32)
        t = self._reader.t[simulation, step : step + 1].astype(np.float32)
        if self._folder:
            field = np.load(self._folder / f"{index}.npy")
        else:
            field = self._reader.fields_at(simulation, step)
        return simulation, step, parameters, t, torch.from_numpy(field)[None]


class Offline:
    """A source as far as training needs one: blank batches, then those of one epoch.

    The first request for one of the epoch starts the reading.
    """

    def __init__(self, epoch: Callable[[], Iterator[Batch]]) -> None:
        self.lock = threading.RLock()
        self._batches = _after_blanks(epoch)

    def get(self) -> Batch | None:
        return next(self._batches, None)

    def close(self) -> None:
        """Nobody waits."""


def _after_blanks(epoch: Callable[[], Iterator[Batch]]) -> Iterator[Batch]:
    beyond, steps = np.full(BATCH, SIMULATIONS), np.arange(BATCH)
    shapes = ((BATCH, 5), (BATCH, 1), (BATCH, 1, 1, SIDE, SIDE))
    yield from repeat(Batch(beyond, steps, *map(torch.zeros, shapes)), UNCOUNTED)
    yield from epoch()


def read_stored(study: Study, reader: StoreReader) -> Callable[[], Iterator[Batch]]:
    """Has read one epoch as `training.source` does; returns what begins another."""
    stored = StoredSamples(
        reader, Ledger(STEPS, 1), study.buffer.capacity, BATCH, 10**6, study.seed
    )
    for _ in range(COUNTED):
        stored.get()
    return lambda: islice(iter(stored.get, None), COUNTED)


def make_loader(reader: StoreReader, folder: Path | None) -> Callable[[], Iterator[Batch]]:
    """Has read one epoch, by processes that stay; returns what begins another."""
    loader: DataLoader[list[torch.Tensor]] = DataLoader(
        Fields(reader, folder),  # type: ignore[arg-type]
        BATCH,
        shuffle=True,
        num_workers=WORKERS,
        prefetch_factor=AHEAD,
        persistent_workers=True,
        multiprocessing_context="forkserver",
    )
    for _ in loader:
        pass
    return lambda: (Batch(s.numpy(), t.numpy(), *others) for s, t, *others in iter(loader))


@contextmanager
def online(
    study: Study, make_solver: Callable[[], Solver], replay: int
) -> Iterator[tuple[StreamSource, Stream]]:
    """A reservoir and the stream into it, of which every sample is drawn so often."""
    config = study.buffer.model_copy(update={"replay": (replay, replay)})
    case = Case(study.model_copy(update={"buffer": config}))
    buffer = make_buffer(case, SampleShape(len(case.space), 1, case.field_shape))
    simulations = map(case.design.training, count())
    stream = Stream(make_solver, study.ensemble, simulations, 10**6, buffer, 1)
    try:
        yield stream.source, stream
    finally:
        stream.close()


def take_turn(
    study: Study,
    batches: StreamSource | Offline,
    statistics: FieldStatistics,
    ledger: Ledger,
    trained: bool,
    counted: int = COUNTED,
) -> Turn:
    """The turn of one way, with a network or only fed."""
    torch.manual_seed(study.seed)
    cpu = torch.device("cpu")
    surrogate = make_surrogate(Case(study))
    settings = trainer_settings(study.training)
    source: Any = batches
    trainer = Trainer(surrogate, settings, cpu, source, ledger)
    marks: list[tuple[float, float, int]] = []
    steps = 0

    def after_step() -> None:
        nonlocal steps
        steps += 1
        if steps in (UNCOUNTED, UNCOUNTED + counted):
            marks.append((time.perf_counter(), trainer.waited, ledger.unique_trained))
        if steps == UNCOUNTED + counted:
            batches.close()

    if trained:
        trainer.train(statistics, after_step)
        if not torch.isfinite(trainer.loss):
            raise SystemExit("training has diverged")
    else:
        target = torch.empty(BATCH, 1, 1, SIDE, SIDE)
        while len(marks) < 2 and (batch := batches.get()):
            statistics.freeze()
            target.copy_(batch.fields)
            after_step()
    (began, waited_before, known), (ended, waited, known_at_end) = marks
    seconds = ended - began
    return Turn(counted / seconds, (waited - waited_before) / seconds, known_at_end - known)


class Comparison:
    """The ways, the files that they read, and what every turn has measured."""

    def __init__(self, study: Study, folder: Path) -> None:
        """Makes the data."""
        self.turns: dict[str, list[Turn]] = {}
        self.fed: dict[str, list[Turn]] = {}
        self._study = study
        stored, loose = folder / "heat.zarr", folder / "npy"
        simulate(Case(study))
        reader = StoreReader(str(stored))
        loose.mkdir()
        for index in range(SIMULATIONS * STEPS):
            np.save(loose / f"{index}.npy", reader.fields_at(*divmod(index, STEPS)))
        os.sync()
        self.files = {"store": files_in(stored), "npy": files_in(loose)}
        self.disk: dict[str, list[float]] = {name: [] for name in self.files}
        self._few = Samples(
            np.zeros(STEPS, dtype=np.int64),
            np.arange(STEPS),
            reader.parameters[:1].repeat(STEPS, 0).astype(np.float32),
            reader.t[0, :, None].astype(np.float32),
            reader.fields(0)[:, None],
        )
        self._epochs: dict[str, tuple[Callable[[], Iterator[Batch]], str]] = {
            "store": (read_stored(study, reader), "store"),
            "loader, store": (make_loader(reader, None), "store"),
            "loader, npy": (make_loader(reader, loose), "npy"),
        }

    def round(self) -> None:
        """A turn of every way."""
        for name, files in self.files.items():
            drop(files)
            self.disk[name].append(read_all(files))
        heat, ready = Case(self._study).make_solver, partial(Ready, SIDE, STEPS)
        for trained in (True, False):
            for name in self._epochs:
                self._read(name, "cold", trained)
                self._read(name, "warm", trained)
            for replay in (1, 8):
                self._stream(f"online, ready, replay {replay}", ready, replay, trained)
        self._stream("online, heat, replay 1", heat, 1, True, FEW)
        self._stream("online, heat, replay 8", heat, 8, True)

    def _read(self, name: str, cache: str, trained: bool) -> None:
        epoch, kind = self._epochs[name]
        drop(self.files[kind])
        if cache == "warm":
            read_all(self.files[kind])
        statistics = FieldStatistics(1)
        statistics.add(self._few)
        turn = take_turn(self._study, Offline(epoch), statistics, Ledger(STEPS, 1), trained)
        self._note(f"{name}, {cache}", turn, trained)

    def _stream(
        self,
        name: str,
        make_solver: Callable[[], Solver],
        replay: int,
        trained: bool,
        counted: int = COUNTED,
    ) -> None:
        with online(self._study, make_solver, replay) as (source, stream):
            turn = take_turn(
                self._study, source, stream.statistics, stream.ledger, trained, counted
            )
        self._note(name, turn, trained)

    def _note(self, name: str, turn: Turn, trained: bool) -> None:
        (self.turns if trained else self.fed).setdefault(name, []).append(turn)


def report(comparison: Comparison) -> None:
    for name, files in comparison.files.items():
        size = sum(path.stat().st_size for path in files) / 1e6
        rate = np.median(comparison.disk[name])
        print(f"{name}: {size:,.0f} MB on the disk, read cold file by file: {rate:,.0f} MB/s")
    rows = []
    for name, turns in comparison.turns.items():
        rate = np.median([turn.rate for turn in turns])
        waited = np.median([turn.waited for turn in turns])
        different = np.median([turn.different for turn in turns])
        fed = ["", ""]
        if name in comparison.fed:
            rate_fed = np.median(_rates(comparison.fed[name]))
            fed = [f"{rate_fed:.1f}", f"{rate_fed * MB:,.0f}"]
        trained = [f"{rate:.2f}", f"{rate * MB:,.0f}", f"{100 * waited:.0f} %", f"{different:.0f}"]
        rows.append([name, *trained, *fed])
    head = ["way", "batches/s", "MB/s", "waited", "different", "fed batches/s", "fed MB/s"]
    print(f"\n{COUNTED} batches of {BATCH} fields, {MB:.0f} MB each")
    print_table(head, rows)
    for title, of_ways in (("with the network", comparison.turns), ("fed", comparison.fed)):
        cold = [name for name in of_ways if name.endswith("cold")]
        print(f"\nonline / offline, {title}")
        lines = [
            [name, *(spread(_rates(turns) / _rates(of_ways[other])) for other in cold)]
            for name, turns in of_ways.items()
            if name.startswith("online")
        ]
        print_table(["", *cold], lines)


def _rates(turns: list[Turn]) -> NDArray[np.float64]:
    return np.array([turn.rate for turn in turns])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        study = Study.load(QUICKSTART, [*SETTINGS, f"store={{path: {folder}/heat.zarr}}"])
        with ray_for(study.ensemble, 1):
            comparison = Comparison(study, Path(folder))
            for _ in range(arguments.rounds):
                comparison.round()
            print(f"load of the machine at the end: {os.getloadavg()[1]:.1f}")
            report(comparison)


if __name__ == "__main__":
    main()
