"""What crosses processes: a simulation to run, and the blocks that come back of it.

The samples that are cut from blocks stay in the training process.

Shapes: C fields (channels), p parameters, s time steps in a block, w time steps in a sample,
n samples, `*grid` the grid's axes.
"""

from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Block:
    """Consecutive time steps of one simulation, or, with `error` set, the news that it failed.

    `checksums` are those of every time step, so that a simulation that runs again can be compared
    with what was received of it before. A block with an error has no steps: `first_step` is then
    the step that could not be computed.
    """

    simulation: int
    first_step: int
    fields: NDArray[np.float32]  # [s, C, *grid]
    parameters: NDArray[np.float64]  # [p]
    times: NDArray[np.float64]  # [s]
    checksums: NDArray[np.uint32]  # [s]
    error: str = ""

    def __len__(self) -> int:
        return len(self.times)

    def from_step(self, step: int) -> "Block":
        """The part of this block that starts at `step`, as views."""
        cut = step - self.first_step
        return Block(
            self.simulation,
            step,
            self.fields[cut:],
            self.parameters,
            self.times[cut:],
            self.checksums[cut:],
        )


@dataclass(frozen=True)
class Message:
    """Blocks that a solver's process sends together, and how long it waited to be allowed to."""

    blocks: list[Block]
    waited: float = 0.0  # seconds, since the message before was ready


def checksum(fields: NDArray[np.float32]) -> int:
    """Of one time step's fields [C, *grid]."""
    return int(google_crc32c.value(np.ascontiguousarray(fields)))


@dataclass(frozen=True)
class Samples:
    """Windows of w consecutive stored steps, each identified by (simulation, first_step)."""

    simulation: NDArray[np.int64]  # [n]
    first_step: NDArray[np.int64]  # [n]
    parameters: NDArray[np.float32]  # [n, p]
    times: NDArray[np.float32]  # [n, w]
    fields: NDArray[np.float32]  # [n, w, C, *grid]

    def __len__(self) -> int:
        return len(self.simulation)

    def part(self, part: slice) -> "Samples":
        """Some of these samples, as views."""
        return Samples(
            self.simulation[part],
            self.first_step[part],
            self.parameters[part],
            self.times[part],
            self.fields[part],
        )


class WindowCutter:
    """Cuts blocks into samples of `window` steps; bridges the boundaries between blocks."""

    def __init__(self, window: int) -> None:
        self.window = window
        self._tails: dict[int, Block] = {}  # simulation -> its last window - 1 steps

    def cut(self, block: Block, last: bool) -> Samples:
        """The samples that `block` completes. `last` says that the simulation ends with it."""
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
        """What is kept of the simulations under way, for `load_state`."""
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
