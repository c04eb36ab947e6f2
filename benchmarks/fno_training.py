"""Training the FNO: this project's loop, against neuraloperator's own.

    python benchmarks/fno_training.py [--rounds N] [--epochs N]

The quickstart's Fourier neural operator, from the same weights in every way of a round, with the
same batch size, Adam at the same constant learning rate, the same loss (mean squared error of
normalised fields) and the same number of steps, on samples of the quickstart's heat equation:

- neuraloperator: its `Trainer` over a DataLoader of tensors in memory, in the same process;
  conditions are laid out as constant channels beforehand, its data processor normalises.
- memory: our `Trainer` with `StoredSamples`, the way of `training.source`, of a store that fits
  into the buffer and was read before the clock starts. Its batches are, one by one, those that
  neuraloperator is given, so that both have to learn the same.
- stream: the same `Trainer` with a reservoir that a solver actor fills all the time, as in
  `training.py`; it may be drawn from as often as training likes.

torch has one thread, and this process one core; Ray and the solver have the other. The device is a
GPU where there is one. The first round is not counted; the ways take turns.

How to read it: steps a second, medians over the rounds; the ratio is the median of the rounds' own
ratios to neuraloperator, with the quarters below and above. The loss is that of the trained network
on all samples of the store, in percent of their variance, median and quarters: the first two were
trained on these, the stream's on others of the same design. Both loops train in single precision,
without autocast or compilation.
"""

import argparse
import os
import tempfile
import time
from itertools import count

import numpy as np
import torch
from neuralop.data.datasets.tensor_dataset import TensorDataset
from neuralop.data.transforms.data_processors import DefaultDataProcessor
from neuralop.data.transforms.normalizers import UnitGaussianNormalizer
from neuralop.training import Trainer as LibraryTrainer
from stream import Stream
from table import print_table, spread
from torch import Tensor
from torch.utils.data import DataLoader
from training import OTHER_CORE, QUICKSTART, TRAINING_CORE, pin

from framework.run.assembly import make_buffer, trainer_settings
from framework.run.simulating import simulate
from framework.simulation.cluster import ray_for
from framework.store.reader import StoreReader
from framework.stream.ledger import Ledger
from framework.stream.samples import Batch, SampleShape
from framework.stream.source import Source
from framework.stream.statistics import FieldStatistics
from framework.stream.stored import StoredSamples
from framework.study.case import Case
from framework.study.sections import Stop
from framework.study.study import Study
from framework.training.surrogate import make_surrogate
from framework.training.trainer import Trainer
from surrogates.fno import Fno

SETTINGS = (
    "design.simulations=20",
    "design.sampler=monte_carlo",
    "ensemble.group_size=1",
    "buffer={capacity: 1000, watermark: 500, replay: [1, 1000000]}",
    "training={batch_size: 10, learning_rate: 0.005}",
)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Ways:
    """The ways of training, all for the same number of steps."""

    def __init__(self, study: Study, epochs: int) -> None:
        """Makes the data."""
        simulate(Case(study))
        self._study = study
        self._epochs = epochs
        self._reader = StoreReader(study.store.location(study.name))
        whole = self._stored(Ledger(50, 1), study.buffer.capacity).get()
        assert whole
        self._whole = whole
        self._steps = epochs * len(whole) // study.training.batch_size
        rows = {key: row for row, key in enumerate(_keys(whole))}
        stored = self._stored(Ledger(50, 1))
        self._order = [[rows[key] for key in _keys(batch)] for batch in iter(stored.get, None)]

    def neuraloperator(self, surrogate: Fno) -> float:
        """Steps a second of the library's loop."""
        rate, grid = self._study.training.learning_rate, surrogate.problem.grid
        raw = torch.cat([self._whole.parameters, self._whole.times], 1)
        x = (2 * (raw - surrogate.low) / (surrogate.high - surrogate.low) - 1).float()
        x = x.view(*x.shape, *[1] * len(grid)).expand(*x.shape, *grid).contiguous()
        fields = self._whole.fields[:, 0]
        statistics = self._statistics(self._stored(Ledger(50, 1))).freeze()
        surrogate.normalise_fields(*statistics)
        mean, std = (value.view(1, -1, *[1] * len(grid)) for value in statistics[:2])
        optimiser = torch.optim.Adam(surrogate.network.parameters(), lr=rate)
        trainer = LibraryTrainer(
            model=surrogate.network,
            n_epochs=1,  # of all the steps
            device=DEVICE,
            data_processor=DefaultDataProcessor(None, UnitGaussianNormalizer(mean, std, eps=0.0)),
        )
        loader: DataLoader[dict[str, Tensor]] = DataLoader(
            TensorDataset(x, fields), batch_sampler=self._order
        )
        constant = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda epoch: 1.0)
        began = time.perf_counter()
        trainer.train(loader, {}, optimiser, constant, training_loss=squared_error)
        return self._steps / (time.perf_counter() - began)

    def memory(self, surrogate: Fno) -> float:
        """Steps a second of our loop, from a store that was read."""
        ledger = Ledger(50, 1)
        stored = self._stored(ledger)
        return self._train(surrogate, stored, self._statistics(stored), ledger)

    def stream(self, surrogate: Fno) -> float:
        """Steps a second of our loop, while a solver fills the buffer."""
        study, case = self._study, Case(self._study)
        buffer = make_buffer(case, SampleShape(len(case.space), 1, case.field_shape))
        # Others than those of the store, which are the first of the design.
        simulations = map(case.design.training, count(study.design.simulations))
        stream = Stream(case.make_solver, study.ensemble, simulations, 10**6, buffer, 1)
        rate = self._train(surrogate, stream.source, stream.statistics, stream.ledger)
        stream.close()
        return rate

    @torch.no_grad()
    def loss(self, surrogate: Fno) -> float:
        """Mean squared error on all samples of the store, in units of their variance."""
        batch, fields = self._whole, self._whole.fields
        surrogate.to(DEVICE)
        total = 0.0
        for first in range(0, len(batch), 100):
            part = slice(first, first + 100)
            tensors = (batch.parameters[part], batch.times[part], fields[part])
            total += float(surrogate.losses(*(tensor.to(DEVICE) for tensor in tensors)).sum())
        return total * float(surrogate.field_scale) ** 2 / len(batch) / float(fields.var())

    def _stored(self, ledger: Ledger, batch_size: int = 0) -> StoredSamples:
        config, epochs = self._study.training, self._epochs
        size = batch_size or config.batch_size
        capacity, seed = self._study.buffer.capacity, self._study.seed
        return StoredSamples(self._reader, ledger, capacity, size, epochs, seed)

    def _statistics(self, stored: StoredSamples) -> FieldStatistics:
        """Reads all of a store."""
        statistics = FieldStatistics(len(self._reader.field_names))
        for samples in stored.statistics():
            statistics.add(samples)
        return statistics

    def _train(
        self, surrogate: Fno, source: Source, statistics: FieldStatistics, ledger: Ledger
    ) -> float:
        config = self._study.training.model_copy(update={"stop": Stop(steps=self._steps)})
        trainer = Trainer(surrogate, trainer_settings(config), DEVICE, source, ledger)
        trainer.train(statistics, lambda: None)
        float(trainer.loss)  # on a GPU, waits for the last step
        assert trainer.optimiser_steps == self._steps
        return trainer.optimiser_steps / trainer.seconds


def _keys(batch: Batch) -> list[tuple[int, int]]:
    return list(zip(batch.simulation.tolist(), batch.first_step.tolist(), strict=True))


def squared_error(output: Tensor, y: Tensor, **_: Tensor) -> Tensor:
    """The loss of our surrogates, in the form of the library's."""
    return (output - y).square().mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rates: dict[str, list[float]] = {}
    losses: dict[str, list[float]] = {}
    pin(OTHER_CORE)  # what Ray starts inherits it
    with tempfile.TemporaryDirectory() as folder:
        study = Study.load(QUICKSTART, [*SETTINGS, f"store.path={folder}/heat.zarr"])
        with ray_for(study.ensemble, 1):
            ways = Ways(study, arguments.epochs)
            pin(TRAINING_CORE)
            for number in range(1 + arguments.rounds):
                for way in (ways.neuraloperator, ways.memory, ways.stream):
                    torch.manual_seed(number)
                    surrogate = make_surrogate(Case(study))
                    assert isinstance(surrogate, Fno)
                    rate = way(surrogate)
                    if number:
                        rates.setdefault(way.__name__, []).append(rate)
                        losses.setdefault(way.__name__, []).append(ways.loss(surrogate))
    library = np.array(rates["neuraloperator"])
    print(f"device {DEVICE.type}; load of the machine at the end: {os.getloadavg()[1]:.1f}")
    print_table(
        ["loop", "steps/s", "of neuraloperator's", "loss at the end, %"],
        [
            [
                name,
                f"{np.median(of_way):.1f}",
                spread(np.array(of_way) / library),
                spread(100 * np.array(losses[name])),
            ]
            for name, of_way in rates.items()
        ],
    )


if __name__ == "__main__":
    main()
