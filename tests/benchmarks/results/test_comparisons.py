"""Comparisons of a suite: which there are, and how often they say something false of suites without any effect."""

import math

import numpy as np
import pytest

from benchmarks.results.report.comparisons import Comparison, comparisons_of
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
