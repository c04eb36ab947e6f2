"""Checks of a solver's images of its fields and of its quantities."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from framework.check.clock import Clock
from framework.check.findings import Finding, failed, passed
from framework.check.simulated import Fields, Simulated
from solvers.base import Quantity

_CONTRACT = "solvers/base.py says what `observe` returns."


def check_images(subject: Simulated, clock: Clock) -> Iterator[Finding]:
    """`observe` makes images of the grid, point by point; its masks shrink as thresholds rise."""
    solver, shape = subject.solver, subject.solver.grid.shape
    fields = subject.run(clock, subject.middle)[-1]
    images = solver.observe(fields)
    wrong = {name: np.shape(image) for name, image in images.items() if np.shape(image) != shape}
    if wrong or not images:
        yield failed(
            f"images have the shapes {wrong}, not {shape}" if wrong else "there is no image",
            f"Return an image [*grid] for each name. {_CONTRACT}",
        )
        return
    half = (slice(0, (shape[0] + 1) // 2),)
    for name, image in solver.observe(fields[(slice(None), *half)]).items():
        if not np.array_equal(image, images[name][half], equal_nan=True):
            yield failed(
                f"half of the grid does not give half of the image {name}",
                f"Observe each point by itself, without its neighbours or a sum. {_CONTRACT}",
            )
            return
    try:
        solver.observe(fields, no_such_setting=1.0)
        yield failed(
            "observe accepts a setting no_such_setting=1",
            "Raise ValueError on a setting that it does not know, so that no typing mistake "
            "passes.",
        )
        return
    except ValueError:
        pass
    masks: Mapping[str, tuple[float, ...]] = getattr(solver, "masks", {})
    wrong_masks = list(_wrong_masks(subject, fields, masks))
    yield from wrong_masks
    if not wrong_masks:
        of_masks = f"; masks {', '.join(masks)}" if masks else ""
        yield passed(f"images {', '.join(images)}{of_masks}")


def _wrong_masks(
    subject: Simulated, fields: Fields, masks: Mapping[str, tuple[float, ...]]
) -> Iterator[Finding]:
    """Yield what is wrong with the masks of an imaged solver."""
    for name, values in masks.items():
        before: NDArray[np.bool_] | None = None
        if list(values) != sorted(set(values)):
            yield failed(f"the values {values} of the mask {name} do not ascend", "Sort them.")
        for value in sorted(values):
            image = subject.solver.observe(fields, **{name: value}).get(name)
            if image is None or image.dtype != np.bool_:
                yield failed(
                    f"{name} is in `masks`, but observe returns "
                    + ("no such image" if image is None else f"it as {image.dtype}"),
                    "Return it as an array of bool.",
                )
                break
            mask = image.astype(np.bool_)
            if before is not None and (mask & ~before).any():
                yield failed(
                    f"the mask {name} at {value:g} is not a part of the mask at the value before",
                    "Let masks shrink as their values rise, as look-up relies on it.",
                )
                break
            before = mask


def check_quantities(subject: Simulated, clock: Clock) -> Iterator[Finding]:
    """`identifiable` returns one finite number of each quantity for each observation."""
    solver = subject.solver
    parameters = np.stack([subject.middle, *subject.corners()])
    times = np.array([solver.times(row)[-1] for row in parameters])
    quantities = solver.identifiable(parameters, times)
    wrong = [
        name
        for name, quantity in quantities.items()
        if not isinstance(quantity, Quantity)
        or np.shape(quantity.values) != times.shape
        or not np.isfinite(quantity.values).all()
    ]
    if wrong or not quantities:
        yield failed(
            f"not {len(times)} finite numbers for {len(times)} observations: {', '.join(wrong)}"
            if wrong
            else "there is no quantity",
            "Return a Quantity with one number for each row of the parameters.",
        )
        return
    yield passed(", ".join(quantities))
