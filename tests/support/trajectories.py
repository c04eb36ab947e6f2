"""Held-out trajectories of random fields, for tests of scores and of validation."""

import numpy as np
from numpy.typing import NDArray

from framework.training.scores import Trajectories

Fields = NDArray[np.float32]
STEPS = 4


def make_fields(*shape: int, seed: int = 0) -> Fields:
    return np.random.default_rng(seed).normal(2, 3, shape).astype(np.float32)


def held_out(fields: Fields) -> Trajectories:
    random = np.random.default_rng(0)
    times = np.cumsum(random.uniform(0.1, 0.2, fields.shape[:2]), 1)
    parameters = random.uniform(size=(len(fields), 2))
    ids = -1 - np.arange(len(fields))
    return Trajectories(ids, parameters.astype(np.float32), times.astype(np.float32), fields)
