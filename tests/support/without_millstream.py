"""Runs exported programs as a process would that has torch alone; run as a program.

For each archive PATH.pt2 it reads PATH.npz, a list of batches of inputs, and writes PATH.out.npz,
the fields of each batch and the gradient of their sum in the parameters.
"""

import sys
from pathlib import Path

from missing_packages import forbid

MISSING = ("millstream", "framework", "surrogates", "solvers", "neuralop", "tensorly")


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
    forbid(*MISSING)
    for name in sys.argv[1:]:
        run(Path(name))
    assert not {*MISSING} & {name.partition(".")[0] for name in sys.modules}
