"""How much of its time does a trainer wait for data, and from which speed of the device on is the pipeline the limit?

    python -m benchmarks.studies.throughput.waiting --out waiting.json   some minutes; --seconds 1 for a look

First a real trainer (a small trunk on this machine). Then, at the paper's sizes, a simulated device: it takes a step,
is busy for samples / rate seconds, during which this machine's cores all work for the pipeline as they would beside a
GPU, and takes the next. At a rate of 0 it is never busy: what then comes per second is what the pipeline can give.
Rates take turns, several times over. Shards are made in a temporary folder, or give --shards.
"""

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.results.record import Record, environment, now_utc, write_json
from benchmarks.studies.throughput.made_shards import make_shards
from pipelines.build import Pipeline, PipelineConfig, build_pipeline
from pipelines.decode.base import thread_count
from pipelines.run.stage_stats import bottleneck
from training.config import PretrainConfig
from training.journal import LOG_NAME, read_log
from training.loop import pretrain

__all__ = ["Consumed", "Options", "consume", "main", "simulate"]

TASKS: dict[str, dict[str, Any]] = {"relative_position": {}, "colorization": {}, "exemplar": {}}
TRAINER_CANVAS_PX = 96
SETTLED_WAIT_RATIO = 0.05
"""A device that waits less than this is not limited by its data."""
SPIN_S = 5e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """rates_per_s: samples per second that the simulated devices would take. num_workers: processes that make the
    simulated devices' batches, 0 for threads."""

    canvas_px: int = 256
    batch_size: int = 64
    prefetch_batches: int = 4
    rates_per_s: tuple[int, ...] = (100, 250, 500, 1000, 2000, 5000, 10_000)
    num_repeats: int = 5
    seconds: float = 4.0
    train_steps: int = 60
    num_workers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumed:
    """What one device got. wait_ratio: share of the time in which it waited for data, 0 to 1."""

    samples_per_s: float
    wait_ratio: float


def consume(pipeline: Pipeline, rate_per_s: int, seconds: float, batch_size: int) -> Consumed:
    """Be a device of that rate for some time, from the moment on when the steps held ready are used up."""
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
        _busy_until(got_s + step_s)
        now_s = time.perf_counter()
    return Consumed(samples_per_s=num_samples / (now_s - start_s), wait_ratio=waited_s / (now_s - start_s))


def _busy_until(end_s: float) -> None:
    """Sleep in pieces: one long sleep ends late by up to milliseconds on a busy machine, which is a whole step."""
    while (left_s := end_s - time.perf_counter()) > 0:
        time.sleep(left_s / 2 if left_s > SPIN_S else 0.0)


def simulate(shards: Path, options: Options) -> dict[str, Any]:
    """All rates in turn on one pipeline; rate 0 is what the pipeline can give."""
    config = PipelineConfig(
        images=shards,
        tasks=TASKS,
        canvas_px=options.canvas_px,
        batch_size=options.batch_size,
        prefetch_batches=options.prefetch_batches,
        num_workers=options.num_workers,
    )
    found: dict[int, list[Consumed]] = {rate: [] for rate in (0, *options.rates_per_s)}
    with build_pipeline(config, seed=0) as pipeline:
        for _ in range(options.num_repeats):
            for rate, rows in found.items():
                rows.append(consume(pipeline, rate, options.seconds, options.batch_size))
        limit, memory = bottleneck(pipeline.stage_stats()), pipeline.memory
    capacity_per_s = statistics.median(row.samples_per_s for row in found[0])
    num_threads = options.num_workers or thread_count(config.num_threads)
    return {
        "capacity_samples_per_s": capacity_per_s,
        "capacity_values": [row.samples_per_s for row in found[0]],
        "num_threads": num_threads,
        "bottleneck": limit,
        "step_bytes": memory.step_bytes,
        "peak_bytes": memory.peak_bytes,
        "devices": [_row(rate, found[rate], capacity_per_s, num_threads) for rate in options.rates_per_s],
        "limit_samples_per_s": _limit(found, options),
    }


def _row(rate_per_s: int, rows: list[Consumed], capacity_per_s: float, num_threads: int) -> dict[str, Any]:
    """expected_wait_ratio: of a device that is never kept waiting by anything but the mean rate."""
    return {
        "rate_per_s": rate_per_s,
        "wait_ratio": statistics.median(row.wait_ratio for row in rows),
        "wait_ratio_values": [row.wait_ratio for row in rows],
        "samples_per_s": statistics.median(row.samples_per_s for row in rows),
        "expected_wait_ratio": max(0.0, 1 - capacity_per_s / rate_per_s),
        "cores_to_keep_up": rate_per_s / capacity_per_s * num_threads,
    }


def _limit(found: dict[int, list[Consumed]], options: Options) -> int:
    """The fastest of the devices that hardly waits; 0 if all wait."""
    kept_up = [
        rate
        for rate in options.rates_per_s
        if statistics.median(row.wait_ratio for row in found[rate]) < SETTLED_WAIT_RATIO
    ]
    return max(kept_up, default=0)


def train(shards: Path, folder: Path, options: Options) -> dict[str, Any]:
    """A small trunk on this machine, beside its pipeline: the share of time that it waits, for each line of its log."""
    config = PretrainConfig.model_validate(
        {
            "pipeline": {"images": shards, "tasks": TASKS, "canvas_px": TRAINER_CANVAS_PX, "batch_size": 32},
            "trunk": {"depth": 18, "width": 0.25},
            "heads": {"preset": "small"},
            "budget": {"steps": options.train_steps},
            "log_every_steps": 10,
        }
    )
    pretrain(config, folder / "run", device="cpu")
    lines = read_log(folder / "run" / LOG_NAME)[1:]  # the first one holds the start of everything
    ratios = [line["data_wait_ratio"] for line in lines]
    return {
        "config": config.model_dump(mode="json", serialize_as_any=True),
        "wait_ratio": statistics.median(ratios),
        "wait_ratio_values": ratios,
        "samples_per_s": statistics.median(line["samples_per_s"]["colorization"] for line in lines),
    }


def shown(results: dict[str, Any]) -> Iterator[str]:
    """The results as lines to print."""
    if "trainer" in results:
        one = results["trainer"]
        yield f"trainer: {one['samples_per_s']:.0f} samples/s, waits {one['wait_ratio']:.1%} of its time"
    simulated = results["simulated"]
    capacity_per_s, limit = simulated["capacity_samples_per_s"], simulated["bottleneck"]
    yield f"the pipeline can give {capacity_per_s:.0f} samples/s; limited by {limit}"
    for row in simulated["devices"]:
        yield (
            f"device of {row['rate_per_s']} samples/s: waits {row['wait_ratio']:.1%} "
            f"(expected {row['expected_wait_ratio']:.1%}); {row['cores_to_keep_up']:.1f} such cores would keep up"
        )


def main() -> None:
    defaults = Options()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, help="folder of image shards; left out, some are made")
    parser.add_argument("--out", type=Path, default=Path("waiting.json"))
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="of each device and repeat")
    parser.add_argument("--repeats", type=int, default=defaults.num_repeats)
    parser.add_argument("--train-steps", type=int, default=defaults.train_steps, help="0: no trainer")
    parser.add_argument("--workers", type=int, default=defaults.num_workers, help="0: threads")
    given = parser.parse_args()
    options = Options(
        seconds=given.seconds, num_repeats=given.repeats, train_steps=given.train_steps, num_workers=given.workers
    )
    start_s, now = time.monotonic(), now_utc()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        shards = given.shards or make_shards(Path(folder), num_images=512, num_clips=1)
        if options.train_steps:
            results["trainer"] = train(shards, Path(folder), options)
        results["simulated"] = simulate(shards, options)
    print("\n".join(shown(results)))
    config = asdict(options) | {"tasks": TASKS, "shards": str(given.shards or "made")}
    record = Record(
        kind="throughput_waiting",
        key=hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16],
        label="share of time spent waiting for data",
        date=now,
        seconds=time.monotonic() - start_s,
        environment=environment(),
        config=config,
        inputs={"shards": str(given.shards or "made by benchmarks/studies/throughput/made_shards.py")},
        results=results,
    )
    write_json(given.out, asdict(record))
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
