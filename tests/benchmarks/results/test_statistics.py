import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.results.statistics import Summary, best_of, paired_difference, summarize, verdict


def test_interval_of_two_values_by_hand() -> None:
    # mean 2, sd sqrt(2), half width 12.706 * sqrt(2) / sqrt(2)
    summary = summarize([1.0, 3.0])
    assert summary.mean == 2
    assert summary.sd == pytest.approx(math.sqrt(2))
    assert summary.half_width == pytest.approx(12.706, abs=1e-3)


@pytest.mark.parametrize("count", [3, 5, 12])
def test_interval_equals_scipy(count: int) -> None:
    values = np.random.default_rng(count).normal(80, 3, count)
    low, high = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
    summary = summarize(list(values))
    assert (summary.ci95_low, summary.ci95_high) == pytest.approx((low, high))
    assert summary.sd == pytest.approx(values.std(ddof=1))


@pytest.mark.parametrize("count", [3, 8])
def test_excluding_zero_agrees_with_the_paired_t_test(count: int) -> None:
    rng = np.random.default_rng(1)
    for shift in (0.0, 0.5, 1.0, 3.0):
        first, second = rng.normal(shift, 1, count), rng.normal(0, 1, count)
        difference = paired_difference(dict(enumerate(first)), dict(enumerate(second)))
        assert difference is not None
        assert difference.excludes_zero == (stats.ttest_rel(first, second).pvalue < 0.05)


def test_one_value_has_no_interval() -> None:
    summary = summarize([5.0])
    assert math.isnan(summary.sd)
    assert not summary.has_interval
    assert not summary.excludes_zero


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_unusable_values_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one number"):
        summarize(values)


def test_pairs_are_matched_by_seed_and_others_left_out() -> None:
    difference = paired_difference({0: 10.0, 1: 20.0, 2: 99.0}, {1: 15.0, 0: 4.0, 7: 1.0})
    assert difference is not None
    assert (difference.num_seeds, difference.mean) == (2, 5.5)


def test_pairing_removes_what_the_seed_does_to_both() -> None:
    first, second = {0: 51.0, 1: 71.2, 2: 90.9}, {0: 50.0, 1: 70.0, 2: 90.0}
    difference = paired_difference(first, second)
    assert difference is not None
    assert difference.excludes_zero


def test_no_shared_seed_is_no_comparison() -> None:
    assert paired_difference({0: 1.0}, {1: 2.0}) is None
    assert "not compared" in verdict("a", "b", None)


def test_best_is_by_mean() -> None:
    assert best_of({"a": {0: 1.0, 1: 9.0}, "b": {0: 6.0}, "c": {}}) == "b"
    assert best_of({}) is None


def _summary(mean: float, half: float, count: int) -> Summary:
    return Summary(num_seeds=count, mean=mean, sd=half, ci95_low=mean - half, ci95_high=mean + half)


def test_verdict_names_winner_margin_and_n() -> None:
    assert verdict("four tasks", "random init", _summary(12.14, 1.32, 3)) == (
        "four tasks beats random init by 12.1 ± 1.3 points, n = 3."
    )
    assert "loses to random init by 12.1" in verdict("four tasks", "random init", _summary(-12.14, 1.3, 3))


def test_verdict_admits_what_it_cannot_tell() -> None:
    assert "not distinguishable: difference +1.0 ± 1.3" in verdict("a", "b", _summary(1.0, 1.3, 3))
    assert "no interval, no verdict" in verdict("a", "b", summarize([4.0]))
    assert "12.7 standard errors" in verdict("a", "b", summarize([4.0, 5.0]))
