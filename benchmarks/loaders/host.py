"""One loader in a process of its own: requests in JSON, a line each, from standard input; answers the same way.

    python -m benchmarks.loaders.host CONTENDER SETTING      (JSON; started by hosted.py)

A loader's threads, settings and libraries are so its own: OpenCV's and torch's number of threads, FFmpeg on the library
path, a start method of multiprocessing. What libraries print goes to standard error.
"""

import gc
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

from benchmarks.loaders import page_cache
from benchmarks.loaders.descendants import descendants, kill_workers
from benchmarks.loaders.registry import Contender
from benchmarks.loaders.setting import Batch, Batches, Loader, Setting

__all__ = ["MAX_RESIDENT_RATIO", "Host", "main"]

SETTLE_S = 0.25
"""After the passes of a repeat: what the loader works ahead then must not slow down the one that is timed next."""

MAX_PASSES = 100
"""Of a repeat: what is done between passes of a few samples takes longer than they do."""
WATCH_S = 0.5
MAX_RESIDENT_RATIO = 0.02
"""Of a data set that counts as dropped. An index or a page that somebody else holds may stay."""


class Host:
    """Answers requests; `close` ends the loader."""

    def __init__(self, contender: Contender, setting: Setting) -> None:
        self._contender, self._setting = contender, setting
        self._loader: Loader | None = None
        self._num_passes = 0

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """open, check or time; see the methods."""
        actions: dict[str, Callable[..., dict[str, Any]]] = {"open": self.open, "check": self.check, "time": self.time}
        return actions[request.pop("do")](**request)

    def open(self, samples: str) -> dict[str, Any]:
        """Write the loader's own data from the plain files, or copy it, where it is not there yet; then open it."""
        module, folder = import_module(self._contender.module), self._setting.folder
        if hasattr(module, "write"):
            module.write(self._setting, [path.read_bytes() for path in sorted(Path(samples, "files").glob("*.jpg"))])
        elif self._contender.copy_of:
            shutil.copytree(Path(samples, self._contender.copy_of), folder)
        self._loader = getattr(module, self._contender.opener)(self._setting)
        return {}

    def check(self) -> dict[str, Any]:
        from benchmarks.loaders.agreement import check_pass

        with closing(self._start()) as batches:
            return {"differences": check_pass(batches, self._setting)}

    def time(self, is_cold: bool, least_s: float) -> dict[str, Any]:
        """Seconds of as many passes as take `least_s` together, and the share of the data that was in memory at their
        start: the smallest if warm, the largest if cold. Cold and yet in memory is not timed: num_passes is 0."""
        seconds, num_passes, ratios = 0.0, 0, []
        while not num_passes or (seconds < least_s and num_passes < MAX_PASSES):
            batches, resident_ratio = self._cold_start() if is_cold else self._warm_start()
            ratios.append(resident_ratio)
            with closing(batches):
                if is_cold and resident_ratio > MAX_RESIDENT_RATIO:
                    return {"seconds": 0.0, "num_passes": 0, "resident_ratio": resident_ratio}
                seconds += _seconds(batches, len(self._setting.boxes()))
            num_passes += 1
        time.sleep(SETTLE_S)
        return {"seconds": seconds, "num_passes": num_passes, "resident_ratio": (max if is_cold else min)(ratios)}

    def _warm_start(self) -> tuple[Batches, float]:
        """Nothing is done between the start of a pass and its timing: a loader that works ahead would gain by it."""
        files = page_cache.files_below(self._setting.folder)
        page_cache.read_all(files)
        resident_ratio = page_cache.resident_ratio(files)
        return self._start(), resident_ratio

    def _cold_start(self) -> tuple[Batches, float]:
        """Dropped last, because to start a pass may mean to look into files."""
        assert self._loader is not None
        self._loader.let_go()
        gc.collect()
        files = page_cache.files_below(self._setting.folder)
        batches = self._start()
        page_cache.drop(files)
        return batches, page_cache.resident_ratio(files)

    def _start(self) -> Batches:
        assert self._loader is not None
        self._num_passes += 1
        return self._loader.start(self._num_passes - 1)

    def close(self) -> None:
        if self._loader is not None:
            self._loader.close()
            self._loader = None


def _seconds(batches: Iterable[Batch], num_samples: int) -> float:
    """Until all samples of the pass are there. What the loader does afterwards is not in them."""
    num_found, start_s = 0, time.perf_counter()
    for batch in batches:
        num_found += len(batch.rows)
        if num_found >= num_samples:
            return time.perf_counter() - start_s
    raise RuntimeError(f"the pass ended after {num_found} of {num_samples} samples")


def use_cores(count: int) -> None:
    """This process and its workers on `count` cores, and torch's own operations on one thread each."""
    import torch

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    torch.set_num_threads(1)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    contender, setting = Contender(**json.loads(sys.argv[1])), Setting.from_json(json.loads(sys.argv[2]))
    use_cores(setting.num_cores)
    with closing(Host(contender, setting)) as host:
        for line in sys.stdin:
            try:
                answer = host.answer(json.loads(line))
            except Exception as error:
                answer = {"error": str(error), "type": type(error).__name__, "is_missing": _is_missing(error)}
            print(json.dumps(answer), file=answers, flush=True)


def _end_with_parent(parent: int) -> None:
    """A parent that is killed closes this process's input, but a loader in the middle of a pass does not see that."""
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    kill_workers(descendants(os.getpid()))
    os._exit(1)


def _is_missing(error: Exception) -> bool:
    """Whether something is not installed: an import that failed, or the message about DALI made of one."""
    return isinstance(error, ModuleNotFoundError) or isinstance(error.__cause__, ModuleNotFoundError)


if __name__ == "__main__":
    main()
