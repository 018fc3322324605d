"""Means, intervals and verdicts over a few seeds: numbers in, numbers and sentences out.

Intervals are two-sided 95 % Student t intervals over seeds: they cover another seed on the same data and split, not
another test set.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

__all__ = ["Summary", "best_of", "paired_difference", "summarize", "verdict"]

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Mean and spread of `num_seeds` values. One value has no spread and no interval: NaN, never 0."""

    num_seeds: int
    mean: float
    sd: float
    ci95_low: float
    ci95_high: float

    @property
    def half_width(self) -> float:
        return (self.ci95_high - self.ci95_low) / 2

    @property
    def has_interval(self) -> bool:
        return not math.isnan(self.half_width)

    @property
    def excludes_zero(self) -> bool:
        """True if the interval lies wholly on one side of 0. False without an interval."""
        return self.ci95_low > 0 or self.ci95_high < 0


def summarize(values: Sequence[float]) -> Summary:
    """Return mean, sample standard deviation and t interval. Raises ValueError for no values or non-finite ones."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size == 0 or not np.isfinite(numbers).all():
        raise ValueError(f"values = {list(values)}; need at least one number, all finite.")
    mean, count = float(numbers.mean()), int(numbers.size)
    # One value says nothing of its spread, and 0 would pass for certainty.
    if count == 1:
        return Summary(num_seeds=1, mean=mean, sd=math.nan, ci95_low=math.nan, ci95_high=math.nan)
    sd = float(numbers.std(ddof=1))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1)) * sd / math.sqrt(count)
    return Summary(num_seeds=count, mean=mean, sd=sd, ci95_low=mean - half, ci95_high=mean + half)


def paired_difference(first: Mapping[Any, float], second: Mapping[Any, float]) -> Summary | None:
    """Return the summary of first - second over the pairs (seeds) that both have; None if they share none.

    Pairing removes what a seed does to both: the same initial weights, the same order of samples.
    """
    shared = sorted(set(first) & set(second))
    return summarize([first[pair] - second[pair] for pair in shared]) if shared else None


def best_of(candidates: Mapping[str, Mapping[Any, float]]) -> str | None:
    """Return the name of the candidate with the highest mean; None without candidates.

    Choosing the best after seeing the results favours the candidates, so a win over it is on the safe side.
    """
    means = {name: summarize(list(values.values())).mean for name, values in candidates.items() if values}
    return max(means, key=means.__getitem__) if means else None


def verdict(first: str, second: str, difference: Summary | None, *, unit: str = "points") -> str:
    """Return one sentence on first - second."""
    if difference is None:
        return f"{first} and {second}: not compared, no finished pair with the same seed."
    mean, count = difference.mean, difference.num_seeds
    if not difference.has_interval:
        direction = "above" if mean >= 0 else "below"
        return (
            f"{first} is {abs(mean):.1f} {unit} {direction} {second} in the only seed, n = 1: no interval, no verdict."
        )
    if difference.excludes_zero:
        verb = "beats" if mean > 0 else "loses to"
        sentence = f"{first} {verb} {second} by {abs(mean):.1f} ± {difference.half_width:.1f} {unit}, n = {count}"
    else:
        sentence = (
            f"{first} and {second} are not distinguishable: "
            f"difference {mean:+.1f} ± {difference.half_width:.1f} {unit}, n = {count}"
        )
    # With one degree of freedom the interval is so wide that readers should know why.
    caution = " (two pairs: the interval is 12.7 standard errors wide on each side)" if count == 2 else ""
    return f"{sentence}{caution}."
