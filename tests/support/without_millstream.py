"""Runs exported programs as a process would that has torch alone; run as a program.

For each archive PATH.pt2 it reads PATH.npz, a list of batches of inputs, and writes PATH.out.npz,
the fields of each batch and the gradient of their sum in the parameters.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

MISSING = {"millstream", "framework", "surrogates", "solvers", "neuralop", "tensorly"}


class Missing:
    """Lets nothing be imported of Millstream, nor what its networks are made of."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"{name} is not on this machine", name=name)
        return None


def run(path: Path) -> None:
    """Run the program of an archive."""
    import numpy as np
    import torch

    program = torch.export.load(path).module()
    found = {}
    with np.load(path.with_suffix(".npz")) as batches:
        for n in ("1", "7"):
            inputs = [torch.tensor(batches[f"{n}_{place}"]) for place in range(len(batches) // 2)]
            found[f"{n}_fields"] = program(*inputs).numpy()
            inputs[0].requires_grad_()
            program(*inputs).sum().backward()
            assert inputs[0].grad is not None
            found[f"{n}_gradient"] = inputs[0].grad.numpy()
    np.savez(path.with_suffix(".out.npz"), **found)


if __name__ == "__main__":
    sys.meta_path.insert(0, Missing())
    for name in sys.argv[1:]:
        run(Path(name))
    assert not MISSING & {name.partition(".")[0] for name in sys.modules}
