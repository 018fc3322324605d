"""The part of the machine that this process may use."""

import os

__all__ = ["num_cores"]


def num_cores() -> int:
    """Return the number of cores this process may run on; a container or taskset may allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
