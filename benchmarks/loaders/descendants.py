"""The processes below one: found, and killed."""

import contextlib
from collections.abc import Iterable

import psutil

__all__ = ["descendants", "kill_workers"]


def descendants(process: int) -> list[psutil.Process]:
    """Of a process that may have gone."""
    try:
        return psutil.Process(process).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill_workers(processes: Iterable[psutil.Process]) -> None:
    """All but Python's resource tracker, which removes shared memory when the others have gone, and then ends."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if not any("resource_tracker" in word for word in process.cmdline()):
                process.kill()
