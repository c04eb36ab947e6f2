"""Surrogates as programs of torch.export."""

import json
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path

import broken_surrogates
import numpy as np
import pytest
import torch
import without_millstream
from networks import MODES, make_data, make_problem
from torch import Tensor

from framework.errors import StudyError, WriteError
from framework.training.export import DESCRIPTION, export_surrogate
from surrogates.base import Mode, Surrogate
from surrogates.fno import Fno
from surrogates.message_passing import MessagePassing
from surrogates.mlp import Mlp
from surrogates.unet import UNet

KINDS = {
    "mlp": partial(Mlp, hidden=(8,)),
    "fno": partial(Fno, modes=4, hidden_channels=4, layers=2),
    "unet": partial(UNet, hidden_channels=4, levels=1, periodic=True),
    "message_passing": partial(MessagePassing, hidden=8, layers=1),
    "bundle": partial(MessagePassing, hidden=8, layers=1, bundle=2, pushforward=True),
}
GRIDS = [(8,), (8, 5), (4, 6, 5)]
# Each network with each number of axes, and in each of its modes.
CASES: list[tuple[str, tuple[int, ...], Mode]] = [
    (kind, grid, MODES[(place + axes) % 2])
    for (place, kind), (axes, grid) in product(enumerate(KINDS), enumerate(GRIDS))
    if kind != "bundle"
]
CASES.append(("bundle", (8, 5), "autoregressive"))
BATCHES = (1, 7)


def make(kind: str, grid: tuple[int, ...], mode: Mode) -> Surrogate:
    torch.manual_seed(0)
    surrogate: Surrogate = KINDS[kind](make_problem(grid, channels=2, static=1), mode)
    change = torch.tensor([[0.4, 0.3]]).expand(surrogate.bundle, -1)
    surrogate.normalise_fields(torch.tensor([3.0, 2.0]), torch.tensor([2.0, 1.5]), change)
    return surrogate


def inputs(surrogate: Surrogate, n: int) -> list[Tensor]:
    """A program's inputs, in single precision."""
    parameters, times, fields = make_data(surrogate.problem, n, surrogate.bundle + 1)
    if surrogate.mode == "direct":
        return [parameters, times[:, 0]]
    return [parameters, times, fields[:, 0].float()]


def one_step(surrogate: Surrogate, *given: Tensor) -> Tensor:
    step = surrogate.direct if surrogate.mode == "direct" else surrogate.advance
    return step(*given)


def path_of(folder: Path, kind: str, grid: tuple[int, ...]) -> Path:
    return folder / f"{kind}{len(grid)}.pt2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives of all cases, and what a process without Millstream makes of them."""
    folder = tmp_path_factory.mktemp("exported")
    for kind, grid, mode in CASES:
        surrogate, path = make(kind, grid, mode), path_of(folder, kind, grid)
        export_surrogate(surrogate, path, {})
        given = {
            f"{n}_{place}": tensor.numpy()
            for n in BATCHES
            for place, tensor in enumerate(inputs(surrogate, n))
        }
        np.savez(path.with_suffix(".npz"), **given)
    program = [sys.executable, "-E", "-s", without_millstream.__file__]
    command = [*program, *map(str, folder.glob("*.pt2"))]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return folder


@pytest.mark.parametrize(("kind", "grid", "mode"), CASES)
def test_a_program_predicts_as_its_surrogate_does_without_millstream(
    folder: Path, kind: str, grid: tuple[int, ...], mode: Mode
) -> None:
    surrogate = make(kind, grid, mode).eval()
    with np.load(path_of(folder, kind, grid).with_suffix(".out.npz")) as found:
        for n in BATCHES:
            given = inputs(surrogate, n)
            given[0].requires_grad_()
            fields = one_step(surrogate, *given)
            (gradient,) = torch.autograd.grad(fields.sum(), given[0])
            np.testing.assert_allclose(
                found[f"{n}_fields"], fields.detach().numpy(), rtol=1e-5, atol=1e-5
            )
            np.testing.assert_allclose(
                found[f"{n}_gradient"], gradient.numpy(), rtol=1e-3, atol=1e-4
            )


def test_an_archive_says_what_the_caller_says_and_leaves_the_surrogate_as_it_is(
    tmp_path: Path,
) -> None:
    surrogate = broken_surrogates.Sound(make_problem()).double()  # which calls len(tensor)
    before = surrogate.tensors()
    description = {"mode": "direct", "parameters": [{"name": "p0", "unit": "m"}]}
    export_surrogate(surrogate, tmp_path / "model.pt2", description)
    assert surrogate.training
    assert all(weight.requires_grad for weight in surrogate.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in surrogate.tensors().items())
    extra = {DESCRIPTION: ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    assert json.loads(extra[DESCRIPTION]) == description
    given = inputs(surrogate, 5)
    expected = surrogate.eval().direct(*given).float().detach()
    torch.testing.assert_close(program(*given), expected)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            broken_surrogates.Branches,
            r"Branches cannot be exported, for torch\.export says: \S.*; its forward has to do",
        ),
        (broken_surrogates.Random, "Random cannot be exported: the program's fields differ"),
        (broken_surrogates.Raises, "Raises cannot be exported: its forward failed with Runtime"),
    ],
)
def test_what_is_no_program_is_refused_in_a_sentence(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    network: type[Surrogate],
    message: str,
) -> None:
    path = tmp_path / "model.pt2"
    path.write_text("an earlier one")
    with pytest.raises(StudyError, match=message) as found:
        export_surrogate(network(make_problem(), "autoregressive"), path, {})
    assert "\n" not in str(found.value)
    assert capfd.readouterr() == ("", "")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["an earlier one"]


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"cannot write .*: No such file or directory"):
        export_surrogate(make("mlp", (8,), "direct"), tmp_path / "no" / "model.pt2", {})
