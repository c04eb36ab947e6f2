"""Diffusion within tissue: finite volumes in space, stabilised Runge-Kutta in time.

B: simulations, n: voxels in a simulation's window, laid out as one row.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from solvers.tumor.window import Windows

# Conductances are multiples of 2^-20 of their range, so that sums of six are exact in float32.
_BITS = 20


def conductances(
    mobility: NDArray[np.float32],
    mask: NDArray[np.bool_],
    spacing: tuple[float, float, float],
) -> NDArray[np.float32]:
    """Return the conductances between each voxel and the next on every axis [3, *grid], 1/mm2.

    A conductance is the mean of the two voxels' mobility over the spacing squared; 0 unless both
    are tissue.
    """
    faces = np.zeros((3, *mask.shape), dtype=np.float32)
    for axis in range(3):
        one = tuple(slice(None, -1 if a == axis else None) for a in range(3))
        two = tuple(slice(1 if a == axis else None, None) for a in range(3))
        mean = (mobility[one] + mobility[two]) / 2
        faces[axis][one] = np.where(mask[one] & mask[two], mean, 0) / spacing[axis] ** 2
    return faces


class Diffusion:
    """du/dt = spread div(mobility grad u) in windows; nothing flows through their rims.

    Scheme: a flux between any two neighbours, so that the sum of u is kept to rounding; in time
    the second-order Runge-Kutta-Legendre scheme RKL2 (Meyer, Balsara and Aslam, J. Comput. Phys.
    257, 2014), whose s stages are stable for steps up to (s^2 + s - 2) / (2 lambda), lambda the
    operator's largest eigenvalue in magnitude; the number of stages follows from the step.
    It is computed as increments u - u0, each of which is a sum of fluxes: whatever rounding does to
    the scheme's coefficients, the sum of u remains.
    """

    def __init__(self, faces: torch.Tensor, spread: torch.Tensor, windows: Windows) -> None:
        """`faces` [3, *grid] as from `conductances`, `spread` [B]; both in the computing type."""
        self._strides = windows.strides
        self._faces = [windows.cut(along) for along in faces]
        largest = torch.stack([cut.amax(1) for cut in self._faces]).amax(0) * spread
        unit = 2.0 ** (torch.ceil(torch.log2(largest.clamp(min=1e-30))) - _BITS)[:, None]  # [B, 1]
        for axis, cut in enumerate(self._faces):
            cut.mul_(spread[:, None] / unit).round_().mul_(unit)
            cut.view(-1, *windows.shape).select(axis + 1, -1).zero_()  # the window's rim
        self._diagonal = torch.zeros_like(self._faces[0])
        for face, stride in zip(self._faces, self._strides, strict=True):
            self._diagonal.sub_(face)
            self._diagonal[:, stride:].sub_(face[:, :-stride])
        # Gershgorin's bound: twice the largest entry of the diagonal.
        self._largest = -2 * float(self._diagonal.min())
        self._room = [torch.empty_like(self._diagonal) for _ in range(4)]

    def advance(self, u: torch.Tensor, step: float) -> None:
        """Advance u [B, n] in place."""
        s = stages(step * self._largest)
        w = 4 * step / (s * s + s - 2)
        slope, new, old, shifted = self._room
        torch.mul(self._diagonal, u, out=slope)
        self._add_neighbours(slope, u, 1.0)
        torch.mul(slope, w / 3, out=new)
        old.zero_()
        torch.add(self._diagonal, 1 / w, out=shifted)
        for j in range(2, s + 1):
            mu = (2 * j - 1) / j * _b(j) / _b(j - 1)
            nu = -(j - 1) / j * _b(j) / _b(j - 2)
            # mu new + nu old + mu w ((1 + gamma~ / mu~) slope of u0 + slope of new); the first term
            # and the diagonal's part of the last are one product.
            old.mul_(nu).add_(slope, alpha=_b(j - 1) * mu * w)
            old.addcmul_(shifted, new, value=mu * w)
            self._add_neighbours(old, new, mu * w)
            old, new = new, old
        u.add_(new)

    def _add_neighbours(self, target: torch.Tensor, u: torch.Tensor, factor: float) -> None:
        """Add `factor` times the flow from the neighbours; the diagonal has the flow to them."""
        for face, d in zip(self._faces, self._strides, strict=True):
            between = face[:, :-d]
            target[:, :-d].addcmul_(between, u[:, d:], value=factor)
            target[:, d:].addcmul_(between, u[:, :-d], value=factor)


def stages(size: float) -> int:
    """Return how many stages keep RKL2 stable over a step of `size` inverse largest eigenvalues.

    The number is odd, as odd numbers damp the stiffest modes.
    """
    s = math.ceil((math.sqrt(9 + 8 * size) - 1) / 2)
    return max(3, s + 1 - s % 2)


def _b(j: int) -> float:
    return 1 / 3 if j < 2 else (j * j + j - 2) / (2 * j * (j + 1))
