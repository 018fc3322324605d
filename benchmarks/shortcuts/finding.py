"""One measured shortcut: value, chance, 95 % interval, verdict. From counts per source, since rows of one image, and
clips of one video, are alike.

Every metric here is a ratio of sums over sources: right answers / questions, satisfied triplets / triplets, cells in
the intersection / cells in the union. So one bootstrap over sources serves all tasks.

Letters: N sources (images, or videos that clips are cut from).
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from pipelines.base.rng import rng_for

__all__ = ["MARGIN", "Counts", "Finding", "finding", "simulated_finding"]

Floats = npt.NDArray[np.float64]
Verdict = Literal["leaks", "above chance", "no leak", "learned", "not learned"]

MARGIN = 0.1
"""Share of the way from chance to 1 that the interval's lower end must exceed for a shortcut to count as a leak."""
NUM_RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The metric's numerator and denominator of every source, float64 (N,). A source with denominator 0 is ignored."""

    num: Floats
    den: Floats

    @property
    def value(self) -> float:
        """The metric over all sources; 0 where nothing was counted."""
        return float(self.num.sum() / max(self.den.sum(), 1e-12))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """sees: what the inputs were cut down to. chance, value, ci95_low, ci95_high: the metric, from 0 to 1.

    num_sources: images, or videos of clips, that the interval is taken over. kept: of a trained model, what is left of
    its distance from chance; None for probes.
    """

    task: str
    sees: str
    metric: str
    chance: float
    value: float
    ci95_low: float
    ci95_high: float
    num_sources: int
    verdict: Verdict
    kept: float | None = None

    def as_whole(self) -> "Finding":
        """Return it as what a model reaches with whole inputs: nothing leaks there, it has learned or not."""
        is_learned = self.ci95_low > self.chance
        return replace(self, kept=1.0 if is_learned else None, verdict="learned" if is_learned else "not learned")

    def beside(self, real: "Finding") -> "Finding":
        """Return it with `kept`, relative to what the same model reaches with whole inputs."""
        # A model that has learned nothing has nothing to keep.
        is_learned = real.ci95_low > real.chance
        kept = (self.value - self.chance) / (real.value - real.chance) if is_learned else None
        return replace(self, kept=kept)


def finding(task: str, sees: str, metric: str, counts: Counts, *, chance: float, seed: int) -> Finding:
    """Return the finding with a percentile bootstrap interval over sources."""
    is_counted = counts.den > 0
    num, den = counts.num[is_counted], counts.den[is_counted]
    if len(num) and np.ptp(num / den) > 0:
        rng = rng_for(seed, 0, sees, task)
        found = stats.bootstrap(
            (num, den), _ratio, paired=True, n_resamples=NUM_RESAMPLES, method="percentile", rng=rng
        ).confidence_interval
        low, high = float(found.low), float(found.high)
    else:
        # A bootstrap of equal values has no width.
        low, high = _wilson(counts.value, len(num))
    return _judged(task, sees, metric, counts.value, low, high, chance=chance, num_sources=len(num))


def simulated_finding(task: str, sees: str, metric: str, value: float, *, chance: float, num_draws: int) -> Finding:
    """Return the finding of a share of simulated draws that are independent of each other, with Wilson's interval."""
    low, high = _wilson(value, num_draws)
    return _judged(task, sees, metric, value, low, high, chance=chance, num_sources=num_draws)


def _judged(
    task: str, sees: str, metric: str, value: float, low: float, high: float, *, chance: float, num_sources: int
) -> Finding:
    verdict: Verdict = "above chance" if low > chance else "no leak"
    if low > chance + MARGIN * (1 - chance):
        verdict = "leaks"
    return Finding(
        task=task,
        sees=sees,
        metric=metric,
        chance=chance,
        value=value,
        ci95_low=low,
        ci95_high=high,
        num_sources=num_sources,
        verdict=verdict,
    )


def _ratio(num: Floats, den: Floats, axis: int = -1) -> Floats:
    ratio: Floats = num.sum(axis) / den.sum(axis)
    return ratio


def _wilson(value: float, count: int) -> tuple[float, float]:
    if count == 0:
        return 0.0, 1.0
    interval = stats.binomtest(round(value * count), count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
