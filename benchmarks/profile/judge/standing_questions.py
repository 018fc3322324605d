"""Answers to common questions about a pipeline, from its measurements. They are no advice: nothing has to change.

Would worker processes be faster than threads? Would other files, plain ones or other shards, be read faster? Is the
DCT-domain decoder of any use here?
"""

import statistics
from typing import Any

import numpy as np

from benchmarks.profile.judge.advice import MIN_GAIN
from benchmarks.profile.judge.measurements import Measurements
from benchmarks.profile.measure.costs import source_of
from benchmarks.profile.measure.windows import Bench, rates_in_turns
from benchmarks.profile.model.queueing import PipelineModel
from benchmarks.profile.model.simulation import simulate
from benchmarks.profile.profile_config import ProfileConfig, changed
from pipelines.base.machine import num_cores
from pipelines.build import PipelineConfig, build_pipeline
from pipelines.decode.choice import choose_backend
from pipelines.decode.jpeg_reduction import MIN_SHRINKING, jpeg_reduction
from pipelines.tasks import TASKS
from training.parallel import choose_device

__all__ = ["in_threads", "reduced_decode", "standing_questions", "storage", "worker_processes"]

NUM_CROPS = 256
NUM_REPEATS = 3
WINDOW_S = 0.8


def standing_questions(measured: Measurements) -> tuple[tuple[str, str], ...]:
    """Return (question, answer) of what the measurements can answer."""
    config = measured.config
    found = [("plain files, or other shards", storage(measured.model))]
    if "decode image" in measured.costs:
        backend = choose_backend(config.pipeline.backend, choose_device(config.device)).name
        sides_px = crop_sides_px(config.pipeline)
        found.append(("decoding in the DCT domain", reduced_decode(sides_px, config.pipeline.canvas_px, backend)))
    return tuple(found)


def storage(model: PipelineModel) -> str:
    """Say what storing samples in another way could give at most: what free reading would."""
    # Reading that costs nothing is the bound of all ways of storing, so that none has to be tried.
    free = model.with_feeds(read_s=0.0, waits_s=(0.0,))
    gain = simulate(free).samples_per_s / simulate(model).samples_per_s
    share = model.cpu_by_stage()["read"] / max(model.cpu_s, 1e-12)
    most = f"reading has {share:.1%} of the CPU time; were it free, x {gain:.2f}"
    return f"{most}: no way of storing them helps" if gain < MIN_GAIN else f"{most} is the most that storing can give"


def reduced_decode(sides_px: list[int], canvas_px: int, backend: str) -> str:
    """Say whether JPEGs are decoded at half size or less. sides_px: of crops, as they were drawn."""
    ratio = float(np.mean([jpeg_reduction(side_px, canvas_px) > 1 for side_px in sides_px]))
    least_px = MIN_SHRINKING * 2 * canvas_px
    where = f"{ratio:.0%} of the crops have the {least_px} px a side that halving takes"
    if not ratio:
        return f"of no use: {where}"
    if backend == "opencv":
        return f"{where}; of those, JPEGs are decoded at reduced size"
    return f"{where}; backend {backend} decodes all of them whole, opencv would not"


def crop_sides_px(config: PipelineConfig) -> list[int]:
    """Return sides of the first crops of the plan."""
    names = [name for name in config.tasks if TASKS[name].source == "image"]
    with build_pipeline(config, seed=0) as pipeline:
        source = source_of(pipeline, "image")
        batches = range(-(-NUM_CROPS // config.batch_size))
        boxes_N4 = np.concatenate([source.draw(source.plan.picks(batch), names).common["box"] for batch in batches])
        return [int(side_px) for side_px in boxes_N4[:, 2] - boxes_N4[:, 0]]


def in_threads(config: ProfileConfig) -> ProfileConfig:
    """Return the config with threads in place of worker processes, at least as many. The batches are the same.

    The rest of a profile measures threads, because only their stages are seen one by one."""
    count = config.pipeline.num_workers
    threads = max(config.pipeline.num_threads or num_cores(), count)
    return changed(config, {"pipeline.num_workers": 0, "pipeline.num_threads": threads}) if count else config


def worker_processes(config: ProfileConfig) -> str:
    """Try the pipeline alone in turns: with the processes it is set to, or one a core, and in threads. It must be
    tried: which is faster depends on how often threads wait for Python's lock."""
    count = config.pipeline.num_workers or num_cores()
    # As in a first epoch: targets that one process has cached, the others do not have.
    settings: dict[str, Any] = {
        f"pipeline.tasks.{name}.remembered_clips": 0
        for name, task in config.pipeline.tasks.items()
        if hasattr(task, "remembered_clips")
    }
    alone = changed(config, {"train": None, "device_samples_per_s": None, **settings})
    # In turns and without a consumer, which would hide the difference behind its own speed.
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
