"""Core seconds of this process over a stretch of time: those it used, and those its threads waited for a free core.

Linux counts for every thread the time in which it could have run and no core was free (/proc/self/task/*/schedstat).
That tells waiting for a core from waiting for data. Idle cores do not tell it: others fill them with work of low
priority.
"""

import hashlib
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.base.machine import num_cores

__all__ = ["CoreUse", "LoadMeter", "cores_to_be_had"]

TASKS = Path("/proc/self/task")
PROBE_BYTES = 1 << 20
"""Hashed in one piece, without Python's lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreUse:
    """Core seconds of a stretch of `seconds`: own_s were used; in queued_s, threads that could run waited for a core.
    Threads that ended meanwhile are in own_s only."""

    seconds: float
    own_s: float
    queued_s: float


class LoadMeter:
    """Meter of core seconds. It starts when it is made; `read` returns the use since then."""

    def __init__(self) -> None:
        self._queued_s = queued_by_thread()
        self._start_s, self._own_s = time.perf_counter(), time.process_time()

    def read(self) -> CoreUse:
        seconds, own_s = time.perf_counter() - self._start_s, time.process_time() - self._own_s
        # A thread that started since then had not waited before.
        queued_s = sum(now_s - self._queued_s.get(thread, 0.0) for thread, now_s in queued_by_thread().items())
        return CoreUse(seconds=max(seconds, 1e-9), own_s=own_s, queued_s=queued_s)


def queued_by_thread() -> Mapping[str, float]:
    """Return seconds that each thread of this process has waited for a core; {} where the system does not count
    them."""
    found: dict[str, float] = {}
    for path in TASKS.glob("*/schedstat"):
        try:
            found[path.parent.name] = int(path.read_text(encoding="ascii").split()[1]) * 1e-9
        except (OSError, IndexError, ValueError):
            continue  # a thread that has ended since it was listed
    return found


def cores_to_be_had(seconds: float) -> float:
    """Measure how many cores this process gets if it wants all: a thread for each hashes bytes for a time.

    What a process gets while it mostly waits for something else says little of what it would get.
    """
    count, end_s = num_cores(), time.perf_counter() + seconds
    bytes_ = np.ones(PROBE_BYTES, np.uint8)

    def work(_: int) -> None:
        while time.perf_counter() < end_s:
            hashlib.blake2b(bytes_.data)

    with ThreadPoolExecutor(count) as pool:
        meter = LoadMeter()
        list(pool.map(work, range(count)))
        use = meter.read()
    # Never 0, since the model divides by it.
    return min(max(use.own_s / use.seconds, 0.1), float(count))
