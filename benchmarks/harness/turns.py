"""Taking turns: A, B, C, then B, C, A, ..., so that whatever slows the machine down slows all contenders alike."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.harness.spread import spread_of

__all__ = ["Job", "Timed", "time_in_turns", "turns"]


def turns(names: Collection[str], num_repeats: int, *, num_warm_up: int = 0) -> Iterator[tuple[int, str]]:
    """Yield (repeat, name); warm-up rounds come first and have negative numbers.

    Another name is first in each round. `names` is read again in each round: a name taken out of it gets no more turns.
    """
    for repeat in range(-num_warm_up, num_repeats):
        order = list(names)
        # The first of a round finds other caches than the last, so that each takes every place in turn.
        first = repeat % max(len(order), 1)
        for name in order[first:] + order[:first]:
            if name in names:
                yield repeat, name


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Work to time. `run` makes `num_items` items of a unit; `prepare` runs before each turn, untimed."""

    unit: str
    num_items: float
    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A job's seconds, one number for each repeat."""

    name: str
    unit: str
    num_items: float
    seconds: tuple[float, ...]

    @property
    def per_s(self) -> list[float]:
        """Items per second of each repeat."""
        return [self.num_items / seconds for seconds in self.seconds]

    @property
    def median_per_s(self) -> float:
        return spread_of(self.per_s).median

    def row(self) -> dict[str, Any]:
        """Return what goes into a record: name, unit, spread of the items per second."""
        return {"name": self.name, "unit": f"{self.unit}_per_s", **asdict(spread_of(self.per_s))}


def time_in_turns(
    jobs: Mapping[str, Job],
    num_repeats: int,
    *,
    num_warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    report: Callable[[str], object] = lambda _: None,
) -> dict[str, Timed]:
    """Time all jobs in turns. `report` gets a line for each job at the end."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for repeat, name in turns(jobs, num_repeats, num_warm_up=num_warm_up):
        jobs[name].prepare()
        start_s = clock()
        jobs[name].run()
        spent_s = clock() - start_s
        if repeat >= 0:
            seconds[name].append(spent_s)
    found = {
        name: Timed(name=name, unit=job.unit, num_items=job.num_items, seconds=tuple(seconds[name]))
        for name, job in jobs.items()
    }
    for timed in found.values():
        report(f"{timed.name}: {timed.median_per_s:,.1f} {timed.unit}/s")
    return found
