"""Blocks to feed what receives them."""

import numpy as np

from framework.simulation.block import Block
from framework.simulation.solver_actor import checksum


def make_block(simulation: int, first: int, stop: int, salt: float = 0.0) -> Block:
    """Steps [first, stop) whose fields, times and parameters say which step they are."""
    steps = np.arange(first, stop)
    fields = (100 * simulation + steps + salt).astype(np.float32)
    fields = np.broadcast_to(fields[:, None, None], (len(steps), 2, 3)).copy()
    return Block(
        simulation,
        first,
        fields,
        np.array([simulation, 7.0]),
        steps * 0.5,
        np.array([checksum(field) for field in fields], dtype=np.uint32),
    )
