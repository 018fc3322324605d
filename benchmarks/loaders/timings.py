"""Samples per second and ratios to the limit, with their spread, from seconds of passes; and rows of a table."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.harness.spread import ratio_spread, spread_of
from benchmarks.loaders.registry import LIMIT

__all__ = ["CACHES", "PassTimes", "loader_rows"]

CACHES = ("warm", "cold")
ByRepeat = dict[int, float]


@dataclass(slots=True)
class PassTimes:
    """All that was timed so far, by (cache, loader) and number of the repeat. A pass has `num_samples` samples."""

    num_samples: int
    rates: dict[tuple[str, str], ByRepeat] = field(default_factory=lambda: defaultdict(dict))
    """Samples per second."""
    resident: dict[tuple[str, str], ByRepeat] = field(default_factory=lambda: defaultdict(dict))
    """Share of the loader's data in memory when its passes began."""

    def add(self, name: str, cache: str, repeat: int, answer: Mapping[str, Any]) -> str:
        """Count the answer to a request for passes; return a line about it."""
        self.resident[cache, name][repeat] = answer["resident_ratio"]
        # What came from memory is no cold pass: its rate would be that of a warm one.
        if not answer["num_passes"]:
            return f"not timed: {answer['resident_ratio']:.0%} of its data stayed in memory"
        rate = self.num_samples * answer["num_passes"] / answer["seconds"]
        self.rates[cache, name][repeat] = rate
        return f"{rate:,.0f} samples/s"

    def forget(self, name: str) -> None:
        """Drop all that was timed of a loader."""
        for cache in CACHES:
            self.rates.pop((cache, name), None)
            self.resident.pop((cache, name), None)

    def results(self) -> dict[str, Any]:
        """Return samples_per_s and ratio_to_limit by cache and loader, the ratio taken within each repeat.

        resident_ratio: smallest when warm, largest when cold. num_cold_unconfirmed: by loader, repeats that were not
        timed because the system had not dropped its data.
        """

        def by_loader(found: Mapping[tuple[str, str], ByRepeat], of: Callable[[str, str], Any]) -> dict[str, Any]:
            return {cache: {name: of(cache, name) for one, name in found if one == cache} for cache in CACHES}

        def ratio(cache: str, name: str) -> dict[str, Any]:
            own = self.rates[cache, name]
            # Only repeats that both have: in these they ran beside each other, so that what slowed both cancels.
            shared = [repeat for repeat in own if repeat in limit]
            return asdict(ratio_spread([own[repeat] for repeat in shared], [limit[repeat] for repeat in shared]))

        # The limit decodes from memory, so that its warm repeats are the measure of cold passes, too.
        limit = self.rates.get(("warm", LIMIT), {})
        compared = {key: own for key, own in self.rates.items() if key[1] != LIMIT and set(own) & set(limit)}
        return {
            "samples_per_s": by_loader(self.rates, lambda *key: asdict(spread_of(list(self.rates[key].values())))),
            "ratio_to_limit": by_loader(compared, ratio),
            "resident_ratio": by_loader(
                self.resident, lambda *key: (min if key[0] == "warm" else max)(self.resident[key].values())
            ),
            "num_cold_unconfirmed": {
                name: len(set(own) - set(self.rates.get((cache, name), {})))
                for (cache, name), own in self.resident.items()
                if cache == "cold"
            },
        }


def loader_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return rows of a table: warm ones first, the fastest first; then what was not measured, and why, in `note`."""
    rows: list[dict[str, Any]] = []
    for cache in CACHES:
        found = results["samples_per_s"][cache]
        for name in sorted(found, key=lambda one: -found[one]["median"]):
            ratio = results["ratio_to_limit"][cache].get(name)
            rows.append(_row(name, cache, results["what"][name], found[name], ratio))
    for name, count in results["num_cold_unconfirmed"].items():
        if count:
            kept = results["resident_ratio"]["cold"][name]
            note = f"not measured in {count} repeats: up to {kept:.0%} of its data stayed in memory"
            rows.append(_row(name, "cold", note))
    return rows + [_row(name, "", f"not measured: {reason}") for name, reason in results["not_measured"].items()]


def _row(
    name: str, cache: str, note: str, rate: Mapping[str, Any] | None = None, ratio: Mapping[str, Any] | None = None
) -> dict[str, Any]:
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
