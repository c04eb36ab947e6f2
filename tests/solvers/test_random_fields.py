"""Random fields: the same bits for a seed, and the statistics that they claim."""

import numpy as np
import pytest

from solvers.random_fields import blobs, cosine_field, cosine_series, normal, plane_series, series

# Of the seeds 7, 7 and 2^64 - 1.
PINNED = (
    ("0x1.b6e71bbbd0ccap-2", "0x1.c00d7cbc48b26p-6"),
    ("-0x1.0a63bfe05ed87p-4", "-0x1.c9fe4bbb347e1p-5"),
    "-0x1.26c8302d15615p-5",
)


def test_numbers_are_nearly_gaussian() -> None:
    sample = normal(np.random.default_rng(0), 200_000)
    assert sample.mean() == pytest.approx(0, abs=0.01)
    assert sample.var() == pytest.approx(1, abs=0.01)
    assert (np.abs(sample) < 1).mean() == pytest.approx(0.6827, abs=0.01)
    assert np.abs(sample).max() < 6


def test_coefficients_have_the_same_bits_on_every_machine() -> None:
    one, two = series(7, 4)[1], plane_series(7, 4)[-1, 2]
    assert (one.real.hex(), one.imag.hex()) == PINNED[0]
    assert (two.real.hex(), two.imag.hex()) == PINNED[1]
    assert cosine_series(2**64 - 1, 8, 0.25)[3, 2].hex() == PINNED[2]


def test_a_series_is_a_real_field_of_mean_0_and_mean_square_1() -> None:
    coefficients = np.zeros(33, dtype=complex)
    coefficients[:7] = series(3, 6)
    field = np.fft.irfft(coefficients, 64, norm="forward")
    assert field.mean() == pytest.approx(0, abs=1e-14)
    assert (field**2).mean() == pytest.approx(1)


def test_a_plane_series_is_a_real_field_of_mean_0_and_mean_square_1() -> None:
    given = plane_series(3, 5)
    whole = np.zeros((32, 32), dtype=complex)
    for row in range(-5, 6):
        for column in range(6):
            whole[row, column] = given[row, column]
            whole[-row, -column] = given[row, column].conj()
            assert (given[row, column] != 0) == (0 < row**2 + column**2 <= 25)
    field = np.fft.ifft2(whole, norm="forward")
    assert np.abs(field.imag).max() < 1e-14
    assert field.real.mean() == pytest.approx(0, abs=1e-14)
    assert (field.real**2).mean() == pytest.approx(1)


def test_a_cosine_series_has_mean_square_1_on_average_and_is_smoother_if_longer_correlated() -> (
    None
):
    points = (np.arange(32) + 0.5) / 32  # midpoints: sums of the cosines are exact there
    roughness = []
    for length in (0.05, 0.3):
        coefficients = np.stack([cosine_series(seed, 12, length) for seed in range(400)])
        fields = cosine_field(coefficients, points)
        assert np.abs(fields.mean((1, 2))).max() < 1e-12
        assert (fields**2).mean() == pytest.approx(1, abs=0.1)
        roughness.append((np.diff(fields) ** 2).mean())
    assert roughness[0] > 2 * roughness[1]


def test_blobs_are_periodic_and_lie_between_0_and_1() -> None:
    points = np.arange(64) / 64
    field = blobs(4, 3, 0.06, points)
    assert field.min() >= 0
    assert 0.9 < field.max() <= 1
    np.testing.assert_allclose(blobs(4, 3, 0.06, points + 1), field, atol=1e-12)
    assert field.mean() == pytest.approx(3 * 2 * np.pi * 0.06**2, rel=0.35)  # they may overlap


def test_seeds_give_different_fields() -> None:
    fields = [series(seed, 8) for seed in (0, 1, 2**63, 2**64 - 1)]
    for i, first in enumerate(fields):
        for second in fields[:i]:
            assert np.abs(first - second).max() > 0.01
