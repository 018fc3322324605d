"""Intervals against closed forms; verdicts at their limits."""

import numpy as np
import pytest

from benchmarks.shortcuts.finding import MARGIN, Counts, finding, simulated_finding


def of(num, den, chance=0.5, seed=0):
    counts = Counts(num=np.array(num, float), den=np.array(den, float))
    return finding("task", "what it sees", "accuracy", counts, chance=chance, seed=seed)


def test_one_question_a_sample_gives_the_binomial_interval():
    right = np.arange(400) < 240
    found = of(right, np.ones(400))
    half = 1.96 * np.sqrt(0.6 * 0.4 / 400)
    assert found.value == 0.6
    assert (found.ci95_low, found.ci95_high) == pytest.approx((0.6 - half, 0.6 + half), abs=0.006)
    assert found.num_sources == 400


def test_alike_rows_of_one_sample_do_not_narrow_the_interval():
    right = np.arange(100) < 60
    one, many = of(right, np.ones(100)), of(right * 50, np.full(100, 50))
    assert (many.ci95_low, many.ci95_high) == pytest.approx((one.ci95_low, one.ci95_high), abs=0.02)


def test_equal_values_have_an_interval_still_and_samples_without_a_question_do_not_count():
    found = of([2, 2, 2, 0], [2, 2, 2, 0])
    # Wilson with z = 1.96 and 3 of 3 right: 3 / (3 + z^2).
    assert found.ci95_low == pytest.approx(3 / (3 + 1.96**2), abs=1e-3)
    assert (found.value, found.num_sources) == (1, 3)


def test_no_question_at_all_says_nothing():
    found = of([0, 0], [0, 0])
    assert (found.ci95_low, found.ci95_high, found.verdict) == (0, 1, "no leak")


@pytest.mark.parametrize(("value", "verdict"), [(0.49, "no leak"), (0.52, "above chance"), (0.58, "leaks")])
def test_verdict_is_by_the_lower_end(value, verdict):
    assert MARGIN == 0.1
    found = simulated_finding("task", "place", "accuracy", value, chance=0.5, num_draws=100_000)
    assert found.verdict == verdict


def test_the_same_seed_gives_the_same_interval():
    num, den = np.random.default_rng(0).integers(0, 9, 50), np.full(50, 9)
    assert of(num, den) == of(num, den)
    assert of(num, den) != of(num, den, seed=1)


def test_kept_is_the_share_of_the_distance_from_chance():
    whole, cut = of(np.arange(100) < 90, np.ones(100)), of(np.arange(100) < 60, np.ones(100))
    assert cut.beside(whole).kept == pytest.approx(0.25)
    assert (whole.as_whole().kept, whole.as_whole().verdict) == (1, "learned")
    lost = of(np.arange(100) < 50, np.ones(100))
    assert (cut.beside(lost).kept, lost.as_whole().verdict) == (None, "not learned")
