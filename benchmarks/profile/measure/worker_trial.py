"""Would worker processes be faster than threads here? Tried, because it hangs on how often threads wait for Python.

Everything else of a profile is about threads of one process, whose stages can be told apart; the batches are the same.
"""

import statistics
from typing import Any

from benchmarks.profile.measure.windows import Bench
from benchmarks.profile.profile_config import ProfileConfig, changed
from pipelines.base.machine import num_cores

__all__ = ["in_threads", "tried_workers"]

NUM_REPEATS = 3
WINDOW_S = 0.8
MIN_GAIN = 1.03


def in_threads(config: ProfileConfig) -> ProfileConfig:
    """The same with threads in place of worker processes, at least as many."""
    count = config.pipeline.num_workers
    if not count:
        return config
    threads = config.pipeline.num_threads or num_cores()
    return changed(config, {"pipeline.num_workers": 0, "pipeline.num_threads": max(threads, count)})


def tried_workers(config: ProfileConfig) -> str:
    """The pipeline alone, with as many processes as are asked for, or one a core, and in threads, in turns."""
    count = config.pipeline.num_workers or num_cores()
    # As in a first epoch: what a process remembers, the others do not.
    is_new: dict[str, Any] = {"train": None, "device_samples_per_s": None}
    for name, task in config.pipeline.tasks.items():
        if hasattr(task, "remembered_clips"):
            is_new[f"pipeline.tasks.{name}.remembered_clips"] = 0
    alone = changed(config, is_new)
    threads, workers = in_threads(alone), changed(alone, {"pipeline.num_workers": count})
    rates: dict[bool, list[float]] = {False: [], True: []}
    with Bench(threads, is_taken=False) as one, Bench(workers, is_taken=False) as other:
        for _ in range(NUM_REPEATS):
            for is_other, bench in ((False, one), (True, other)):
                rates[is_other].append(bench.window(WINDOW_S).samples_per_s)
                bench.pause()
    return worded(count, statistics.median(rates[False]), statistics.median(rates[True]))


def worded(count: int, threads_per_s: float, workers_per_s: float) -> str:
    gain = workers_per_s / threads_per_s
    told = f"tried with nobody taking the steps: {workers_per_s:,.0f} samples/s, {threads_per_s:,.0f} in threads"
    if gain < MIN_GAIN:
        return f"{told}: no use here"
    return f"{told}: num_workers: {count} gives x {gain:.2f} where the pipeline is the limit"
