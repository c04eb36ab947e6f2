"""The checks of a buffer: what it draws while one thread puts samples and another draws batches."""

import io
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from framework.check.clock import Clock
from framework.check.findings import Check, Finding, failed, passed, skipped
from framework.check.numbered import SHAPE, SIMULATIONS, Altered, numbered
from framework.check.race import TOTAL, Race, Stalled, goes_on, waits
from framework.stream.buffers.buffer import Buffer
from framework.stream.buffers.limiter import OnceEach
from framework.stream.samples import Samples, SampleShape
from framework.study.streams import Stream, generator
from framework.threads import Background
from framework.training.checkpoint import storable


@dataclass(frozen=True)
class Sizes:
    """Settings of a buffer that a study may ask for."""

    capacity: int
    batch_size: int
    watermark: int
    replay: tuple[float, float] = (1.0, 1.0)

    def __str__(self) -> str:
        return (
            f"capacity {self.capacity}, batch_size {self.batch_size}, watermark {self.watermark}, "
            f"replay [{self.replay[0]:g}, {self.replay[1]:g}]"
        )


_ONCE = (
    *(Sizes(12, 4, 0), Sizes(9, 4, 5), Sizes(1, 1, 0), Sizes(40, 4, 8)),
    *(Sizes(16, 4, 4), Sizes(64, 8, 8), Sizes(256, 16, 32)),
)
_REPEATED = (Sizes(12, 4, 0, (2.0, 4.0)), Sizes(9, 4, 5, (3.0, 3.0)), Sizes(40, 4, 8, (1.0, 6.0)))


class Buffers:
    """Makes buffers of the kind that is checked."""

    def __init__(self, kind: type[Buffer]) -> None:
        self.once_each = kind.limiter is OnceEach
        self._kind = kind

    def make(self, sizes: Sizes, in_turn: bool = False, shape: SampleShape = SHAPE) -> Buffer:
        """Make an empty buffer, always with the same random numbers.

        Raises ValueError if the constructor refuses the sizes.
        """
        random = generator(0, Stream.CHECK, 1)
        settings = (sizes.capacity, sizes.batch_size, sizes.watermark, sizes.replay)
        return self._kind(shape, random, *settings, "cpu", in_turn)

    def sizes(self) -> Iterator[Sizes]:
        """Yield the settings that the constructor accepts."""
        for sizes in _ONCE if self.once_each else _ONCE + _REPEATED:
            try:
                self.make(sizes)
            except ValueError:
                continue
            yield sizes


def buffer_checks(kind: type[Buffer]) -> list[Check]:
    """Return all checks of a buffer."""
    checks = {
        "settings": check_sizes,
        "what is drawn": check_draws,
        "a simulation again": check_discard,
        "same seed, same draws": check_in_turn,
        "stopped and resumed": check_state,
        "the end": check_end,
        "speed": check_speed,
    }
    needed = (check_sizes, check_draws)
    return [
        Check(name, partial(check, Buffers(kind)), needed=check in needed)
        for name, check in checks.items()
    ]


def check_sizes(buffers: Buffers, clock: Clock) -> Iterator[Finding]:
    """The constructor accepts settings that can work and refuses those that cannot."""
    accepted = list(buffers.sizes())
    if not any(sizes.batch_size > 1 for sizes in accepted):
        try:
            buffers.make(_ONCE[-1])
        except ValueError as error:
            yield failed(
                f"the constructor refuses all of {'; '.join(map(str, _ONCE))}: {error}",
                "Take the same arguments as Buffer, and give them to Buffer.__init__.",
            )
            return
    small = Sizes(3, 4, 0)
    try:
        buffers.make(small)
    except ValueError:
        yield passed(f"{len(accepted)} combinations accepted, a capacity below a batch refused")
        return
    yield failed(
        f"{small} is accepted, but no batch would ever be full",
        "Call Buffer.__init__, which raises ValueError.",
    )


def check_draws(buffers: Buffers, clock: Clock) -> Iterator[Finding]:
    """Every sample comes out as it was put, in full batches, at least once; no thread stalls."""
    times = []
    for sizes in buffers.sizes():
        try:
            batches = Race(buffers.make(sizes)).run(clock).batches
        except Altered as error:
            yield failed(
                f"{sizes}: {error}",
                "See that `pick` returns places that hold a sample; alter nothing in `get`.",
            )
            return
        except Stalled as error:
            yield failed(
                f"{sizes}: {error}",
                "`room` or `ready` of the limiter has to permit one of them; keep `counts` true in "
                "`pick` and `place`.",
            )
            return
        wrong = next(_wrong_draws(batches, sizes, buffers.once_each), None)
        if wrong is not None:
            yield wrong
            return
        times.append(sum(map(len, batches)) / TOTAL)
    yield passed(
        f"{TOTAL} samples as they were put, each "
        + ("once" if max(times) == 1 else f"{min(times):.3g} to {max(times):.3g} times in the mean")
        + f", with {len(times)} combinations of settings"
    )


def _wrong_draws(
    batches: Sequence[Sequence[int]], sizes: Sizes, once_each: bool
) -> Iterator[Finding]:
    """Yield what is wrong with the numbers of the samples in the batches of a race."""
    drawn = [number for batch in batches for number in batch]
    short = [len(batch) for batch in batches[:-1] if len(batch) != sizes.batch_size]
    lost = set(range(TOTAL)) - set(drawn)
    if any(len(set(batch)) < len(batch) for batch in batches):
        yield failed(f"{sizes}: a sample is twice in a batch", "Return different places in `pick`.")
    if once_each and len(drawn) > len(set(drawn)):
        yield failed(
            f"{sizes}: samples are drawn more than once, though the limiter is OnceEach",
            "Remove from `order` what `pick` returns, or choose the limiter ReplayBand.",
        )
    if short:
        yield failed(
            f"{sizes}: a batch before the last one has {short[0]} samples",
            "Return as many places as `pick` is asked for.",
        )
    if lost:
        yield failed(
            f"{sizes}: {len(lost)} of {TOTAL} samples were never drawn",
            "Overwrite in `place` only what was drawn before, and remove in `pick` what is drawn "
            "once reception is `over`.",
        )


def check_discard(buffers: Buffers, clock: Clock) -> Iterator[Finding]:
    """After a simulation starts anew, its old samples are gone, and all others are drawn."""
    stop, simulation = TOTAL // 2, 0
    for sizes in buffers.sizes():
        race = Race(buffers.make(sizes)).discard(simulation, stop).run(clock)
        drawn = [number for batch in race.batches for number in batch]
        left = {n for n in range(stop) if n % SIMULATIONS == simulation}
        wrong = left & set(drawn[race.before_discard :])
        lost = set(range(TOTAL)) - left - set(drawn)
        if wrong or lost:
            yield failed(
                f"{sizes}: after a discard, {len(wrong)} samples of it are drawn and {len(lost)} "
                "of other simulations are lost",
                "Keep nothing about samples beside `counts` and `order`, or drop it in `discard`.",
            )
            return
    yield passed("nothing is left of it, and all others are drawn")


def check_in_turn(buffers: Buffers, clock: Clock) -> Iterator[Finding]:
    """In a deterministic study the seed decides what is drawn, whichever thread is faster."""
    for sizes in buffers.sizes():
        first, again = (Race(buffers.make(sizes, in_turn=True)).run(clock) for _ in range(2))
        if first.batches != again.batches:
            yield failed(
                f"{sizes}: two runs with the same random numbers draw different batches",
                "Draw at random from `self.random` alone, and keep no state outside the buffer.",
            )
            return
    yield passed("two runs in turn draw the same batches")


def check_state(buffers: Buffers, clock: Clock) -> Iterator[Finding]:
    """A new buffer continues from a saved state as the old one would have."""
    for sizes in buffers.sizes():
        whole = Race(buffers.make(sizes, in_turn=True)).run(clock)
        first = Race(buffers.make(sizes, in_turn=True)).run(clock, len(whole.batches) // 2)
        try:
            state = _saved(first.buffer.state())
        except Exception as error:  # whatever torch says of the user's values
            yield failed(
                f"its state cannot be saved: {' '.join(str(error).split())}",
                "Return arrays, tensors, numbers, texts, lists and dictionaries of them only.",
            )
            return
        finally:
            first.buffer.close()
        buffer = buffers.make(sizes, in_turn=True)
        buffer.random.random(7)  # the state has to replace this generator's, too
        buffer.load_state(state)
        second = Race(buffer, first.begun).run(clock)
        if first.batches + second.batches != whole.batches:
            yield failed(
                f"{sizes}: a buffer that goes on from a state draws other batches",
                "Add to `state` what else decides what is drawn, and take it back in `load_state`.",
            )
            return
    yield passed("a new buffer draws what the first one would have drawn")


def check_end(buffers: Buffers, clock: Clock) -> Iterator[Finding]:
    """Waiting threads are woken by `close` and by `end_reception`."""
    sizes = next(buffers.sizes())
    for end in ("close", "end_reception"):
        empty, full = buffers.make(sizes), buffers.make(sizes)
        threads = {
            "get": (empty, waits(empty, empty.get, clock)),
            "put": (full, waits(full, partial(full.put, numbered(range(1000))), clock)),
        }
        for call, (buffer, thread) in threads.items():
            getattr(buffer, end)()
            if not goes_on(buffer, thread, clock):
                yield failed(
                    f"{call} still waits after {end}",
                    "Leave waiting to Buffer, or wake whoever waits.",
                )
                return
    yield passed("close and end_reception wake those who wait")


def check_speed(buffers: Buffers, clock: Clock) -> Iterator[Finding]:
    """Report how many samples one thread can put and another draw; never fails."""
    fields, seconds = (1, 64, 64), min(0.3, clock.limit / 2)
    sizes = Sizes(512, 16, max(sizes.watermark for sizes in buffers.sizes()))
    try:
        buffer = buffers.make(sizes, shape=SampleShape(SHAPE.parameters, 1, fields))
    except ValueError as error:
        yield skipped(f"{sizes}: {error}")
        return
    steps, sizes_of = np.arange(32), ((SHAPE.parameters,), (1,), (1, *fields))
    samples = Samples(steps, steps, *(np.zeros((32, *of), dtype=np.float32) for of in sizes_of))

    def put() -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            buffer.put(samples)
        buffer.end_reception()

    putting = Background("put", put, failed=buffer.close)
    started = time.perf_counter()
    putting.start()
    while buffer.get() is not None:
        pass
    rate = buffer.drawn / (time.perf_counter() - started)
    putting.join()
    yield passed(
        f"{rate:,.3g} samples/s of 64 x 64 drawn while others are put, "
        f"{4e-6 * math.prod(fields) * rate:,.3g} MB/s"
    )


def _saved(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state, written and read back as a checkpoint is."""
    file = io.BytesIO()
    torch.save(storable(state), file)
    file.seek(0)
    read: dict[str, Any] = torch.load(file, weights_only=True)
    return read
