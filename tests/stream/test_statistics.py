"""The fields' statistics."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from trainers import make_samples, statistics_of

from framework.stream.samples import Samples
from framework.stream.statistics import FieldStatistics


@given(
    sizes=st.lists(st.integers(0, 7), min_size=1, max_size=8),
    window=st.integers(1, 4),
    bundle=st.integers(1, 2),
    offset=st.sampled_from([0.0, -3.0, 1e6]),
    seed=st.integers(0, 99),
)
def test_statistics_are_numpys_however_the_samples_come(
    sizes: list[int], window: int, bundle: int, offset: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    n = sum(sizes)
    fields = random.normal(offset, 0.5, (n, window, 2, 3, 2)).astype(np.float32)
    fields[:, :, 1] *= 3
    bundle = min(bundle, max(window - 1, 1))
    statistics = FieldStatistics(2, bundle)
    start = 0
    for size in sizes:
        part = fields[start : start + size]
        none = np.zeros((size, 0), dtype=np.float32)
        statistics.add(Samples(np.zeros(size, int), np.zeros(size, int), none, none, part))
        start += size
    mean, std, change = (values.numpy() for values in statistics.freeze())
    if not n:
        assert mean.tolist() == std.tolist() == [0, 0]
        assert change.tolist() == [[0, 0]] * bundle
        return
    exact = fields.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 3, 4)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(std, exact.std((0, 1, 3, 4)), rtol=1e-6)
    assert change.shape == (bundle, 2)
    for steps, found in enumerate(change, 1):
        later = exact[:, steps] if window > 1 else exact[:, 0]
        expected = np.sqrt(np.square(later - exact[:, 0]).mean((0, 2, 3)))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_comes_after_the_freeze_changes_nothing() -> None:
    statistics = statistics_of(make_samples(7, window=2))
    before = statistics.freeze()
    statistics.add(make_samples(9, window=2, first=7))
    for now, then in zip(statistics.freeze(), before, strict=True):
        assert torch.equal(now, then)
