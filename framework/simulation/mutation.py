"""Mutations of a point of the unit cube, and their probability density. p: parameters."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Floats = NDArray[np.float64]

# A mutation that leaves the cube is drawn again with half the deviation; the last is reflected.
_TRIES = 4


def mutate(parent: Floats, sigma: float, random: np.random.Generator) -> Floats:
    """Return a Gaussian mutation [p], inside the unit cube, of a point [p] of it.

    A draw outside is tried again with half the deviation, and the last one reflected at the faces.
    """
    for _ in range(_TRIES):
        point: Floats = parent + sigma * random.standard_normal(len(parent))
        if ((point >= 0) & (point <= 1)).all():
            return point
        sigma /= 2
    reflected: Floats = 1 - np.abs(1 - np.abs(point) % 2)
    return reflected


def mutation_density(point: Floats, parent: Floats, sigma: float) -> Floats:
    """Return the density [...] at points [..., p] of the mutations of parents [..., p].

    With s_i = sigma / 2^i, phi_s and Phi_s the normal density and distribution function, and
    P_i = prod_d [Phi_s_i(1 - c_d) - Phi_s_i(-c_d)] the probability that draw i stays inside,

        K(x | c) = sum_i prod_{h < i} (1 - P_h) prod_d phi_s_i(x_d - c_d),

    where in the last term, which is reflected whether it left the cube or not, phi(x_d - c_d) has
    phi(-x_d - c_d) and phi(2 - x_d - c_d) added. Images further away are 8 deviations off.
    """
    density, left = np.zeros(1), np.ones(1)  # left: the probability that all draws so far were out
    for trial in range(_TRIES):
        images = [point, -point, 2 - point] if trial == _TRIES - 1 else [point]
        terms = sum(np.exp(-0.5 * ((image - parent) / sigma) ** 2) for image in images)
        density = density + left * np.prod(terms / (sigma * np.sqrt(2 * np.pi)), axis=-1)
        left = left * (1 - np.prod(ndtr((1 - parent) / sigma) - ndtr(-parent / sigma), axis=-1))
        sigma /= 2
    return density
