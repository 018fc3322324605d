"""Cost of a piece of work, and a stopwatch for it: seconds of CPU and of wall time. Light to import."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

__all__ = ["NOTHING", "Cost", "Stopwatch", "middle", "watched"]


@dataclass(frozen=True, slots=True)
class Cost:
    """cpu_s: of all threads and of worker processes. wall_s: on a machine with nothing else to do."""

    cpu_s: float
    wall_s: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.cpu_s + other.cpu_s, self.wall_s + other.wall_s)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.cpu_s - other.cpu_s, self.wall_s - other.wall_s)

    def __mul__(self, factor: float) -> "Cost":
        return Cost(self.cpu_s * factor, self.wall_s * factor)

    def at_least_nothing(self) -> "Cost":
        return Cost(max(0.0, self.cpu_s), max(0.0, self.wall_s))


NOTHING = Cost(0.0, 0.0)


class Stopwatch:
    """Cost since it was made."""

    def __init__(self) -> None:
        self._begin = _now()

    def read(self) -> Cost:
        return (_now() - self._begin).at_least_nothing()


def _now() -> Cost:
    process, cpu_s = psutil.Process(), time.process_time()
    # Worker processes that still run count, too: those of a pipeline end later.
    for child in process.children(recursive=True):
        try:
            spent = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        cpu_s += spent.user + spent.system
    ended = process.cpu_times()
    return Cost(cpu_s + ended.children_user + ended.children_system, time.monotonic())


@contextmanager
def watched(found: list[Cost]) -> Iterator[None]:
    """Append the cost of the block to a list."""
    watch = Stopwatch()
    yield
    found.append(watch.read())


def middle(costs: Sequence[Cost]) -> Cost:
    """Return the mean of the middle half: on a busy machine a few of many alike take several times as long."""
    cpu_s, wall_s = (sorted(values) for values in zip(*((one.cpu_s, one.wall_s) for one in costs), strict=True))
    left_out = len(costs) // 4
    kept = slice(left_out, len(costs) - left_out)
    return Cost(sum(cpu_s[kept]) / len(cpu_s[kept]), sum(wall_s[kept]) / len(wall_s[kept]))
