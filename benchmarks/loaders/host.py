"""One loader in a child process: opened, checked against the reference, timed (see `benchmarks/harness/child.py`).

Threads, settings and libraries are then its own: OpenCV's and torch's number of threads, FFmpeg on the library path, a
start method of multiprocessing.
"""

import gc
import shutil
import time
from collections.abc import Iterable
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.harness import page_cache
from benchmarks.harness.child_main import use_cores
from benchmarks.loaders.registry import Contender
from benchmarks.loaders.setting import Batch, Batches, Loader, Setting

__all__ = ["Host", "open_host"]

SETTLE_S = 0.25
"""After the passes of a repeat, so that a loader which works ahead does not slow down the next one."""
MAX_PASSES = 100
"""Of a repeat: with a few samples, what is done between passes takes longer than they do."""


def open_host(contender: dict[str, Any], setting: dict[str, Any]) -> "Host":
    """Return the host that answers a parent's requests, both given as JSON."""
    host = Host(Contender(**contender), Setting.from_json(setting))
    use_cores(setting["num_cores"])
    return host


class Host:
    """One loader. Each public method answers a request with a dict; `close` ends the loader."""

    def __init__(self, contender: Contender, setting: Setting) -> None:
        self.contender, self.setting = contender, setting
        self.loader: Loader | None = None
        self._num_passes = 0

    def open(self, samples: str) -> dict[str, Any]:
        """Write the loader's own data from the plain files, or copy it, where it is missing; then open the loader."""
        module, folder = import_module(self.contender.module), self.setting.folder
        if self.contender.writer:
            images = [path.read_bytes() for path in sorted(Path(samples, "files").glob("*.jpg"))]
            getattr(module, self.contender.writer)(self.setting, images)
        elif self.contender.copy_of:
            shutil.copytree(Path(samples, self.contender.copy_of), folder)
        self.loader = getattr(module, self.contender.opener)(self.setting)
        return {}

    def check(self) -> dict[str, Any]:
        """Compare a whole pass with the reference."""
        from benchmarks.loaders.agreement import check_pass

        with closing(self.start()) as batches:
            return {"differences": check_pass(batches, self.setting)}

    def time(self, is_cold: bool, least_s: float) -> dict[str, Any]:
        """Time as many passes as take `least_s` seconds together.

        resident_ratio: share of the data in memory at their start, the smallest if warm, the largest if cold. A cold
        pass whose data stayed in memory is not timed: num_passes is 0.
        """
        seconds, num_passes, ratios = 0.0, 0, []
        while not num_passes or (seconds < least_s and num_passes < MAX_PASSES):
            batches, resident_ratio = self._cold_start() if is_cold else self._warm_start()
            ratios.append(resident_ratio)
            with closing(batches):
                if is_cold and resident_ratio > page_cache.MAX_RESIDENT_RATIO:
                    return {"seconds": 0.0, "num_passes": 0, "resident_ratio": resident_ratio}
                seconds += _seconds(batches, len(self.setting.boxes()))
            num_passes += 1
        time.sleep(SETTLE_S)
        return {"seconds": seconds, "num_passes": num_passes, "resident_ratio": (max if is_cold else min)(ratios)}

    def start(self) -> Batches:
        """Begin the next pass."""
        assert self.loader is not None
        self._num_passes += 1
        return self.loader.start(self._num_passes - 1)

    def close(self) -> None:
        if self.loader is not None:
            self.loader.close()
            self.loader = None

    def _warm_start(self) -> tuple[Batches, float]:
        # Nothing comes between the start of a pass and its timing: a loader that works ahead would gain by it.
        files = page_cache.files_below(self.setting.folder)
        page_cache.read_all(files)
        resident_ratio = page_cache.resident_ratio(files)
        return self.start(), resident_ratio

    def _cold_start(self) -> tuple[Batches, float]:
        assert self.loader is not None
        self.loader.let_go()
        gc.collect()
        files = page_cache.files_below(self.setting.folder)
        batches = self.start()
        return batches, page_cache.drop(files)  # last, because to start a pass may mean to look into files


def _seconds(batches: Iterable[Batch], num_samples: int) -> float:
    """Return the seconds until all samples of the pass are there; what the loader does afterwards is not in them."""
    num_found, start_s = 0, time.perf_counter()
    for batch in batches:
        num_found += len(batch.rows)
        if num_found >= num_samples:
            return time.perf_counter() - start_s
    raise RuntimeError(f"the pass ended after {num_found} of {num_samples} samples")
