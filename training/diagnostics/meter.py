"""Speed of a run: samples per second of each task, and the share of time spent waiting for data."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["Meter"]


class Meter:
    """Meter of one process. `seconds`: wall time of the run, with `seconds_before` of earlier processes; `cpu_seconds`
    likewise: CPU time of all threads, and of worker processes that have ended."""

    def __init__(
        self, samples_seen: Mapping[str, int], seconds_before: float = 0.0, cpu_seconds_before: float = 0.0
    ) -> None:
        self._origin_s = time.monotonic() - seconds_before
        self._cpu_origin_s = _cpu_s() - cpu_seconds_before
        self._start_interval(samples_seen)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._origin_s

    @property
    def cpu_seconds(self) -> float:
        return _cpu_s() - self._cpu_origin_s

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        start_s = time.monotonic()
        try:
            yield
        finally:
            self._waited_s += time.monotonic() - start_s

    def take(self, samples_seen: Mapping[str, int]) -> tuple[dict[str, float], float]:
        """Return samples per second of each task and the waiting ratio (0 to 1) since the last call."""
        elapsed_s = max(time.monotonic() - self._since_s, 1e-9)
        rates = {task: round((seen - self._seen.get(task, 0)) / elapsed_s, 2) for task, seen in samples_seen.items()}
        ratio = round(self._waited_s / elapsed_s, 4)
        self._start_interval(samples_seen)
        return rates, ratio

    def _start_interval(self, samples_seen: Mapping[str, int]) -> None:
        self._since_s = time.monotonic()
        self._waited_s = 0.0
        self._seen = dict(samples_seen)


def _cpu_s() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
