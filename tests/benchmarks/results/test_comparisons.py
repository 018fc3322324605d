"""Comparisons of a suite: which there are, and how often they say something false of suites without any effect."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from benchmarks.results.report.comparisons import Comparison, comparisons_of, resolution_of
from benchmarks.results.statistics import difference_of
from benchmarks.studies.false_headlines import SETS, is_claim, null_suite


def made(num_depths: int, num_seeds: int) -> dict[str, dict[tuple[int, int], float]]:
    return null_suite(np.random.default_rng(1), num_depths=num_depths, num_seeds=num_seeds, sd_of_depths=0)


def test_comparisons_of_a_suite() -> None:
    found = comparisons_of(made(2, 3), SETS, [0, 1])
    by_role = {role: [one for one in found if one.role == role] for role in {one.role for one in found}}
    # Two combined sets: over all depths and at each of two.
    assert {role: len(ones) for role, ones in by_role.items()} == {
        "best single": 2 * 3,
        "baseline": 2 * 3,
        "single": 2 * 3 * 3,
        "task added": 1,
        "deeper": len(SETS),
    }
    assert [(one.first, one.second) for one in by_role["task added"]] == [("RP + Col + Ex", "RP + Col")]
    assert by_role["deeper"][0].sentence.startswith("random init at depth 1 and depth 0 are not distinguishable")
    headlines = [one for one in found if one.is_headline]
    assert {(one.role, one.depth) for one in headlines} == {("best single", None), ("baseline", None)}


def test_a_planted_effect_is_found_at_its_depth() -> None:
    values = made(2, 5)
    values["RP + Col"] = {pair: value + 40 * pair[0] for pair, value in values["RP + Col"].items()}
    found = {(one.first, one.role, one.depth): one.sentence for one in comparisons_of(values, SETS, [0, 1])}
    assert "beats" in found["RP + Col", "best single", 1]
    assert "not distinguishable" in found["RP + Col", "best single", 0]
    assert "beats depth 0" in found["RP + Col at depth 1", "deeper", 1]
    # Help at one of two depths is no help in general.
    assert "not distinguishable" in found["RP + Col", "best single", None]


@pytest.mark.parametrize(
    ("first", "verb"),
    [("all four", "beat b"), ("all four tasks, width 0.5", "beat b"), ("random weights at depth 18", "beat b"),
     ("random init", "beats b"), ("colorization + exemplar", "beats b")],
)  # fmt: skip
def test_verbs_agree_with_the_names_of_rows(first: str, verb: str) -> None:
    difference = difference_of({(18, seed): 5 + seed / 9 for seed in range(3)}, {(18, seed): 0 for seed in range(3)})
    one = Comparison(first=first, second="b", role="baseline", depth=None, difference=difference)
    assert one.sentence.startswith(f"{first} {verb} by 5.1 points")
    assert is_claim(one)


@pytest.mark.parametrize(("num_depths", "num_seeds", "sd_interaction"), [(2, 3, 0.0), (3, 3, 2.0), (2, 5, 2.0)])
def test_false_headlines_are_rarer_than_5_per_cent(num_depths: int, num_seeds: int, sd_interaction: float) -> None:
    rng, num_suites = np.random.default_rng(2), 100
    num_false = 0
    for _ in range(num_suites):
        values = null_suite(rng, num_depths=num_depths, num_seeds=num_seeds, sd_of_depths=sd_interaction)
        num_false += any(is_claim(one) for one in comparisons_of(values, SETS, range(num_depths)) if one.is_headline)
    assert num_false / num_suites <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / num_suites)


def test_what_could_be_seen_over_depths_is_no_less_than_depths_differ() -> None:
    # Differences of -4, -2 and 0 points at three depths, whatever the seed: only depths vary, with an sd of 2.
    second = {(depth, seed): 50.0 + seed for depth in (10, 18, 34) for seed in (0, 1, 2)}
    offset = {10: -4.0, 18: -2.0, 34: 0.0}
    first = {pair: value + offset[pair[0]] for pair, value in second.items()}
    found = difference_of(first, second)
    assert found is not None
    # Power of a t test with 3 values: of noncentral t, by SciPy, beyond the limits of t.
    limit = stats.t.ppf(0.975, 2)
    smallest = optimize.brentq(lambda points: stats.nct.sf(limit, 2, points * math.sqrt(3) / 2) - 0.8, 1, 30)
    assert f"3 seeds at 3 depths show a difference of {smallest:.1f} points in 8 of 10" in resolution_of(found)
    assert "no number of seeds shows 2 points over all of them" in resolution_of(found)


def test_what_could_be_seen_at_one_depth_goes_by_the_seeds() -> None:
    first = {(10, seed): value for seed, value in enumerate((51.0, 53.0, 55.0))}
    found = difference_of(first, {(10, seed): 50.0 for seed in range(3)})
    assert found is not None
    shown = resolution_of(found)
    assert shown.startswith("3 seeds show a difference of ")
    # 10 seeds by the usual tables: 2 points, an sd of 2, 5 %, a power of 80 %.
    assert shown.endswith("2 points would take 10 seeds.")
