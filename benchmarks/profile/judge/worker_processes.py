"""Worker processes beside threads, tried on the pipeline itself.

Which is faster depends on how often threads wait for Python's lock, and no measurement of single stages tells that.
"""

import statistics
from typing import Any

from benchmarks.profile.judge.advice import MIN_GAIN
from benchmarks.profile.measure.windows import Bench, rates_in_turns
from benchmarks.profile.profile_config import ProfileConfig, changed
from pipelines.base.machine import num_cores

__all__ = ["in_threads", "try_workers", "worded"]

NUM_REPEATS = 3
WINDOW_S = 0.8


def in_threads(config: ProfileConfig) -> ProfileConfig:
    """Return the config with threads in place of worker processes, at least as many. The batches are the same.

    The rest of a profile measures threads, because only their stages are seen one by one."""
    pipeline = config.pipeline
    count = max(pipeline.num_workers, *(one.num_workers or 0 for one in pipeline.placement.values()), 0)
    threads = max(pipeline.num_threads or num_cores(), count)
    in_threads = pipeline.in_threads().model_copy(update={"num_threads": threads})
    return config.model_copy(update={"pipeline": in_threads}) if count else config


def try_workers(config: ProfileConfig) -> str:
    """Run the pipeline alone in turns, with the processes it is set to, or one a core, and in threads; return what came
    of it in a sentence."""
    count = config.pipeline.num_workers or num_cores()
    # As in a first epoch: targets that one process has cached, the others do not have.
    settings: dict[str, Any] = {
        f"pipeline.tasks.{name}.remembered_clips": 0
        for name, task in config.pipeline.tasks.items()
        if hasattr(task, "remembered_clips")
    }
    # Without a consumer, which would hide the difference behind its own speed.
    alone = changed(config, {"train": None, "device_samples_per_s": None, **settings})
    workers = changed(alone, {"pipeline.num_workers": count})
    with Bench(in_threads(alone), has_consumer=False) as one, Bench(workers, has_consumer=False) as other:
        rates = rates_in_turns({"threads": one, "workers": other}, NUM_REPEATS, WINDOW_S)
    return worded(count, statistics.median(rates["threads"]), statistics.median(rates["workers"]))


def worded(count: int, threads_per_s: float, workers_per_s: float) -> str:
    gain = workers_per_s / threads_per_s
    told = f"tried without a consumer: {workers_per_s:,.0f} samples/s, {threads_per_s:,.0f} in threads"
    if gain < MIN_GAIN:
        return f"{told}: no use here"
    return f"{told}: num_workers: {count} gives x {gain:.2f} where the pipeline is the limit"
