"""What this process may use of the machine."""

import os

__all__ = ["num_cores"]


def num_cores() -> int:
    """Cores this process may run on; in a container or under taskset that is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
