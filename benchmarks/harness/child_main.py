"""A child process of the harness: imports one function of ours, calls it, then answers requests in JSON, a line each.

    python -m benchmarks.harness.child_main MODULE:FUNCTION ARGUMENTS      (JSON; started by child.py)

The function returns an object; a request {"do": NAME, ...} calls its method NAME, which returns a dict. What libraries
print goes to standard error.
"""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from importlib import import_module
from threading import Thread
from typing import Any

import psutil

__all__ = ["descendants", "kill_all", "main", "use_cores"]

WATCH_S = 0.5


def descendants(process: int) -> list[psutil.Process]:
    """Return all processes below one; [] if it has ended."""
    try:
        return psutil.Process(process).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill_all(processes: Iterable[psutil.Process]) -> None:
    """Kill processes, but not Python's resource tracker: it ends by itself once it has removed shared memory."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if not any("resource_tracker" in word for word in process.cmdline()):
                process.kill()


def use_cores(count: int) -> None:
    """Keep this process and its children on `count` cores, and torch's own operations on one thread."""
    import torch

    # macOS has no such call: there a loader may use more cores than it was given.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    torch.set_num_threads(1)


def main() -> None:
    # 1. Answers get a descriptor of their own, so that nothing a library prints can get between them.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # An exit runs the `finally` below, which closes the service; by default SIGTERM would end the process at once.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # 2. A parent that is killed closes this process's input, which is not seen in the middle of a request.
    Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    module, _, name = sys.argv[1].partition(":")
    service = getattr(import_module(module), name)(**json.loads(sys.argv[2]))
    try:
        for line in sys.stdin:
            print(json.dumps(_answer(service, json.loads(line))), file=answers, flush=True)
    finally:
        getattr(service, "close", lambda: None)()


def _answer(service: Any, request: dict[str, Any]) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = getattr(service, request.pop("do"))(**request)
    except Exception as error:
        # An import that failed, or a message of ours made of one, means: something is not installed.
        is_missing = isinstance(error, ModuleNotFoundError) or isinstance(error.__cause__, ModuleNotFoundError)
        return {"error": str(error), "type": type(error).__name__, "is_missing": is_missing}
    return answer


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    # Workers first: once this process has ended, they cannot be found through it.
    kill_all(descendants(os.getpid()))
    os._exit(1)


if __name__ == "__main__":
    main()
