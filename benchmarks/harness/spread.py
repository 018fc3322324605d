"""Spread of repeats: median, 95 % interval of the median, lowest and highest.

The interval comes from the ranks of the repeats alone (Conover, Practical Nonparametric Statistics, 3.2), because one
stalled repeat would make a t interval worthless. Fewer than 6 repeats give no interval at 95 %.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binom

from benchmarks.results.statistics import CONFIDENCE

__all__ = ["Spread", "ratio_spread", "spread_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Spread of the repeats of one measurement. The interval is None below 6 repeats."""

    median: float
    ci95_low: float | None
    ci95_high: float | None
    lowest: float
    highest: float
    repeats: list[float]


def spread_of(values: Sequence[float]) -> Spread:
    """Return the spread of at least one value. Raises ValueError for none."""
    if not values:
        raise ValueError("values = []; need at least one repeat.")
    # Each repeat falls above or below the true median like a coin, so that ranks alone bound it.
    ordered, rank = sorted(values), int(binom.ppf((1 - CONFIDENCE) / 2, len(values), 0.5))
    low, high = (ordered[rank - 1], ordered[-rank]) if rank else (None, None)
    return Spread(
        median=statistics.median(ordered),
        ci95_low=low,
        ci95_high=high,
        lowest=ordered[0],
        highest=ordered[-1],
        repeats=list(values),
    )


def ratio_spread(values: Sequence[float], base: Sequence[float]) -> Spread:
    """Return the spread of values / base, taken repeat by repeat so that what slows both down cancels."""
    return spread_of([one / other for one, other in zip(values, base, strict=True)])
