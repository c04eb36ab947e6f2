"""What a solver's process sends: blocks of consecutive stored steps, in messages.

Shapes: C fields (channels), p parameters, s stored steps in a block, `*grid` the grid's axes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framework.study.ids import is_held_out


@dataclass(frozen=True)
class Block:
    """Consecutive stored steps of one simulation or, with `error` set, the news that it failed.

    `checksums` has one checksum per step, so that a simulation that runs again can be compared with
    what was received before. A block with an error has no steps: `first_step` is then the step that
    could not be computed.
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

    @property
    def held_out(self) -> bool:
        """Whether the block's simulation is held out from training."""
        return is_held_out(self.simulation)

    def from_step(self, step: int) -> "Block":
        """Return the part of this block that starts at `step`, as views."""
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
    """Blocks that a solver's process sends together, and how long it had to wait before."""

    blocks: list[Block]
    waited: float = 0.0  # seconds, since the message before was ready
