"""Means, intervals and verdicts over a few seeds: numbers in, numbers and sentences out.

Every ± in a report is half of a two-sided 95 % interval. Seeds, and where a claim is about all depths also depths, are
the units that an interval generalises to: another seed, another depth, on the same data and the same test images.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

__all__ = [
    "MIN_SEEDS",
    "Difference",
    "Pair",
    "Summary",
    "best_of",
    "beyond_best",
    "detectable_difference",
    "difference_of",
    "half_width_of_test_set",
    "holm",
    "seeds_for",
    "signed",
    "standard_error_of_test_set",
    "summarize",
    "verdict",
]

CONFIDENCE = 0.95
POWER = 0.8
MIN_SEEDS = 3
"""Fewer seeds give numbers, but no verdict."""
MAX_SEEDS = 1000

Pair = tuple[int, int]
"""(depth, seed), equal on both sides when two task sets are compared."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Difference of two paired groups, with its 95 % interval and two-sided p value. Without an interval: NaN.

    `sd`: of the seeds' differences, each the mean over `num_depths` depths; `sd_depths`: of the depths' differences,
    each the mean over seeds, NaN at one depth. The interval of a comparison with the best of several is not symmetric
    about `mean`.
    """

    mean: float
    sd: float
    ci95_low: float
    ci95_high: float
    p_value: float
    num_seeds: int
    num_depths: int
    sd_depths: float = math.nan

    @property
    def has_interval(self) -> bool:
        return not math.isnan(self.p_value)


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
    half = _quantile(0.5 + CONFIDENCE / 2, count - 1) * sd / math.sqrt(count)
    return Summary(num_seeds=count, mean=mean, sd=sd, ci95_low=mean - half, ci95_high=mean + half)


def difference_of(first: Mapping[Pair, float], second: Mapping[Pair, float]) -> Difference | None:
    """Return first - second over the pairs (depth, seed) that both have; None if they share none.

    Pairing removes what a seed does to both: the same initial weights, the same order of samples. At one depth the
    interval is Student's over seeds. Over several depths, the differences of one seed are not independent, nor are
    those of one depth: the interval is the wider of Student's over the seeds (each the mean of its depths) and
    Student's over the depths (each the mean of its seeds). So it holds where seeds differ, where a task helps one depth
    and harms another, and where neither is so. Only seeds with a result at every depth count.
    """
    table_DS = _table(first, second)
    if table_DS is None:
        return None
    num_depths, num_seeds = table_DS.shape
    mean, seeds = float(table_DS.mean()), table_DS.mean(0)
    sd = float(seeds.std(ddof=1)) if num_seeds > 1 else math.nan
    half, p_value = _student(seeds)
    sd_depths = math.nan
    if num_depths > 1:
        depths = table_DS.mean(1)
        sd_depths = float(depths.std(ddof=1))
        half_depths, p_depths = _student(depths)
        # NaN of a single seed stays NaN: `max` of Python would drop it.
        half, p_value = float(np.maximum(half, half_depths)), float(np.maximum(p_value, p_depths))
    return Difference(
        mean=mean,
        sd=sd,
        ci95_low=mean - half,
        ci95_high=mean + half,
        p_value=p_value,
        num_seeds=num_seeds,
        num_depths=num_depths,
        sd_depths=sd_depths,
    )


def beyond_best(first: Mapping[Pair, float], others: Mapping[str, Mapping[Pair, float]]) -> Difference | None:
    """Return first - the best of `others`, corrected for choosing the best from the same data; None without pairs.

    The true difference to the best is the smallest of the differences to each. To be above it means to be above all of
    them, which needs no correction (an intersection-union test). To be below it means to be below at least one, which
    is corrected by Bonferroni's bound on the largest t. Each side has an error of at most 2.5 %.
    """
    found = [one for other in others.values() if other and (one := difference_of(first, other)) is not None]
    if not found:
        return None
    closest = min(found, key=lambda one: one.mean)
    if not all(one.has_interval for one in found):
        return closest
    count = len(found)
    # 1. One-sided p values of both claims.
    above = max(one.p_value / 2 if one.mean > 0 else 1 - one.p_value / 2 for one in found)
    below = min(1.0, count * min(one.p_value / 2 if one.mean < 0 else 1 - one.p_value / 2 for one in found))
    # 2. The limits at which these p values reach 2.5 %.
    return Difference(
        mean=closest.mean,
        sd=closest.sd,
        ci95_low=min(one.ci95_low for one in found),
        ci95_high=min(_upper_limit(first, other, count) for other in others.values() if other),
        p_value=min(1.0, 2 * min(above, below)),
        num_seeds=min(one.num_seeds for one in found),
        num_depths=closest.num_depths,
        sd_depths=closest.sd_depths,
    )


def _upper_limit(first: Mapping[Pair, float], second: Mapping[Pair, float], num_comparisons: int) -> float:
    """Return the upper limit of first - second with a one-sided error of 2.5 % / num_comparisons."""
    table_DS = _table(first, second)
    if table_DS is None:
        return math.inf
    level = 1 - (1 - CONFIDENCE) / 2 / num_comparisons
    groups = [table_DS.mean(0), table_DS.mean(1)] if len(table_DS) > 1 else [table_DS.mean(0)]
    return float(table_DS.mean()) + max(_standard_error(one) * _quantile(level, len(one) - 1) for one in groups)


def _table(first: Mapping[Pair, float], second: Mapping[Pair, float]) -> npt.NDArray[np.float64] | None:
    """Return differences of shape (depths, seeds), for the seeds that have one at every shared depth."""
    shared = set(first) & set(second)
    depths = sorted({depth for depth, _ in shared})
    seeds = [seed for seed in sorted({seed for _, seed in shared}) if all((depth, seed) in shared for depth in depths)]
    if not seeds:
        return None
    return np.array([[first[depth, seed] - second[depth, seed] for seed in seeds] for depth in depths])


def _student(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return half the 95 % interval of the mean and the two-sided p value against 0; NaN for a single value."""
    if len(values) < 2:
        return math.nan, math.nan
    error, mean = _standard_error(values), abs(float(values.mean()))
    half = _quantile(0.5 + CONFIDENCE / 2, len(values) - 1) * error
    # Differences without any spread, as of tests with made-up numbers: t is infinite, or 0 / 0.
    if error == 0:
        return 0.0, 1.0 if mean == 0 else 0.0
    return half, 2 * float(special.stdtr(len(values) - 1, -mean / error))


def _standard_error(values: npt.NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def _quantile(level: float, degrees_of_freedom: int) -> float:
    # The quantile of Student's t; `scipy.stats` takes a hundred times as long for one number.
    return float(special.stdtrit(degrees_of_freedom, level))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected by Holm for the number of them: any false claim among all has at most the level.

    NaN, of a comparison without an interval, stays NaN and is not counted.
    """
    # By hand, since statsmodels collects garbage in every call, which takes a quarter of a second.
    corrected = np.array(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(corrected))
    ordered = known[np.argsort(corrected[known], kind="stable")]
    factors = np.arange(len(ordered), 0, -1)
    corrected[ordered] = np.minimum(1.0, np.maximum.accumulate(factors * corrected[ordered]))
    return [float(one) for one in corrected]


def detectable_difference(sd: float, count: int) -> float:
    """Return the difference that a paired t test at 5 % finds with a power of 80 %; NaN for fewer than 2 differences.

    sd: of `count` differences, of seeds or of depths, in the unit of the result.
    """
    from statsmodels.stats.power import TTestPower

    if count < 2 or math.isnan(sd):
        return math.nan
    return sd * float(TTestPower().solve_power(nobs=count, alpha=1 - CONFIDENCE, power=POWER))


def seeds_for(difference: float, sd: float) -> int | None:
    """Return how many seeds find `difference` at 5 % with a power of 80 %; None if more than 1,000 or sd is unknown."""
    from statsmodels.stats.power import TTestPower

    if math.isnan(sd):
        return None
    if sd == 0:
        return 2
    power = TTestPower()
    # The power of a very large effect comes out as NaN: it is 1, so that the question is what lacks power.
    counts = range(2, MAX_SEEDS + 1)
    index = bisect_left(counts, True, key=lambda count: not power.power(difference / sd, count, 1 - CONFIDENCE) < POWER)
    return counts[index] if index < len(counts) else None


def half_width_of_test_set(accuracy_pct: float, num_images: int) -> float:
    """Return half the 95 % interval of an accuracy, in points, if other test images of the same kind were drawn.

    Binomial, normal approximation: images are taken as independent.
    """
    return float(special.ndtri(0.5 + CONFIDENCE / 2)) * standard_error_of_test_set(accuracy_pct, num_images)


def standard_error_of_test_set(accuracy_pct: float, num_images: int) -> float:
    """Return the standard error of an accuracy over draws of the test images, in points. Binomial."""
    share = min(1.0, max(0.0, accuracy_pct / 100))
    return 100 * math.sqrt(share * (1 - share) / num_images)


def signed(value: float) -> str:
    """Return +1.2 or -1.2; what rounds to 0 is +0.0 on both sides."""
    return f"{round(value, 1) + 0.0:+.1f}"


def best_of(candidates: Mapping[str, Mapping[Any, float]]) -> str | None:
    """Return the name of the candidate with the highest mean; None without candidates."""
    means = {name: summarize(list(values.values())).mean for name, values in candidates.items() if values}
    return max(means, key=means.__getitem__) if means else None


def verdict(
    first: str,
    second: str,
    difference: Difference | None,
    *,
    p_corrected: float | None = None,
    unit: str = "points",
    is_plural: bool = False,
) -> str:
    """Return one sentence on first - second. `p_corrected`: for several comparisons; None for the only one.

    "beats" and "loses to" need at least MIN_SEEDS seeds and a corrected p value below 5 %. `is_plural`: whether `first`
    takes a verb in the plural, as "all four tasks" does.
    """
    if difference is None:
        return f"{first} and {second}: not compared, no finished pair with the same seed."
    is_are, beats, loses = ("are", "beat", "lose") if is_plural else ("is", "beats", "loses")
    mean, count = difference.mean, difference.num_seeds
    size = f"{count} seed{'s' if count > 1 else ''}"
    if difference.num_depths > 1:
        size += f" at {difference.num_depths} depths"
    if not difference.has_interval or count < MIN_SEEDS:
        direction = "above" if mean >= 0 else "below"
        apart = f"{first} {is_are} {abs(mean):.1f} {unit} {direction} {second}"
        return f"{apart}, {size}: no verdict from fewer than {MIN_SEEDS}."
    p_value = difference.p_value if p_corrected is None else p_corrected
    interval = f"95 % interval {signed(difference.ci95_low)} to {signed(difference.ci95_high)}"
    found = f"{interval}, {size}, p = {p_value:.2g}"
    if p_value < 1 - CONFIDENCE:
        return f"{first} {beats if mean > 0 else f'{loses} to'} {second} by {abs(mean):.1f} {unit} ({found})."
    return f"{first} and {second} are not distinguishable: difference {signed(mean)} {unit} ({found})."
