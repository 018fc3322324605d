"""Rates, ratios and rows of a table, against NumPy."""

from typing import Any

import numpy as np
import pytest

from benchmarks.loaders.registry import LIMIT
from benchmarks.loaders.timings import PassTimes, loader_rows


def answer(seconds: float, num_passes: int = 1, resident_ratio: float = 1.0) -> dict[str, Any]:
    return {"seconds": seconds, "num_passes": num_passes, "resident_ratio": resident_ratio}


def results_of(timings: PassTimes, **more: Any) -> dict[str, Any]:
    return {"what": {name: f"what {name} is" for name in ("a", "b", LIMIT)}, "not_measured": {}, **more} | (
        timings.results()
    )


def test_rate_counts_the_samples_of_all_passes() -> None:
    timings = PassTimes(num_samples=50)
    assert timings.add("a", "warm", 0, answer(2.0, num_passes=4)) == "100 samples/s"
    assert timings.results()["samples_per_s"]["warm"]["a"]["median"] == 100


def test_ratio_is_taken_within_each_repeat() -> None:
    timings = PassTimes(num_samples=100)
    for repeat, (limit_s, found_s, cold_s) in enumerate(
        [(1, 2, 4), (2, 4, 8), (3, 6, 12)]
    ):  # a machine that slows down
        timings.add(LIMIT, "warm", repeat, answer(limit_s))
        timings.add("a", "warm", repeat, answer(found_s))
        timings.add("a", "cold", repeat, answer(cold_s, resident_ratio=0.0))
    ratios = timings.results()["ratio_to_limit"]
    assert ratios["warm"]["a"]["repeats"] == [0.5] * 3
    assert ratios["cold"]["a"]["repeats"] == [0.25] * 3
    assert LIMIT not in ratios["warm"]


def test_without_the_limit_there_are_rates_but_no_ratios() -> None:
    timings = PassTimes(num_samples=10)
    timings.add("a", "warm", 0, answer(1.0))
    results = timings.results()
    assert results["ratio_to_limit"] == {"warm": {}, "cold": {}}
    assert loader_rows(results_of(timings))[0]["ratio_to_limit"] is None


def test_a_cold_pass_whose_data_stayed_in_memory_is_not_a_rate() -> None:
    timings = PassTimes(num_samples=10)
    timings.add("a", "cold", 0, answer(1.0, resident_ratio=0.01))
    said = timings.add("a", "cold", 1, answer(0.0, num_passes=0, resident_ratio=0.4))
    assert said == "not timed: 40% of its data stayed in memory"
    results = timings.results()
    assert results["samples_per_s"]["cold"]["a"]["repeats"] == [10.0]
    assert results["num_cold_unconfirmed"] == {"a": 1}
    assert results["resident_ratio"]["cold"] == {"a": 0.4}
    note = loader_rows(results_of(timings))[-1]["note"]
    assert note == "not measured in 1 repeats: up to 40% of its data stayed in memory"


def test_resident_ratio_is_the_worst_of_all_repeats() -> None:
    timings = PassTimes(num_samples=10)
    for repeat, ratio in enumerate([1.0, 0.9, 1.0]):
        timings.add("a", "warm", repeat, answer(1.0, resident_ratio=ratio))
        timings.add("a", "cold", repeat, answer(1.0, resident_ratio=ratio / 100))
    found = timings.results()["resident_ratio"]
    assert found["warm"]["a"] == 0.9
    assert found["cold"]["a"] == 0.01


def test_a_loader_that_failed_later_is_forgotten() -> None:
    timings = PassTimes(num_samples=10)
    for name in ("a", "b"):
        timings.add(name, "warm", 0, answer(1.0))
        timings.add(name, "cold", 0, answer(1.0, resident_ratio=0.0))
    timings.forget("a")
    timings.forget("never seen")
    assert [row["loader"] for row in loader_rows(results_of(timings))] == ["b", "b"]
    assert "a" not in timings.results()["num_cold_unconfirmed"]


def test_rows_warm_first_then_the_fastest_then_what_is_missing() -> None:
    timings = PassTimes(num_samples=600)
    for repeat in range(6):
        timings.add("a", "warm", repeat, answer(3.0 + repeat))
        timings.add("b", "warm", repeat, answer(1.0 + repeat))
        timings.add(LIMIT, "warm", repeat, answer(0.5))
        timings.add("b", "cold", repeat, answer(2.0, resident_ratio=0.0))
    rows = loader_rows(results_of(timings, not_measured={"c": "not installed: pip install 'fourfold[peers]'"}))
    found = [(row["loader"], row["cache"]) for row in rows]
    assert found == [(LIMIT, "warm"), ("b", "warm"), ("a", "warm"), ("b", "cold"), ("c", "")]
    assert rows[1]["samples_per_s"] == pytest.approx(np.median(600 / np.arange(1, 7)))
    assert (rows[1]["ci95_low"], rows[1]["ci95_high"]) == (100, 600)
    assert rows[1]["ratio_to_limit"] == pytest.approx(np.median(0.5 / np.arange(1, 7)))
    assert [row["num_repeats"] for row in rows] == [6, 6, 6, 6, 0]
    assert rows[1]["note"] == "what b is"
    assert rows[-1]["note"] == "not measured: not installed: pip install 'fourfold[peers]'"
    assert rows[-1]["samples_per_s"] is None
