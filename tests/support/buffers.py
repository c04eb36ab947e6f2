"""Buffers and samples to put into them."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import hypothesis.strategies as st
import numpy as np
from waiting import LIMIT

from framework.check.numbered import SHAPE, numbered, numbers_of
from framework.stream.buffers.buffer import Buffer, Closed
from framework.stream.samples import Batch, Samples, SampleShape
from framework.study.buffers import BUFFERS
from framework.study.component import load_class
from framework.study.sections import BufferConfig

WINDOW, PARAMETERS, FIELD_SHAPE = SHAPE.window, SHAPE.parameters, SHAPE.fields
samples = numbered

ENDLESS = 1e9  # a band without an upper end


def make_buffer(
    config: BufferConfig,
    batch_size: int,
    window: int,
    parameters: int,
    field_shape: tuple[int, ...],
    seed: int,
    in_turn: bool = False,
) -> Buffer:
    """An empty buffer of the kind that `config` names."""
    kind = load_class("buffer.kind", BUFFERS[config.kind].path, f"{Buffer.__module__}:Buffer")
    buffer: Buffer = kind(
        SampleShape(parameters, window, field_shape),
        np.random.default_rng(seed),
        config.capacity,
        batch_size,
        config.watermark,
        config.replay,
        config.device,
        in_turn,
    )
    return buffer


def ids(batch: Batch | Samples | None) -> list[int]:
    """What the batch is of; checks that its numbers are those that were put."""
    assert batch is not None
    return numbers_of(batch)


class Call(threading.Thread):
    """A call that may have to wait."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        super().__init__(daemon=True)
        self.result: Any = None
        self.error: Exception | None = None
        self._call = partial(function, *arguments)
        self.start()

    def run(self) -> None:
        try:
            self.result = self._call()
        except (Closed, AssertionError) as error:
            self.error = error


@st.composite
def studies(draw: st.DrawFn, *kinds: str) -> tuple[BufferConfig, int]:
    """Any configuration that is permitted, and a batch size that it permits."""
    kind = draw(st.sampled_from(kinds or ("fifo", "firo", "reservoir")))
    batch_size = draw(st.integers(1, 5))
    watermark = draw(st.integers(0, 8)) if kind != "fifo" else 0
    capacity = draw(st.integers(watermark + batch_size, watermark + batch_size + 8))
    bands = [(1.0, 1.0), (1.0, 2.5), (1.75, 1.75), (3.0, 8.0), (1.0, ENDLESS)]
    replay = draw(st.sampled_from(bands)) if kind == "reservoir" else (1.0, 1.0)
    values = {"kind": kind, "capacity": capacity, "watermark": watermark, "replay": replay}
    return BufferConfig.model_validate(values), batch_size


def run_together(buffer: Buffer, *functions: Callable[[], Any]) -> list[Any]:
    """The results of functions that run in threads; none may fail or go on for ever."""
    calls = [Call(function) for function in functions]
    for call in calls:
        call.join(LIMIT)
    stalled = any(call.is_alive() for call in calls)
    buffer.close()
    assert not stalled
    assert [call.error for call in calls] == [None] * len(calls)
    return [call.result for call in calls]
