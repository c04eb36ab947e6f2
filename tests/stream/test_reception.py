"""The receive thread."""

from collections.abc import Iterator, Sequence
from typing import Any

from blocks import make_block
from buffers import make_buffer
from trainers import STEPS, filled, in_time, make, make_samples, make_trainer

from framework.simulation.block import Block
from framework.stream.ledger import Ledger
from framework.stream.reception import Reception
from framework.stream.source import StreamSource
from framework.stream.statistics import FieldStatistics
from framework.stream.windows import WindowCutter
from framework.study.sections import BufferConfig


class Script:
    """Yields these blocks, or raises; `again` is what a simulation that starts anew yields."""

    def __init__(self, *items: Block | Exception, again: Sequence[Block] = ()) -> None:
        self.restarted: list[int] = []
        self._items = [*items]
        self._again = again

    def blocks(self) -> Iterator[Block]:
        while self._items:
            item = self._items.pop(0)
            if isinstance(item, Exception):
                raise item
            yield item

    def restart(self, simulation: int) -> None:
        self.restarted.append(simulation)
        self._items += self._again


def receive(
    script: Script, window: int = 1
) -> tuple[Reception, list[tuple[int, list[float]]], list[Block], FieldStatistics]:
    """Run a reception to its end; also the buffer's samples and what was held out."""
    config = BufferConfig(kind="fifo", capacity=50)
    buffer = make_buffer(config, 1, window, 2, (2, 3), 0)
    held_out: list[Block] = []
    statistics = FieldStatistics(2)
    ensemble: Any = script
    ledger = Ledger(10, window)
    source = StreamSource(buffer, ledger, 1)
    reception = Reception(
        ensemble,
        ledger,
        source,
        statistics,
        WindowCutter(window),
        lambda block, last: held_out.append(block),
    )
    received: list[tuple[int, list[float]]] = []

    def run() -> None:
        reception.start()
        reception.wait()
        while batch := buffer.get():
            received.append((int(batch.simulation[0]), batch.fields[0, :, 0, 0].tolist()))

    in_time(run)
    return reception, received, held_out, statistics


def test_replayed_steps_are_received_once() -> None:
    blocks = [(0, 0, 4), (0, 2, 6), (1, 0, 2), (0, 0, 5), (0, 5, 10), (1, 1, 3)]
    reception, received, _, _ = receive(Script(*(make_block(*block) for block in blocks)), 2)
    assert reception.error is None
    assert reception.over.is_set()
    expected = [(0, [step, step + 1]) for step in range(9)]
    expected += [(1, [100 + step, 101 + step]) for step in range(2)]
    assert sorted(received) == expected


def test_a_simulation_that_came_out_different_starts_anew() -> None:
    other = make_block(3, 0, 4, salt=0.5)
    again = [other, make_block(3, 4, 6, salt=0.5)]
    script = Script(make_block(4, 0, 2), make_block(3, 0, 4), other, again=again)
    _, received, _, _ = receive(script, 2)
    assert script.restarted == [3]
    expected = [(3, [300.5 + step, 301.5 + step]) for step in range(5)]
    assert received == [(4, [400.0, 401.0]), *expected]


def test_held_out_simulations_are_never_trained_on() -> None:
    blocks = [(-1, 0, 3), (0, 0, 2), (-1, 1, 5), (-2, 0, 1)]
    script = Script(*(make_block(*block) for block in blocks))
    _, received, held_out, statistics = receive(script)
    assert received == [(0, [0.0]), (0, [1.0])]
    found = [(block.simulation, block.first_step, len(block)) for block in held_out]
    assert found == [(-1, 0, 3), (-1, 3, 2), (-2, 0, 1)]
    assert statistics.freeze()[0].tolist() == [0.5, 0.5]


def test_an_error_of_the_ensemble_ends_training_and_is_handed_over() -> None:
    error = RuntimeError("too many are quarantined")
    ensemble: Any = Script(make_block(0, 0, 2), error)
    buffer = filled(make_samples(0), over=False)
    statistics = FieldStatistics(2)
    ledger = Ledger(STEPS, 1)
    source = StreamSource(buffer, ledger, 1)
    cutter = WindowCutter(ledger.window)
    reception = Reception(ensemble, ledger, source, statistics, cutter, lambda block, last: None)
    reception.start()
    in_time(lambda: make_trainer(make(), buffer).train(statistics, lambda: None))
    reception.wait()
    assert reception.error is error
    assert reception.over.is_set()


def test_a_closed_buffer_ends_reception_without_an_error() -> None:
    buffer = filled(make_samples(0), over=False)
    buffer.close()
    ensemble: Any = Script(make_block(0, 0, 5))
    ledger = Ledger(10, 1)
    source = StreamSource(buffer, ledger, 1)
    statistics, cutter = FieldStatistics(2), WindowCutter(ledger.window)
    reception = Reception(ensemble, ledger, source, statistics, cutter, lambda block, last: None)
    reception.start()
    reception.wait()
    assert reception.error is None
    assert reception.over.is_set()
