"""What some number of ranks had received goes on in another number of them: nothing is lost."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from blocks import make_block
from buffers import ids, make_buffer, run_together, samples, studies
from hypothesis import given, settings
from hypothesis import strategies as st
from models import STUDY

from framework.run.ranks.dealing import states_for
from framework.run.ranks.planning import group_number
from framework.stream.buffers.buffer import Buffer
from framework.stream.ledger import Ledger
from framework.stream.statistics import FieldStatistics
from framework.stream.windows import WindowCutter
from framework.study.sections import BufferConfig
from framework.study.study import Study
from framework.training.checkpoint import Checkpoints, Found, rank_file, write_states

STEPS = 7


def study_of(config: BufferConfig, batch_size: int, ranks: int) -> Study:
    values: dict[str, Any] = {
        **STUDY,
        "surrogate": {"name": "mlp"},
        "buffer": config.model_dump(),
        "training": {"ranks": ranks, "batch_size": batch_size},
        "ensemble": {"actors": ranks},
        "validation": {"simulations": 2},
    }
    return Study.of(values)


def buffer_of(config: BufferConfig, batch_size: int, seed: int) -> Buffer:
    return make_buffer(config, batch_size, 2, 3, (1, 2, 2), seed)


class Rank:
    """A rank of the run before: what is left of what it received, and what it had drawn."""

    def __init__(self, config: BufferConfig, batch_size: int, rank: int, ranks: int, n: int):
        self.buffer = buffer_of(config, batch_size, rank)
        self.ledger, self.cutter = Ledger(STEPS, 2), WindowCutter(2)
        self.put = [number * ranks + rank for number in range(n)]
        self.drawn: Counter[int] = Counter()
        self.statistics = FieldStatistics(2)
        for number in self.put:
            # As a receive thread and a training loop would, in turns that never wait.
            while not self.buffer._room() > 0:
                self._draw()
            self.buffer.put(samples([number]))
        for simulation in (rank, rank + ranks):
            block = self.ledger.receive(make_block(simulation, 0, 3 + rank))
            assert block is not None
            self.cutter.cut(block, last=False)

    def states(self) -> dict[str, Any]:
        moment = {"steps": 1, "seconds": 1.0, "waited": 0.5, "drawn": 4, "received": len(self.put)}
        return {
            "trainer": {"random": torch.get_rng_state()},
            "statistics": self.statistics.state(),
            "source": self.buffer.state(),
            "tails": self.cutter.state(),
            "ledger": self.ledger.state(),
            "counters": {
                "moment": moment,
                "streamed": {"seconds": 2.0, "idle": 1.0, "solvers_waited": 3.0},
            },
        }


def found_of(study: Study, ranks: list[Rank], folder: Path) -> Found:
    checkpoints = Checkpoints(folder, study)
    place = checkpoints.begin()
    written = {
        rank_file(number): write_states(place / rank_file(number), rank.states())
        for number, rank in enumerate(ranks)
    }
    checkpoints.publish(place, written)
    found = checkpoints.find()
    assert found is not None
    return found


@given(studies(), st.integers(1, 3), st.integers(1, 3), st.integers(0, 40))
@settings(max_examples=60)
def test_every_sample_that_was_not_drawn_is_drawn_in_the_end(
    configured: tuple[BufferConfig, int], before: int, after: int, n: int
) -> None:
    config, batch_size = configured
    old = [Rank(config, batch_size, rank, before, n + rank) for rank in range(before)]
    drawn = {number for rank in old for number in rank.drawn}
    untrained = {number for rank in old for number in rank.put} - drawn
    study = study_of(config, batch_size, after)
    with TemporaryDirectory() as folder:
        found = found_of(study_of(config, batch_size, before), old, Path(folder))
        again: Counter[int] = Counter()
        for rank in range(after):
            buffer = buffer_of(config, batch_size, 9 + rank)
            states = states_for(found, rank, study, buffer, FieldStatistics(2))
            buffer.load_state(states["source"])
            assert len(buffer) <= config.capacity

            def put(buffer: Buffer = buffer) -> None:
                if pending := buffer.take_pending():
                    buffer.put(pending)
                buffer.end_reception()

            def get(buffer: Buffer = buffer, rank: int = rank) -> list[int]:
                numbers: list[int] = []
                while batch := buffer.get():
                    numbers += ids(batch)
                    if before != after:
                        owners = {group_number(study, id) % after for id in batch.simulation}
                        assert owners == {rank}
                return numbers

            _, numbers = run_together(buffer, put, get)
            again.update(numbers)
    assert untrained <= {*again}
    assert {*again} - untrained <= drawn
    if config.kind != "reservoir":
        assert again == Counter(untrained)


@given(st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=9)
def test_what_was_received_of_a_simulation_stays_together(before: int, after: int) -> None:
    config = BufferConfig(kind="fifo", capacity=20)
    old = [Rank(config, 2, rank, before, 0) for rank in range(before)]
    study = study_of(config, 2, after)
    received: dict[int, int] = {}
    tails: dict[int, list[float]] = {}
    with TemporaryDirectory() as folder:
        found = found_of(study_of(config, 2, before), old, Path(folder))
        for rank in range(after):
            buffer = buffer_of(config, 2, rank)
            states = states_for(found, rank, study, buffer, FieldStatistics(2))
            ledger, cutter = Ledger(STEPS, 2), WindowCutter(2)
            ledger.load_state(states["ledger"])
            cutter.load_state(states["tails"])
            mine = ledger.under_way()
            for id in mine:
                assert before == after or group_number(study, id) % after == rank
                assert id not in received
                received[id] = rank
                block = ledger.receive(make_block(id, 0, STEPS))
                assert block is not None
                # The first sample bridges what was received before and what comes now.
                cut = cutter.cut(block, last=True)
                tails[id] = cut.fields[0, :, 0, 0].tolist()
    for rank, one in enumerate(old):
        for id in (rank, rank + before):
            assert one.ledger.under_way() == {rank, rank + before}
            first = 100 * id + 3 + rank - 1
            assert tails[id] == [first, first + 1]
    assert len(received) == 2 * before


def test_the_statistics_of_all_ranks_become_those_of_the_first() -> None:
    config = BufferConfig(kind="fifo", capacity=20)
    old = [Rank(config, 2, rank, 2, 0) for rank in range(2)]
    random = np.random.default_rng(0)
    cutter = WindowCutter(2)
    whole = FieldStatistics(2)
    for rank, one in enumerate(old):
        block = make_block(rank, 0, STEPS, salt=float(random.normal()))
        cut = cutter.cut(block, last=True)
        one.statistics.add(cut)
        whole.add(cut)
    study = study_of(config, 2, 1)
    with TemporaryDirectory() as folder:
        found = found_of(study_of(config, 2, 2), old, Path(folder))
        states = states_for(found, 0, study, buffer_of(config, 2, 0), FieldStatistics(2))
    merged = FieldStatistics(2)
    merged.load_state(states["statistics"])
    for found_one, expected in zip(merged.freeze(), whole.freeze(), strict=True):
        torch.testing.assert_close(found_one, expected)
