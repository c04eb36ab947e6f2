"""A trained surrogate as a program of torch.export, which runs without Millstream.

Shapes: n samples, p parameters, C fields, K steps predicted at once, `*grid` the grid's axes.
"""

import copy
import io
import json
import logging
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from framework.errors import StudyError
from framework.files import replacing
from framework.study.component import their_mistakes
from surrogates.base import Surrogate

# The file inside the archive that describes the program.
DESCRIPTION = "millstream.json"
# The program is written for no size of a batch in particular; torch takes 1 for a special case.
_TRACED_BATCH = 2
_TRIED_BATCHES = (1, 3)
_TOLERANCE = 1e-4
_PLACE = re.compile(r'File "([^"]+)", line (\d+)')


def export_surrogate(surrogate: Surrogate, path: Path, description: dict[str, Any]) -> None:
    """Write the surrogate as an archive for `torch.export.load`, whole or not at all.

    The program maps float32 to float32 in physical units, for any number n of samples from 1 up. In
    mode `direct` it takes (parameters [n, p], times [n]) and returns fields [n, C, *grid]. In mode
    `autoregressive` it takes (parameters [n, p], times [n, K + 1], fields [n, C, *grid] at the
    first of them) and returns the fields [n, K, C, *grid] at the others. Static fields and the
    normalisation are part of it. It is differentiable in its inputs, and runs on a CPU.

    `description`: plain values, kept in the archive as the JSON file `DESCRIPTION`; in torch,
    `extra_files` of `torch.export.load` returns it. The surrogate stays as it is.

    Raises StudyError if its `forward` is no program for batches of any size, and WriteError.
    """
    name = type(surrogate).__name__
    with _quiet():
        module, expected = _prepared(surrogate, name)
        program = _traced(module, name, _inputs(surrogate, _TRACED_BATCH))
        run = program.module()
        for n, fields in zip(_TRIED_BATCHES, expected, strict=True):
            _compare(name, run(*_inputs(surrogate, n)), fields)
        with replacing(path, flush=True) as temporary, temporary.open("wb") as file:
            extra = {DESCRIPTION: json.dumps(description, indent=2)}
            torch.export.save(program, file, extra_files=extra)


class _Step(nn.Module):
    """A surrogate's one-step prediction as its forward pass."""

    def __init__(self, surrogate: Surrogate) -> None:
        super().__init__()
        self.surrogate = surrogate

    def forward(self, parameters: Tensor, times: Tensor, fields: Tensor | None = None) -> Tensor:
        if fields is None:
            return self.surrogate.direct(parameters, times).float()
        return self.surrogate.advance(parameters, times, fields).float()


def _prepared(surrogate: Surrogate, name: str) -> tuple[_Step, list[Tensor]]:
    """Return a copy to export, and its fields for each of the batches to try. Raises StudyError.

    It has run before it is traced, so that what it keeps at its first call is no tensor of the
    tracer's.
    """
    try:
        with their_mistakes(f"{name} cannot be exported: its forward failed"):
            # With gradients of the weights, the program's outputs would be no plain numbers.
            module = _Step(copy.deepcopy(surrogate).cpu().eval().requires_grad_(False))
            return module, [module(*_inputs(surrogate, n)) for n in _TRIED_BATCHES]
    except ValueError as error:
        raise StudyError(str(error)) from None


def _traced(module: _Step, name: str, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """Return the program of a module for batches of any size. Raises StudyError."""
    sizes = tuple({0: Dim("batch", min=1)} for _ in inputs)
    reason = ""
    # Running the code takes whatever Python has, reading it takes len(tensor): one or the other.
    for strict in (False, True):
        try:
            return torch.export.export(module, inputs, dynamic_shapes=sizes, strict=strict)
        except Exception as error:  # whatever torch says of the user's code
            reason = _reason(error)
    raise StudyError(
        f"{name} cannot be exported, for torch.export says: {reason}; its forward has to do the "
        "same tensor operations whatever the values and the size of the batch"
    )


def _reason(error: Exception) -> str:
    """Return torch's first line, and the line of the user's code if torch says so."""
    message = str(error)
    first = message.partition("\n")[0].partition(" For more information")[0].strip().rstrip(".")
    places = [place for place in _PLACE.findall(message) if "site-packages" not in place[0]]
    return f"{first} ({places[-1][0]}:{places[-1][1]})" if places else first


def _inputs(surrogate: Surrogate, n: int) -> tuple[Tensor, ...]:
    """Return n samples within what the surrogate was trained for, all different."""
    problem = surrogate.problem
    share = torch.linspace(0, 1, n + 2)[1:-1, None]  # [n, 1]
    low, high = torch.tensor(problem.low), torch.tensor(problem.high)
    parameters = low + share * (high - low)
    start = problem.times[0] + share * (problem.times[1] - problem.times[0])
    if surrogate.mode == "direct":
        return parameters, start[:, 0]
    times = start + torch.arange(surrogate.bundle + 1) * problem.steps[1]
    shape = (n, problem.channels, *problem.grid)
    mean, scale = (
        values.cpu().float().view(-1, *[1] * len(problem.grid))
        for values in (surrogate.field_mean, surrogate.field_scale)
    )
    normal = torch.linspace(-1, 1, math.prod(shape)).view(shape)
    return parameters, times, mean + scale * normal


def _compare(name: str, found: Tensor, expected: Tensor) -> None:
    """Raise StudyError if the program's fields are not the surrogate's."""
    found, expected = found.nan_to_num(), expected.nan_to_num()  # if training has diverged
    apart = float((found - expected).abs().max())
    if apart > _TOLERANCE * float(expected.abs().max()):
        raise StudyError(
            f"{name} cannot be exported: the program's fields differ from its own by up to "
            f"{apart:.3g}; its forward must neither draw random numbers nor remember earlier calls"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's warnings, its logs and the programs that it prints from standard error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
