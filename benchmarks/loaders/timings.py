"""Seconds of passes into samples per second, medians, intervals and ratios to the limit; and rows of a table.

Intervals are of the median, from the order of the repeats alone (Conover, Practical Nonparametric Statistics, 3.2): a
machine that stalls in one repeat makes no t interval worth its name. Fewer than 6 repeats give none at 95 %.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.loaders.registry import LIMIT
from benchmarks.results.statistics import CONFIDENCE

__all__ = ["CACHES", "Timings", "loader_rows", "summary"]

CACHES = ("warm", "cold")

ByRepeat = dict[int, float]


@dataclass(slots=True)
class Timings:
    """All that was timed so far. A pass has `num_samples` samples."""

    num_samples: int
    rates: dict[str, dict[str, ByRepeat]] = field(default_factory=lambda: {cache: {} for cache in CACHES})
    """Samples per second by cache, loader and number of the repeat."""
    resident: dict[str, dict[str, ByRepeat]] = field(default_factory=lambda: {cache: {} for cache in CACHES})
    """Share of the loader's data in memory when its passes began."""

    def add(self, name: str, cache: str, repeat: int, answer: Mapping[str, Any]) -> str:
        """Count the answer to a request for passes; what to tell."""
        self.resident[cache].setdefault(name, {})[repeat] = answer["resident_ratio"]
        if not answer["num_passes"]:
            return f"not timed: {answer['resident_ratio']:.0%} of its data stayed in memory"
        rate = self.num_samples * answer["num_passes"] / answer["seconds"]
        self.rates[cache].setdefault(name, {})[repeat] = rate
        return f"{rate:,.0f} samples/s"

    def forget(self, name: str) -> None:
        for found in (*self.rates.values(), *self.resident.values()):
            found.pop(name, None)

    def results(self) -> dict[str, Any]:
        """samples_per_s and ratio_to_limit by cache and loader, the ratio within each repeat, so that what slows both
        down cancels; resident_ratio: smallest when warm, largest when cold.

        num_cold_unconfirmed: by loader, repeats in which the system had not dropped its data; they were not timed.
        """
        limit = self.rates["warm"].get(LIMIT, {})
        ratios = {
            cache: {name: _ratios(rates, limit) for name, rates in self.rates[cache].items() if name != LIMIT}
            for cache in CACHES
        }
        return {
            "samples_per_s": {
                cache: {name: summary(list(rates.values())) for name, rates in self.rates[cache].items()}
                for cache in CACHES
            },
            "ratio_to_limit": {
                cache: {name: summary(values) for name, values in ratios[cache].items() if values} for cache in CACHES
            },
            "resident_ratio": {
                "warm": {name: min(values.values()) for name, values in self.resident["warm"].items()},
                "cold": {name: max(values.values()) for name, values in self.resident["cold"].items()},
            },
            "num_cold_unconfirmed": {
                name: len(set(values) - set(self.rates["cold"].get(name, {})))
                for name, values in self.resident["cold"].items()
            },
        }


def loader_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a table: warm ones first, the fastest first; then what was not measured, with the reason in `note`."""
    rows: list[dict[str, Any]] = []
    for cache in CACHES:
        found = results["samples_per_s"][cache]
        for name in sorted(found, key=lambda one: -found[one]["median"]):
            ratio = results["ratio_to_limit"][cache].get(name)
            rows.append(_row(name, cache, found[name], ratio, results["what"][name]))
    for name, count in results["num_cold_unconfirmed"].items():
        if count:
            kept = results["resident_ratio"]["cold"][name]
            note = f"not measured in {count} repeats: up to {kept:.0%} of its data stayed in memory"
            rows.append(_row(name, "cold", None, None, note))
    return rows + [
        _row(name, "", None, None, f"not measured: {reason}") for name, reason in results["not_measured"].items()
    ]


def _row(name: str, cache: str, rate: dict[str, Any] | None, ratio: dict[str, Any] | None, note: str) -> dict[str, Any]:
    return {
        "loader": name,
        "cache": cache,
        "samples_per_s": rate["median"] if rate else None,
        "ci95_low": rate["ci95_low"] if rate else None,
        "ci95_high": rate["ci95_high"] if rate else None,
        "ratio_to_limit": ratio["median"] if ratio else None,
        "num_repeats": len(rate["repeats"]) if rate else 0,
        "note": note,
    }


def _ratios(rates: ByRepeat, limit: ByRepeat) -> list[float]:
    return [rate / limit[repeat] for repeat, rate in rates.items() if repeat in limit]


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median of at least one value and its 95 % interval, None where there are too few values; and all of them."""
    from scipy.stats import binom  # not above: the loaders' processes would wait 0.7 s for what they do not need

    rank, ordered = int(binom.ppf((1 - CONFIDENCE) / 2, len(values), 0.5)), sorted(values)
    low, high = (ordered[rank - 1], ordered[-rank]) if rank else (None, None)
    return {"median": statistics.median(values), "ci95_low": low, "ci95_high": high, "repeats": list(values)}
