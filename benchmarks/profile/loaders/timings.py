"""Seconds of passes into samples per second, medians, intervals and ratios to the limit; and rows of a table."""

import statistics
from dataclasses import dataclass, field
from typing import Any

from benchmarks.profile.loaders.contenders import LIMIT
from benchmarks.statistics import summarize

__all__ = ["CACHES", "Timings", "loader_rows"]

CACHES = ("warm", "cold")


@dataclass(slots=True)
class Timings:
    """All passes so far. A pass has `num_samples` samples."""

    num_samples: int
    rates: dict[str, dict[str, list[float]]] = field(default_factory=lambda: {cache: {} for cache in CACHES})
    """Samples per second by cache and loader, in the order of the repeats."""
    resident: dict[str, dict[str, list[float]]] = field(default_factory=lambda: {cache: {} for cache in CACHES})
    """Share of the loader's data in memory when a pass began."""

    def add(self, name: str, cache: str, answer: dict[str, Any]) -> str:
        """Count the answer to a request for a pass; what to tell."""
        self.resident[cache].setdefault(name, []).append(answer["resident_ratio"])
        if answer["seconds"] is None:
            return f"not cold, {answer['resident_ratio']:.0%} stayed in memory"
        self.rates[cache].setdefault(name, []).append(self.num_samples / answer["seconds"])
        return f"{self.rates[cache][name][-1]:,.0f} samples/s"

    def forget(self, name: str) -> None:
        for found in (*self.rates.values(), *self.resident.values()):
            found.pop(name, None)

    def results(self) -> dict[str, Any]:
        """samples_per_s and ratio_to_limit by cache and loader; resident_ratio: smallest when warm, largest when cold.

        cache_drop_confirmed: by loader, whether the system had dropped its data before every cold pass.
        """
        limit = self.rates["warm"].get(LIMIT, [])
        return {
            "samples_per_s": {
                cache: {name: _summary(values) for name, values in self.rates[cache].items()} for cache in CACHES
            },
            "ratio_to_limit": {
                cache: {
                    name: _summary([one / other for one, other in zip(values, limit, strict=False)])
                    for name, values in self.rates[cache].items()
                    if limit and name != LIMIT
                }
                for cache in CACHES
            },
            "resident_ratio": {
                "warm": {name: min(values) for name, values in self.resident["warm"].items()},
                "cold": {name: max(values) for name, values in self.resident["cold"].items()},
            },
            "cache_drop_confirmed": {
                name: len(self.rates["cold"].get(name, [])) == len(values)
                for name, values in self.resident["cold"].items()
            },
        }


def loader_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of a table: warm ones first, the fastest first; then what was not measured, with the reason in `note`."""
    rows: list[dict[str, Any]] = []
    for cache in CACHES:
        found = results["samples_per_s"][cache]
        for name in sorted(found, key=lambda one: -found[one]["median"]):
            ratio = results["ratio_to_limit"][cache].get(name)
            rows.append(_row(name, cache, found[name], ratio["median"] if ratio else None, results["what"][name]))
    for name, is_confirmed in results["cache_drop_confirmed"].items():
        if not is_confirmed:
            kept = results["resident_ratio"]["cold"][name]
            rows.append(_row(name, "cold", None, None, f"not measured: {kept:.0%} of its data stayed in memory"))
    return rows + [
        _row(name, "", None, None, f"not measured: {reason}") for name, reason in results["not_measured"].items()
    ]


def _row(name: str, cache: str, rate: dict[str, Any] | None, ratio: float | None, note: str) -> dict[str, Any]:
    low, high = (rate and rate["mean_ci95"]) or (None, None)
    return {
        "loader": name,
        "cache": cache,
        "samples_per_s": rate["median"] if rate else None,
        "ci95_low": low,
        "ci95_high": high,
        "ratio_to_limit": ratio,
        "note": note,
    }


def _summary(values: list[float]) -> dict[str, Any]:
    """Median, and the 95 % interval of the mean; none from a single value."""
    summary = summarize(values)
    interval = [summary.ci95_low, summary.ci95_high] if summary.has_interval else None
    return {"median": statistics.median(values), "mean_ci95": interval, "repeats": values}
