"""Cuts blocks into samples, windows of consecutive stored steps, across the ends of blocks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.simulation.block import Block
from framework.stream.samples import Samples


class WindowCutter:
    """Cuts blocks into samples of `window` steps; bridges the boundaries between blocks."""

    def __init__(self, window: int) -> None:
        self.window = window
        self._tails: dict[int, Block] = {}  # simulation -> its last window - 1 steps

    def cut(self, block: Block, last: bool) -> Samples:
        """Return the samples that `block` completes. `last`: the simulation ends with it."""
        tail = self._tails.pop(block.simulation, None)
        if tail is not None:
            block = Block(
                block.simulation,
                tail.first_step,
                np.concatenate([tail.fields, block.fields]),
                block.parameters,
                np.concatenate([tail.times, block.times]),
                np.concatenate([tail.checksums, block.checksums]),
            )
        if self.window > 1 and not last:
            keep = max(len(block) - (self.window - 1), 0)
            self._tails[block.simulation] = block.from_step(block.first_step + keep)
        n = max(len(block) - self.window + 1, 0)
        # A view [n, w, ...]: a step that is part of several samples is not copied here.
        steps = np.arange(n)[:, None] + np.arange(self.window)
        windows = np.lib.stride_tricks.sliding_window_view
        fields = (
            np.moveaxis(windows(block.fields, self.window, axis=0), -1, 1)
            if n
            else block.fields[:0, None].repeat(self.window, axis=1)
        )
        return Samples(
            np.full(n, block.simulation, dtype=np.int64),
            block.first_step + np.arange(n, dtype=np.int64),
            np.broadcast_to(block.parameters.astype(np.float32), (n, len(block.parameters))),
            block.times[steps].astype(np.float32).reshape(n, self.window),
            fields,
        )

    def state(self) -> list[dict[str, NDArray[np.generic] | int]]:
        """Return what is kept of the simulations under way, for `load_state`."""
        return [
            {
                "simulation": tail.simulation,
                "first_step": tail.first_step,
                "fields": tail.fields,
                "parameters": tail.parameters,
                "times": tail.times,
                "checksums": tail.checksums,
            }
            for tail in self._tails.values()
        ]

    def load_state(self, state: list[dict[str, Any]]) -> None:
        """Go on from what `state` returned."""
        arrays = ("fields", "parameters", "times", "checksums")
        self._tails = {
            tail["simulation"]: Block(**{**tail, **{key: np.asarray(tail[key]) for key in arrays}})
            for tail in state
        }

    def forget(self, simulation: int) -> None:
        """Drop what is kept of a simulation that starts anew or will not go on."""
        self._tails.pop(simulation, None)
