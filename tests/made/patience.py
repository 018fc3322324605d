"""Time limits that hold on a busy machine.

A limit only costs time where a test fails, so those of waiting are long. Where a test says "within seconds", the
seconds grow with the load: ten processes on two cores take five times as long for everything.
"""

import os
import time
from collections.abc import Callable

from pipelines.base.machine import num_cores

__all__ = ["PATIENCE_S", "retried", "seconds_here", "wait_until"]

PATIENCE_S = 240.0


def seconds_here(seconds: float) -> float:
    """What takes `seconds` on an idle machine, at this machine's load of the last minute."""
    return seconds * (1 + 2 * os.getloadavg()[0] / num_cores())


def retried(check: Callable[[], None], times: int = 5) -> None:
    """Call `check` until it raises no AssertionError, at most `times`: for timings that another process may spoil."""
    for _ in range(times - 1):
        try:
            return check()
        except AssertionError:
            time.sleep(0.1)
    return check()


def wait_until(is_so: Callable[[], object], limit_s: float = PATIENCE_S) -> None:
    """Return once `is_so()` is true. Raises AssertionError after `limit_s`."""
    deadline_s = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < deadline_s, f"not so after {limit_s} s"
        time.sleep(0.01)
