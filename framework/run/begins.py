"""What a run waits for before its first optimiser step, told to the user."""

from framework.study.study import Study


def begins(study: Study) -> str:
    """Return a sentence about what is started, and what training waits for."""
    actors, held_out = study.ensemble.actors, study.validation.simulations
    processes, ranks = f"{actors} solver process{'' if actors == 1 else 'es'}", study.training.ranks
    one = "the buffer" if ranks == 1 else "each rank's buffer"
    if ranks > 1:
        processes = f"{ranks} training ranks with {processes}"
    if study.training.source:
        return (
            f"starting {processes} for {held_out} held-out simulations, and reading "
            f"{study.training.source} once for the statistics of its fields"
        )
    return (
        f"starting {processes}: {held_out} held-out simulations come first, and training begins "
        f"when {one} holds {study.buffer.watermark} samples"
    )
