"""Median and interval of repeats, against NumPy, SciPy and exact binomial sums."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import quantile_test

from benchmarks.harness.spread import ratio_spread, spread_of

VALUES = st.lists(st.floats(1, 1e4), min_size=1, max_size=40)


@given(VALUES)
def test_median_is_numpy_s(values: list[float]) -> None:
    found = spread_of(values)
    assert found.median == pytest.approx(np.median(values))
    assert found.repeats == values


@given(VALUES)
def test_interval_lies_around_the_median_and_within_the_values(values: list[float]) -> None:
    found = spread_of(values)
    if len(values) < 6:
        assert found.ci95_low is None
        assert found.ci95_high is None
    else:
        assert min(values) <= found.ci95_low <= found.median <= found.ci95_high <= max(values)


@pytest.mark.parametrize("count", range(6, 41))
def test_interval_is_the_narrowest_pair_of_ranks_that_holds_the_median_in_95_percent(count: int) -> None:
    found = spread_of([float(value) for value in np.random.default_rng(count).permutation(count)])
    low, high = int(found.ci95_low), int(found.ci95_high)
    assert low == count - 1 - high

    def coverage(rank: int) -> float:
        """That the median lies between the values with `rank` smaller and `rank` larger ones."""
        return 1 - 2 * sum(comb(count, below) for below in range(rank + 1)) / 2**count

    assert coverage(low) >= 0.95 > coverage(low + 1)


def test_interval_of_many_repeats_holds_the_true_median_in_about_95_percent() -> None:
    trials = np.random.default_rng(0).lognormal(size=(2000, 15))
    held = [one.ci95_low <= 1 <= one.ci95_high for one in map(spread_of, trials.tolist())]
    assert 0.95 <= np.mean(held) <= 0.98  # 96.5 % with 15 values: ranks are whole numbers


def test_interval_is_scipy_s() -> None:
    values = np.random.default_rng(3).lognormal(size=21)
    interval = quantile_test(values, p=0.5).confidence_interval(0.95)
    found = spread_of(values.tolist())
    assert (found.ci95_low, found.ci95_high) == (interval.low, interval.high)


def test_ratios_are_taken_repeat_by_repeat() -> None:
    found = ratio_spread([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])  # a machine that slows down
    assert (found.median, found.lowest, found.highest, found.repeats) == (2, 2, 2, [2, 2, 2])


def test_no_repeat_is_refused() -> None:
    with pytest.raises(ValueError, match="need at least one repeat"):
        spread_of([])
