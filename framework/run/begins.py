"""What a run waits for before its first optimiser step, told to the user."""

from framework.study.study import Study


def begins(study: Study) -> str:
    """Return a sentence about what is started, and what training waits for."""
    actors, held_out = study.ensemble.actors, study.validation.simulations
    processes = f"{actors} solver process{'' if actors == 1 else 'es'}"
    if study.training.source:
        return (
            f"starting {processes} for {held_out} held-out simulations, and reading "
            f"{study.training.source} once for the statistics of its fields"
        )
    return (
        f"starting {processes}: {held_out} held-out simulations come first, and training begins "
        f"when the buffer holds {study.buffer.watermark} samples"
    )
