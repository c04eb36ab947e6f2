"""What the training ranks count, as read off at one moment."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Moment:
    """Totals of training when reception was last seen going on."""

    steps: int = 0  # optimiser steps
    seconds: float = 0.0
    waited: float = 0.0  # seconds
    drawn: int = 0  # samples
    received: int = 0  # samples


@dataclass(frozen=True)
class Streamed:
    """Seconds of streaming: all of them, those without a message, and those of waiting solvers."""

    seconds: float = 0.0
    idle: float = 0.0
    solvers_waited: float = 0.0  # of all solvers together


@dataclass(frozen=True)
class Figures:
    """The counters of one rank, or of all ranks together. They continue after a resume."""

    steps: int = 0  # optimiser steps
    drawn: int = 0  # samples in the batches of all ranks
    progress: float = 0.0  # of the way to the stop
    loss: float = 0.0
    learning_rate: float = 0.0
    seconds: float = 0.0  # of training
    waited: float = 0.0  # of them, for samples
    held: int = 0  # samples in memory
    received: int = 0  # samples that came into memory
    produced: int = 0  # different samples there are to train on by now
    untrained: int = 0  # of them
    unique_trained: int = 0
    receiving: bool = False
    streamed: Streamed = Streamed()
    while_receiving: Moment = Moment()


def merged(figures: Sequence[Figures]) -> Figures:
    """Return the counters of all ranks together: sums, or the mean over ranks of what each waits.

    What all ranks agree on, such as optimiser steps, is taken from the first.
    """
    first, count = figures[0], len(figures)
    if count == 1:
        return first
    moments, streams = [one.while_receiving for one in figures], [one.streamed for one in figures]
    return Figures(
        steps=first.steps,
        drawn=first.drawn,
        progress=first.progress,
        loss=first.loss,
        learning_rate=first.learning_rate,
        seconds=max(one.seconds for one in figures),
        waited=sum(one.waited for one in figures) / count,
        held=sum(one.held for one in figures),
        received=sum(one.received for one in figures),
        produced=sum(one.produced for one in figures),
        untrained=sum(one.untrained for one in figures),
        unique_trained=sum(one.unique_trained for one in figures),
        receiving=any(one.receiving for one in figures),
        streamed=Streamed(
            max(stream.seconds for stream in streams),
            sum(stream.idle for stream in streams) / count,
            sum(stream.solvers_waited for stream in streams),
        ),
        while_receiving=Moment(
            max(moment.steps for moment in moments),
            max(moment.seconds for moment in moments),
            sum(moment.waited for moment in moments) / count,
            max(moment.drawn for moment in moments),
            sum(moment.received for moment in moments),
        ),
    )
