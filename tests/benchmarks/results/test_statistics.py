"""Judged by SciPy, statsmodels, and by simulated suites in which nothing is true."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from benchmarks.results.statistics import (
    Difference,
    best_of,
    beyond_best,
    detectable_difference,
    difference_of,
    half_width_of_test_set,
    holm,
    seeds_for,
    signed,
    standard_error_of_test_set,
    summarize,
    verdict,
)

Row = dict[tuple[int, int], float]


def row(values: list[float], depth: int = 10) -> Row:
    return {(depth, seed): value for seed, value in enumerate(values)}


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


def test_one_value_has_no_interval() -> None:
    summary = summarize([5.0])
    assert math.isnan(summary.sd)
    assert not summary.has_interval


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_unusable_values_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one number"):
        summarize(values)


@pytest.mark.parametrize("count", [3, 8])
def test_difference_at_one_depth_is_the_paired_t_test(count: int) -> None:
    rng = np.random.default_rng(1)
    for shift in (0.0, 0.5, 3.0):
        first, second = rng.normal(shift, 1, count), rng.normal(0, 1, count)
        found = difference_of(row(list(first)), row(list(second)))
        expected = stats.ttest_rel(first, second)
        assert found is not None
        assert found.p_value == pytest.approx(expected.pvalue)
        assert (found.ci95_low, found.ci95_high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_over_depths_the_wider_of_two_t_tests_counts() -> None:
    table_DS = np.random.default_rng(2).normal(1, 1, (3, 5))
    first = {(depth, seed): table_DS[depth, seed] for depth in range(3) for seed in range(5)}
    found = difference_of(first, dict.fromkeys(first, 0.0))
    seeds, depths = (stats.ttest_1samp(table_DS.mean(axis), 0) for axis in (0, 1))
    wider = max(seeds, depths, key=lambda one: one.pvalue)
    assert found is not None
    assert found.p_value == pytest.approx(wider.pvalue)
    assert found.ci95_high - found.mean == pytest.approx(
        max(one.confidence_interval(0.95).high - found.mean for one in (seeds, depths))
    )
    assert (found.num_seeds, found.num_depths) == (5, 3)
    assert found.sd == pytest.approx(table_DS.mean(0).std(ddof=1))


def test_pairs_are_matched_by_seed_and_others_left_out() -> None:
    found = difference_of({(1, 0): 10.0, (1, 1): 20.0, (1, 2): 99.0}, {(1, 1): 15.0, (1, 0): 4.0, (1, 7): 1.0})
    assert found is not None
    assert (found.num_seeds, found.mean) == (2, 5.5)


def test_a_seed_without_one_of_the_depths_does_not_count() -> None:
    first = row([1.0, 2.0, 3.0], 10) | row([1.0, 2.0], 18)
    found = difference_of(first, dict.fromkeys(first, 0.0))
    assert found is not None
    assert (found.num_seeds, found.num_depths, found.mean) == (2, 2, 1.5)


def test_one_seed_over_several_depths_has_no_interval() -> None:
    first = row([1.0], 10) | row([2.0], 18) | row([3.0], 34)
    found = difference_of(first, dict.fromkeys(first, 0.0))
    assert found is not None
    assert not found.has_interval


def test_no_shared_seed_is_no_comparison() -> None:
    assert difference_of({(1, 0): 1.0}, {(1, 1): 2.0}) is None
    assert "not compared" in verdict("a", "b", None)


def test_best_is_by_mean() -> None:
    assert best_of({"a": {0: 1.0, 1: 9.0}, "b": {0: 6.0}, "c": {}}) == "b"
    assert best_of({}) is None


def test_beyond_the_only_candidate_is_the_paired_difference() -> None:
    first, second = row([5.0, 6.5, 7.0]), row([1.0, 2.0, 2.5])
    found, plain = beyond_best(first, {"only": second}), difference_of(first, second)
    assert found is not None
    assert plain is not None
    assert (found.mean, found.ci95_low, found.ci95_high) == pytest.approx((plain.mean, plain.ci95_low, plain.ci95_high))
    assert found.p_value == pytest.approx(plain.p_value)


def test_to_beat_the_best_is_to_beat_all() -> None:
    first = row([5.0, 5.2, 4.9])
    clear, noisy = row([1.0, 1.3, 0.9]), row([1.0, 4.0, -4.0])
    found, least = beyond_best(first, {"clear": clear, "noisy": noisy}), difference_of(first, noisy)
    assert found is not None
    assert least is not None
    assert found.p_value == pytest.approx(least.p_value)
    assert found.ci95_low == pytest.approx(least.ci95_low)


def test_to_lose_to_the_best_of_four_is_corrected() -> None:
    first = row([1.0, 1.4, 0.9])
    others = {name: row([3.0, 3.1, 3.4]) for name in "abcd"}
    found, plain = beyond_best(first, others), difference_of(first, others["a"])
    assert found is not None
    assert plain is not None
    assert found.p_value == pytest.approx(4 * plain.p_value)
    # Bonferroni by hand: one side, 2.5 % / 4, two degrees of freedom.
    error = plain.sd / math.sqrt(3)
    assert found.ci95_high == pytest.approx(plain.mean + stats.t.ppf(1 - 0.025 / 4, 2) * error)


def test_interval_beyond_the_best_covers_the_truth() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(600):
        first = row(list(rng.normal(1.0, 1, 5)))
        # The best is 0.3 above the others.
        others = {str(index): row(list(rng.normal(0.3 * (index == 0), 1, 5))) for index in range(4)}
        found = beyond_best(first, others)
        assert found is not None
        covered += found.ci95_low <= 0.7 <= found.ci95_high
    assert covered / 600 >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 600)


@pytest.mark.parametrize(("sd_depth", "sd_seed"), [(0, 0), (3, 0), (0, 3), (1, 1)])
def test_false_claims_over_depths_stay_below_5_per_cent(sd_depth: float, sd_seed: float) -> None:
    rng, num_false = np.random.default_rng(4), 0
    for _ in range(500):
        table_DS = rng.normal(0, sd_depth, (3, 1)) + rng.normal(0, sd_seed, (1, 3)) + rng.normal(0, 1, (3, 3))
        first = {(depth, seed): table_DS[depth, seed] for depth in range(3) for seed in range(3)}
        found = difference_of(first, dict.fromkeys(first, 0.0))
        assert found is not None
        num_false += found.p_value < 0.05
    assert num_false / 500 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 500)


def test_holm_by_hand_and_by_statsmodels() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    values = list(np.random.default_rng(5).uniform(0, 0.1, 7))
    assert holm(values) == pytest.approx(list(multipletests(values, method="holm")[1]))
    unknown = holm([0.01, math.nan, 0.04])
    assert math.isnan(unknown[1])
    assert unknown[::2] == pytest.approx([0.02, 0.04])
    assert holm([]) == []


@pytest.mark.parametrize("count", [3, 5, 10])
def test_detectable_difference_is_found_in_8_of_10(count: int) -> None:
    found = detectable_difference(1.5, count)
    # The power of a t test, by the noncentral t distribution.
    limit, shift = stats.t.ppf(0.975, count - 1), found / 1.5 * math.sqrt(count)
    power = stats.nct.sf(limit, count - 1, shift) + stats.nct.cdf(-limit, count - 1, shift)
    assert power == pytest.approx(0.8, abs=0.002)
    assert math.isnan(detectable_difference(1.5, 1))


def test_seeds_for_two_points() -> None:
    for sd in (0.8, 1.0, 2.5):
        count = seeds_for(2.0, sd)
        assert count is not None
        # By statsmodels' own solver, not rounded up.
        exact = TTestPower().solve_power(effect_size=2.0 / sd, alpha=0.05, power=0.8)
        assert count == max(2, math.ceil(float(np.squeeze(exact))))
    assert seeds_for(2.0, 0.0) == seeds_for(2.0, 0.01) == 2
    assert seeds_for(0.01, 5.0) is None
    assert seeds_for(2.0, math.nan) is None


def test_error_of_a_test_set_is_binomial() -> None:
    shares = np.random.default_rng(6).binomial(2400, 0.35, 20_000) / 2400
    assert half_width_of_test_set(35.0, 2400) == pytest.approx(100 * 1.96 * shares.std(), rel=0.03)
    assert standard_error_of_test_set(35.0, 2400) == pytest.approx(100 * shares.std(), rel=0.03)
    assert half_width_of_test_set(100.0, 10) == 0


def made(mean: float, p_value: float, seeds: int, depths: int = 1) -> Difference:
    return Difference(
        mean=mean,
        sd=1.0,
        ci95_low=mean - 1.3,
        ci95_high=mean + 1.3,
        p_value=p_value,
        num_seeds=seeds,
        num_depths=depths,
    )


def test_verdict_names_winner_margin_and_seeds() -> None:
    assert verdict("exemplar", "random init", made(12.14, 0.001, 3, 2)) == (
        "exemplar beats random init by 12.1 points (95 % interval +10.8 to +13.4, 3 seeds at 2 depths, p = 0.001)."
    )
    assert "loses to random init by 12.1" in verdict("exemplar", "random init", made(-12.14, 0.001, 3))


def test_verdict_agrees_in_number() -> None:
    won, lost, few = made(3.0, 0.01, 3), made(-3.0, 0.01, 3), made(3.0, 0.01, 2)
    assert verdict("four tasks", "Ex", won, is_plural=True).startswith("four tasks beat Ex by")
    assert verdict("four tasks", "Ex", lost, is_plural=True).startswith("four tasks lose to Ex by")
    assert verdict("four tasks", "Ex", few, is_plural=True).startswith("four tasks are 3.0 points above Ex,")


def test_zero_has_one_sign() -> None:
    assert [signed(value) for value in (-0.04, 0.04, -0.06, 3.0)] == ["+0.0", "+0.0", "-0.1", "+3.0"]


def test_verdict_admits_what_it_cannot_tell() -> None:
    assert "not distinguishable: difference +1.0" in verdict("a", "b", made(1.0, 0.2, 3))
    # Significant alone, not among many.
    assert "not distinguishable" in verdict("a", "b", made(3.0, 0.02, 3), p_corrected=0.08)


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_are_no_verdict(seeds: int) -> None:
    found = difference_of(row([4.0, 4.01][:seeds]), row([1.0, 1.0][:seeds]))
    sentence = verdict("a", "b", found)
    assert "no verdict from fewer than 3" in sentence
    assert "beats" not in sentence
