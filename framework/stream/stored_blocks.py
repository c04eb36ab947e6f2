"""Blocks of simulations that a store already has, among those that solvers send.

A run that was extended trains on its old simulations again, and on new ones: both mixed from the
beginning, as if all of them were run now.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from framework.simulation.block import Block
from framework.simulation.solver_actor import checksum
from framework.store.reader import StoreReader
from framework.stream.reception import Blocks


class WithStored(Blocks):
    """An ensemble's blocks and, after `add`, those of simulations in a store."""

    def __init__(self, ensemble: Blocks) -> None:
        self._ensemble = ensemble
        self._reader: StoreReader | None = None
        self._ids: Sequence[int] = ()
        self._run = 0
        self._again = False  # whether the stored simulation under way is to begin anew

    def add(self, reader: StoreReader, ids: Sequence[int], run: int) -> None:
        """Take these simulations from a store, which has all their steps; call before `blocks`.

        `run`: how many training simulations solvers run meanwhile.
        """
        self._reader, self._ids, self._run = reader, ids, run

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks of every simulation, each simulation's in order.

        Whenever a solver has ended one, as large a share of the stored ones follows. Raises
        DamagedError.
        """
        stored, taken, ended = iter(self._ids), 0, 0
        for block in self._ensemble.blocks():
            yield block
            if self._reader and not block.held_out and self._is_last(block):
                ended += 1
                due = len(self._ids) * ended // max(self._run, ended)
                for id in islice(stored, due - taken):
                    yield from self._stored(id)
                taken = due
        for id in stored:
            yield from self._stored(id)

    def restart(self, simulation: int) -> None:
        if simulation in self._ids:
            self._again = True
        else:
            self._ensemble.restart(simulation)

    def _is_last(self, block: Block) -> bool:
        assert self._reader is not None
        return block.first_step + len(block) == len(self._reader.steps)

    def _stored(self, id: int) -> Iterator[Block]:
        reader = self._reader
        assert reader is not None
        channels = range(len(reader.field_names))
        for steps in reader.chunks():
            values = [reader.values(id, channel, steps) for channel in channels]
            fields = np.stack(values, 1, dtype=np.float32)
            sums = np.array([checksum(step) for step in fields], dtype=np.uint32)
            t = reader.t[id, steps]
            yield Block(id, steps.start, fields, reader.parameters[id], t, sums)
            if self._again:  # a solver had sent it before, in more digits than the store keeps
                self._again = False
                yield from self._stored(id)
                return
