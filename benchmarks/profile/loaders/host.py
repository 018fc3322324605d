"""One loader in a process of its own: requests in JSON, a line each, from standard input; answers the same way.

    python -m benchmarks.profile.loaders.host NAME SETTING      (started by hosted.py)

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
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.profile.loaders.contenders import CONTENDERS
from benchmarks.profile.loaders.setting import Batch, Loader, Setting

__all__ = ["MAX_RESIDENT_RATIO", "Host", "main"]

MAX_RESIDENT_RATIO = 0.02
"""Of a data set that counts as dropped. An index or a page that somebody else holds may stay."""


class Host:
    """Answers requests; `close` ends the loader."""

    def __init__(self, name: str, setting: Setting) -> None:
        self._contender, self._setting = CONTENDERS[name], setting
        self._loader: Loader | None = None
        self._num_passes = 0

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """open, check or time; see the methods."""
        action = {"open": self.open, "check": self.check, "time": self.time}[request.pop("do")]
        return action(**request)

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
        from benchmarks.profile.loaders.agreement import check_pass

        return {"differences": check_pass(self._start(), self._setting)}

    def time(self, is_cold: bool) -> dict[str, Any]:
        """Seconds of one pass, and the share of the data that was in memory at its start. Cold and yet in memory is
        not timed: seconds is None."""
        from benchmarks.profile.loaders import page_cache

        assert self._loader is not None
        files = page_cache.files_below(self._setting.folder)
        if is_cold:
            self._loader.let_go()
            gc.collect()
        else:
            page_cache.read_all(files)
        batches = self._start()
        if is_cold:
            page_cache.drop(files)
        resident_ratio = page_cache.resident_ratio(files)
        if is_cold and resident_ratio > MAX_RESIDENT_RATIO:
            return {"seconds": None, "resident_ratio": resident_ratio}
        return {"seconds": _consume(batches, len(self._setting.boxes())), "resident_ratio": resident_ratio}

    def _start(self) -> Iterator[Batch]:
        assert self._loader is not None
        self._num_passes += 1
        return self._loader.start(self._num_passes - 1)

    def close(self) -> None:
        if self._loader is not None:
            self._loader.close()
            self._loader = None


def _consume(batches: Any, num_samples: int) -> float:
    """Seconds until all samples of the pass are there. What the loader does afterwards is not in them."""
    num_found = 0
    with closing(batches):
        start_s = time.perf_counter()
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
    name, setting = sys.argv[1], Setting.from_json(json.loads(sys.argv[2]))
    use_cores(setting.num_cores)
    with closing(Host(name, setting)) as host:
        for line in sys.stdin:
            try:
                answer = host.answer(json.loads(line))
            except Exception as error:
                answer = {"error": str(error), "type": type(error).__name__, "is_missing": _is_missing(error)}
            print(json.dumps(answer), file=answers, flush=True)


def _is_missing(error: Exception) -> bool:
    """Whether something is not installed: an import that failed, or the message about DALI made of one."""
    return isinstance(error, ImportError) or isinstance(error.__cause__, ImportError)


if __name__ == "__main__":
    main()
