"""Random fields, each made from the seed of one simulation.

A seed (an unsigned 64-bit integer) starts numpy's PCG64, and the Fourier coefficients are made from
its uniform numbers by additions, multiplications, divisions and square roots alone. These are
exactly rounded, so a seed gives the same coefficients, to the bit, on every machine; random numbers
that go through a logarithm would not. Fields evaluated from them agree to rounding.

The coefficients do not depend on the grid: a finer grid shows the same field.
"""

import math

import numpy as np
from numpy.typing import NDArray


def normal(generator: np.random.Generator, *shape: int) -> NDArray[np.float64]:
    """Draw nearly Gaussian numbers of mean 0 and variance 1: sums of twelve uniform ones, less six.

    They lie within [-6, 6]; the density differs from a Gaussian's by at most 0.004.
    """
    total = np.zeros(shape)
    for _ in range(12):
        total += generator.random(shape)
    return total - 6


def series(seed: int, modes: int) -> NDArray[np.complex128]:
    """Draw Fourier coefficients [modes + 1] of a random periodic u(x), mean 0, mean square 1.

    u = sum over |k| <= modes of c_k exp(2 pi i k x / length), with c_-k the conjugate of c_k: those
    from k = 0 on are returned. All modes have the same expected amplitude.
    """
    real, imaginary = normal(np.random.default_rng(seed), 2, modes + 1)
    coefficients = real + 1j * imaginary
    coefficients[0] = 0
    return _unit_mean_square(coefficients)


def plane_series(seed: int, modes: int) -> NDArray[np.complex128]:
    """Draw Fourier coefficients [2 modes + 1, modes + 1] of a random periodic u(y, x).

    Its mean is 0 and its mean square 1. Row l and column k belong to exp(2 pi i (l y + k x) /
    length), with rows in the order 0, ..., modes, -modes, ..., -1. Wave numbers of length at most
    `modes` have the same expected amplitude, the others are absent.
    """
    size = 2 * modes + 1
    real, imaginary = normal(np.random.default_rng(seed), 2, size, modes + 1)
    coefficients = real + 1j * imaginary
    row, column = (np.arange(size) + modes) % size - modes, np.arange(modes + 1)
    square = row[:, None] ** 2 + column**2
    coefficients[(square > modes**2) | (square == 0)] = 0
    # A real field's coefficient at -l is the conjugate of that at l, where k = 0.
    coefficients[modes + 1 :, 0] = coefficients[modes:0:-1, 0].conj()
    return _unit_mean_square(coefficients)


def cosine_series(seed: int, modes: int, correlation_length: float) -> NDArray[np.float64]:
    """Draw coefficients [modes, modes] of a random u(y, x) on the unit square.

    Its mean is 0, its slope across the sides zero, and its expected mean square 1. u = sum of c_lk
    phi_l(y) phi_k(x), phi_0 = 1 and phi_k = sqrt(2) cos(pi k x). The coefficients' standard
    deviations are proportional to 1 / (pi^2 (l^2 + k^2) + 1 / correlation_length^2): the covariance
    is a power -2 of a shifted Laplacian, as in arXiv 2010.08895.
    """
    square = np.arange(modes) ** 2
    deviation = 1 / (math.pi**2 * (square[:, None] + square) + 1 / correlation_length**2)
    deviation[0, 0] = 0
    deviation /= math.sqrt(math.fsum((deviation**2).flat))
    return deviation * normal(np.random.default_rng(seed), modes, modes)


def cosine_field(
    coefficients: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the field [..., y, x] of a cosine series [..., modes, modes].

    `points` are those along each of the two axes.
    """
    basis = math.sqrt(2) * np.cos(math.pi * np.outer(points, np.arange(coefficients.shape[-1])))
    basis[:, 0] = 1
    field: NDArray[np.float64] = basis @ coefficients @ basis.T
    return field


def blobs(seed: int, count: int, width: float, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a field [y, x] within [0, 1]: periodic bell curves around `count` random places.

    It is given at `points` of both axes, in units of the period; `width` is the standard deviation
    of a curve, exp((cos(2 pi (x - x0)) - 1) / (2 pi width)^2) along either axis. The curves are
    combined as 1 - (1 - a) (1 - b) ..., so that they reach 1 and do not exceed it where they
    overlap.
    """
    centres = np.random.default_rng(seed).random((2, count, 1))
    distance = np.cos(2 * math.pi * (points - centres)) - 1
    along_y, along_x = np.exp(distance / (2 * math.pi * width) ** 2)
    outside = 1 - along_y[:, :, None] * along_x[:, None, :]
    field: NDArray[np.float64] = 1 - outside.prod(0)
    return field


def _unit_mean_square(coefficients: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Scale coefficients to a mean square of 1.

    Every column but the first stands for its conjugate as well.
    """
    square = coefficients.real**2 + coefficients.imag**2
    square[..., 1:] *= 2
    return coefficients / math.sqrt(math.fsum(square.flat))
