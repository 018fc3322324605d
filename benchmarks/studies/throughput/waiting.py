"""Measure how long a trainer waits for data, and from which speed of the device on the pipeline is the limit.

    python -m benchmarks.studies.throughput.waiting --out waiting.json   some minutes; --seconds 1 for a look

First a real trainer (a small trunk on this machine). Then, at the paper's sizes, a simulated device: it takes a step,
is busy for samples / rate seconds, during which this machine's cores all work for the pipeline as they would beside a
GPU, and takes the next. At a rate of 0 it is never busy: what then comes per second is what the pipeline can give.
Shards are made in a temporary folder, or give --shards.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from benchmarks.harness.spread import spread_of
from benchmarks.harness.study import Study
from benchmarks.harness.temporary import temporary_folder
from benchmarks.harness.turns import turns
from benchmarks.profile.measure.consumers import sleep_until
from benchmarks.studies.throughput.made_shards import make_shards
from pipelines.build import Pipeline, PipelineConfig, build_pipeline
from pipelines.decode.base import thread_count
from pipelines.run.stage_stats import bottleneck
from training.config import PretrainConfig
from training.journal import LOG_NAME, read_log
from training.loop import pretrain

__all__ = ["STUDY", "Consumed", "WaitingOptions", "consume", "shown", "simulate"]

TASKS: dict[str, dict[str, Any]] = {"relative_position": {}, "colorization": {}, "exemplar": {}}
TRAINER_CANVAS_PX = 96
SETTLED_WAIT_RATIO = 0.05
"""A device that waits less than this is not limited by its data."""
RATES_PER_S = (100, 250, 500, 1000, 2000, 5000, 10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingOptions:
    """The pipeline, the simulated devices, and how long each is measured."""

    shards: Annotated[Path | None, "folder of image shards; left out, some are made"] = None
    canvas_px: Annotated[int, "side of a canvas"] = 256
    batch_size: Annotated[int, "samples of a step"] = 64
    prefetch_batches: Annotated[int, "steps held ready"] = 4
    rates_per_s: Annotated[tuple[int, ...], "samples/s of a simulated device; may be repeated", "--rate"] = RATES_PER_S
    num_repeats: Annotated[int, "of every rate"] = 5
    seconds: Annotated[float, "of every rate and repeat"] = 4.0
    train_steps: Annotated[int, "of the real trainer; 0: none"] = 60
    num_workers: Annotated[int, "processes for the simulated devices' pipeline; 0: threads"] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumed:
    """Rate at which one device got samples. wait_ratio: share of the time in which it waited for data, 0 to 1."""

    samples_per_s: float
    wait_ratio: float


def consume(pipeline: Pipeline, rate_per_s: int, seconds: float, batch_size: int) -> Consumed:
    """Act as a device of that rate for some time, once the steps held ready are used up."""
    # Used up first: steps that were made during a pause would flatter the pipeline.
    for _ in range(pipeline.memory.prefetch_batches + 1):
        next(pipeline)
    step_s = batch_size / rate_per_s if rate_per_s else 0.0
    start_s = now_s = time.perf_counter()
    waited_s, num_samples = 0.0, 0
    while now_s - start_s < seconds:
        next(pipeline)
        got_s = time.perf_counter()
        waited_s += got_s - now_s
        num_samples += batch_size
        sleep_until(got_s + step_s)
        now_s = time.perf_counter()
    return Consumed(samples_per_s=num_samples / (now_s - start_s), wait_ratio=waited_s / (now_s - start_s))


def measure(options: WaitingOptions) -> dict[str, Any]:
    """Return what a real trainer waits, then what simulated devices wait."""
    results: dict[str, Any] = {}
    with temporary_folder() as folder:
        shards = options.shards or make_shards(folder, num_images=512, num_clips=1)
        if options.train_steps:
            results["trainer"] = train(shards, folder, options.train_steps)
        results["simulated"] = simulate(shards, options)
    return results


def simulate(shards: Path, options: WaitingOptions) -> dict[str, Any]:
    """Measure all rates in turns on one pipeline; rate 0 is what the pipeline can give."""
    sizes = {name: getattr(options, name) for name in ("canvas_px", "batch_size", "prefetch_batches", "num_workers")}
    config = PipelineConfig.model_validate({"images": shards, "tasks": TASKS, **sizes})
    found: dict[str, list[Consumed]] = {str(rate): [] for rate in (0, *options.rates_per_s)}
    # 1. One pipeline for all rates, open all the time: a new one would begin with an empty queue.
    with build_pipeline(config, seed=0) as pipeline:
        for _, rate in turns(found, options.num_repeats):
            found[rate].append(consume(pipeline, int(rate), options.seconds, options.batch_size))
        limit, memory = bottleneck(pipeline.stage_stats()), pipeline.memory
    # 2. Compared with rate 0 of the same turns: the machine is not the same an hour later.
    capacity = spread_of([one.samples_per_s for one in found["0"]])
    num_threads = options.num_workers or thread_count(config.num_threads)
    devices = [_device(rate, found[str(rate)], capacity.median, num_threads) for rate in options.rates_per_s]
    kept_up = [one["rate_per_s"] for one in devices if one["wait_ratio"] < SETTLED_WAIT_RATIO]
    return {
        "capacity_samples_per_s": capacity.median,
        "capacity_values": capacity.repeats,
        "num_threads": num_threads,
        "bottleneck": limit,
        "step_bytes": memory.step_bytes,
        "peak_bytes": memory.peak_bytes,
        "devices": devices,
        "limit_samples_per_s": max(kept_up, default=0),  # the fastest device that hardly waits; 0 if all wait
    }


def _device(rate_per_s: int, found: list[Consumed], capacity_per_s: float, num_threads: int) -> dict[str, Any]:
    """Return the row of a device. expected_wait_ratio: its wait if nothing but the mean rate counted."""
    waits = spread_of([one.wait_ratio for one in found])
    return {
        "rate_per_s": rate_per_s,
        "wait_ratio": waits.median,
        "wait_ratio_values": waits.repeats,
        "samples_per_s": spread_of([one.samples_per_s for one in found]).median,
        "expected_wait_ratio": max(0.0, 1 - capacity_per_s / rate_per_s),
        "cores_to_keep_up": rate_per_s / capacity_per_s * num_threads,
    }


def train(shards: Path, folder: Path, num_steps: int) -> dict[str, Any]:
    """Train a small trunk beside its pipeline; return the share of time that it waits, for each line of its log."""
    config = PretrainConfig.model_validate(
        {
            "pipeline": {"images": shards, "tasks": TASKS, "canvas_px": TRAINER_CANVAS_PX, "batch_size": 32},
            "trunk": {"depth": 18, "width": 0.25},
            "heads": {"preset": "small"},
            "budget": {"steps": num_steps},
            "log_every_steps": 10,
        }
    )
    pretrain(config, folder / "run", device="cpu")
    lines = read_log(folder / "run" / LOG_NAME)[1:]  # the first one holds the start of everything
    waits = spread_of([line["data_wait_ratio"] for line in lines])
    return {
        "config": config.model_dump(mode="json", serialize_as_any=True),
        "wait_ratio": waits.median,
        "wait_ratio_values": waits.repeats,
        "samples_per_s": spread_of([line["samples_per_s"]["colorization"] for line in lines]).median,
    }


def shown(results: dict[str, Any]) -> Iterator[str]:
    """Yield the results as lines to print."""
    if one := results.get("trainer"):
        yield f"trainer: {one['samples_per_s']:.0f} samples/s, waits {one['wait_ratio']:.1%} of its time"
    simulated = results["simulated"]
    capacity_per_s, limit = simulated["capacity_samples_per_s"], simulated["bottleneck"]
    yield f"the pipeline can give {capacity_per_s:.0f} samples/s; limited by {limit}"
    for row in simulated["devices"]:
        yield (
            f"device of {row['rate_per_s']} samples/s: waits {row['wait_ratio']:.1%} "
            f"(expected {row['expected_wait_ratio']:.1%}); {row['cores_to_keep_up']:.1f} such cores would keep up"
        )


STUDY = Study(
    module="benchmarks.studies.throughput.waiting",
    kind="throughput_waiting",
    label="share of time spent waiting for data",
    description=__doc__,
    options=WaitingOptions,
    measure=measure,
    lines=shown,
    constants={"tasks": TASKS},
    inputs={"made shards": "benchmarks/studies/throughput/made_shards.py"},
)

if __name__ == "__main__":
    STUDY.main()
