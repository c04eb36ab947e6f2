"""Fourier pseudo-spectral methods in periodic boxes, with exponential time stepping.

Shapes: `...` any leading axes (simulations, fields), N points along every axis. Modes up to
M = (N - 1) // 3 are kept. A field of one axis is [..., x], and its state [..., N // 2 + 1]: the
coefficients of the modes from 0 on, as the field is real. A field of two axes is [..., y, x], and
its state [..., M + 1, N]: modes from 0 on along x, then all along y in the order of the FFT; this
order leaves every array contiguous. States are zero at modes that are not kept.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvers.base import Precision


def kept_wavenumbers(points: int, length: float) -> NDArray[np.float64]:
    """Return the wave numbers kept along an axis of `points` points, ascending, without zero."""
    return 2 * math.pi / length * np.arange(1.0, (points - 1) // 3 + 1)


def advective_rate(
    wavenumbers: NDArray[np.float64], speed: float, damping: NDArray[np.float64]
) -> float:
    """Return the fastest rate at which a speed turns the phases of modes of these wave numbers.

    Modes that are damped faster than they are turned do not limit the time step, if the damping is
    integrated exactly, and are not counted.
    """
    rates = speed * wavenumbers
    return float(rates[damping < rates].max(initial=0.0))


class Box:
    """A periodic box with the same points and length along each of its one or two axes.

    Keeping the modes below N / 3 dealiases: a product of two kept modes aliases onto none of them
    (Orszag's 2/3 rule). Coefficients are normalised: a mode's is its amplitude on the grid.

    `kx`, `ky` and `square` are the wave numbers and the square of their length, `inside` is one
    where a mode is kept and zero elsewhere; all in float64, and they broadcast against a state.
    """

    def __init__(
        self, dimensions: int, points: int, length: float, precision: Precision, device: str
    ) -> None:
        self.dimensions = dimensions
        self.points = points
        self.device = device
        self.real = {"float32": torch.float32, "float64": torch.float64}[precision]
        self.complex = {"float32": torch.complex64, "float64": torch.complex128}[precision]
        self.highest = (points - 1) // 3
        along_x = torch.arange(points // 2 + 1, dtype=torch.float64, device=device)
        along_y = torch.zeros(1, dtype=torch.float64, device=device)
        if dimensions == 2:
            along_x = along_x[: self.highest + 1, None]
            along_y = torch.fft.fftfreq(points, 1 / points, dtype=torch.float64, device=device)
            along_y = along_y.round()  # the quotient is not always exact
        self.inside = torch.maximum(along_x, along_y.abs()).le(self.highest).double()
        unit = 2 * math.pi / length
        self.kx, self.ky = unit * along_x, unit * along_y
        self.square = self.kx**2 + self.ky**2

    def to_grid(self, state: Tensor) -> Tensor:
        """Return the field of a state."""
        if self.dimensions == 2:
            state = torch.fft.ifft(state, norm="forward").transpose(-1, -2)
        field: Tensor = torch.fft.irfft(state, n=self.points, norm="forward")
        return field

    def to_modes(self, field: Tensor) -> Tensor:
        """Return the coefficients of a field: a state, with coefficients of modes not kept as well.

        `inside` removes those.
        """
        modes: Tensor = torch.fft.rfft(field, norm="forward")
        if self.dimensions == 2:
            columns = modes[..., : self.highest + 1]
            modes = torch.fft.fft(columns.transpose(-1, -2), norm="forward")
        return modes

    def place(self, coefficients: NDArray[np.complex128]) -> Tensor:
        """Return a state with the coefficients of `random_fields.series` or `plane_series`.

        Raises ValueError if they have more modes than the grid keeps.
        """
        modes = coefficients.shape[-1] - 1
        if modes > self.highest:
            raise ValueError(
                f"a grid of {self.points} points is too coarse for the initial state, which has "
                f"{modes} modes: it needs at least {3 * modes + 1} points"
            )
        given = torch.tensor(coefficients, dtype=self.complex, device=self.device)
        leading = given.shape[: -self.dimensions]
        state = torch.zeros((*leading, *self.square.shape), dtype=self.complex, device=self.device)
        if self.dimensions == 1:
            state[..., : modes + 1] = given
        else:
            given = given.transpose(-1, -2)
            state[..., : modes + 1, : modes + 1] = given[..., : modes + 1]
            state[..., : modes + 1, -modes:] = given[..., -modes:]
        return state


class Etdrk4:
    """Fourth-order exponential time differencing for du/dt = linear * u + factor * explicit(u).

    The Runge-Kutta method of Cox and Matthews (J. Comput. Phys. 176, 2002), its coefficients made
    in float64. `linear` (real) and `factor` are diagonal: one number a mode, and they broadcast
    against the states. The linear part is exact for every step; the rest is stable as in the
    classical Runge-Kutta method of fourth order.
    """

    def __init__(
        self,
        linear: Tensor,
        factor: Tensor,
        explicit: Callable[[Tensor], Tensor],
        step: float,
        dtype: torch.dtype,
    ) -> None:
        """`linear` and `factor` in float64 or complex128; steps are computed in `dtype`.

        `explicit` has to return a new tensor.
        """
        self._explicit = explicit
        z = step * linear
        phi1, phi2, phi3 = _phi(z)
        half = (z / 2).exp()
        explicit_parts = (
            phi1 / (half + 1),  # half of phi1 of z / 2
            phi1 - 3 * phi2 + 4 * phi3,
            2 * phi2 - 4 * phi3,
            4 * phi3 - phi2,
        )
        coefficients = (z.exp(), half, *(step * factor * part for part in explicit_parts))
        self._coefficients = [_without_tiny(value).to(dtype) for value in coefficients]

    def trajectory(self, state: Tensor, stored_steps: int, substeps: int) -> Iterator[Tensor]:
        """Yield the state at every stored time, with `substeps` steps between two of them."""
        yield state
        for _ in range(stored_steps - 1):
            state = self._advance(state, substeps)
            yield state

    @torch.inference_mode()
    def _advance(self, state: Tensor, substeps: int) -> Tensor:
        # In one dimension calls take more time than arithmetic: hence as few calls as possible.
        decay, half, stage, first, middle, last = self._coefficients
        twice = 2 * stage
        for _ in range(substeps):
            halfway = half * state
            n1 = self._explicit(state)
            a = torch.addcmul(halfway, stage, n1)
            n2 = self._explicit(a)
            b = halfway.addcmul_(stage, n2)
            n3 = self._explicit(b)
            c = (half * a).addcmul_(twice, torch.sub(n3, n1, alpha=0.5))
            n4 = self._explicit(c)
            state = (decay * state).addcmul_(first, n1)
            state.addcmul_(middle, n2.add_(n3)).addcmul_(last, n4)
        return state


def _phi(z: Tensor) -> list[Tensor]:
    """Return phi_1, phi_2 and phi_3 of z; phi_k is the sum over j of z^j / (j + k)!.

    They are exact to rounding: their closed form, which begins with (exp(z) - 1) / z, loses digits
    near 0 (Kassam and Trefethen, SIAM J. Sci. Comput. 26, 2005), so the series is used there.
    """
    closed = [z.exp()]
    for k in range(3):
        closed.append((closed[k] - 1 / math.factorial(k)) / z)
    series = [torch.zeros_like(z)]
    for j in reversed(range(18)):
        series[0] = series[0] * z + 1 / math.factorial(j + 3)
    for k in (2, 1):
        series.insert(0, series[0] * z + 1 / math.factorial(k))
    near = z.abs() < 1
    return [torch.where(near, *pair) for pair in zip(series, closed[1:], strict=True)]


def _without_tiny(values: Tensor) -> Tensor:
    """Replace values too small to matter by zeros.

    Products with them would be subnormal numbers, on which a processor takes a hundred times as
    long.
    """
    return torch.where(values.abs() > 1e-20, values, 0)
