"""Numbers in words."""

import pytest

from framework.report.words import digits, large


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0, "0 "),
        (12.34, "12.3 "),
        (999.4, "999 "),
        (999.6, "1 k"),
        (999_600, "1 M"),
        (5e13, "50 T"),
    ],
)
def test_three_digits_and_a_prefix(number: float, told: str) -> None:
    """Rounded first: 999.6 is no 1e+03."""
    assert large(number) == told


@pytest.mark.parametrize(
    ("part", "told"), [(0.01234, "1.23"), (0.1234, "12.3"), (1.234, "123"), (-0.1234, "-12.3")]
)
def test_parts_in_per_cent_have_three_digits(part: float, told: str) -> None:
    assert digits(part) == told
