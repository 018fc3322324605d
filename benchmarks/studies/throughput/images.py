"""All three image tasks from one decode, beside the limit and beside what people use today. Writes one JSON.

    python -m benchmarks.studies.throughput.images --photos FOLDER --out images.json

500 x 375 JPEGs of quality 90, canvas 256, patches 96, the paper's geometry. First the outputs of the pipeline with both
backends and of the plain way are compared, and nothing is timed if they differ. Then all contenders take turns in one
process on the same cores, each open all the time and idle while another runs.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.loaders.contenders.with_dali import dali_loader
from benchmarks.loaders.contenders.with_spdl import restart_with_ffmpeg, spdl_loader
from benchmarks.results.record import Record, environment, now_utc, write_json
from benchmarks.results.statistics import summarize
from benchmarks.studies.throughput.image_agreement import check_agreement, check_same_bits
from benchmarks.studies.throughput.photos import write_jpegs
from benchmarks.studies.throughput.plain_loaders import CANVAS_PX, plain_loader, webdataset_loader
from pipelines.build import PipelineConfig, build_pipeline

__all__ = ["Options", "main", "measure"]

KIND = "throughput_images"
LIMIT = "dali decode"
TASKS: dict[str, dict[str, Any]] = {"relative_position": {}, "colorization": {}, "exemplar": {}}
VERSIONS = ("nvidia-dali-cuda130", "nvidia-dali-cuda120", "webdataset", "spdl", "spdl-io", "pillow", "scikit-image")
WARM_UP_BATCHES = 6
"""More than any contender holds ready, so that what was prepared while others ran is not counted."""
SETTLE_S = 1.0
"""In which the contender before, no longer asked, fills its queue."""
# (what, compared with what, least ratio of samples per second; the goal).
TARGETS = (
    ("ours opencv workers", LIMIT, 0.45, 0.6),
    ("ours opencv", LIMIT, 0.45, 0.6),
    ("ours dali", LIMIT, 0.45, 0.6),
    ("ours opencv", "plain pytorch", 8.0, 8.0),
    ("ours opencv", "webdataset", 8.0, 8.0),
    ("ours opencv workers", "ours opencv", 1.0, 1.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """num_samples: made by each contender in each repeat; the plain ways, ten times slower, make a quarter of it."""

    num_images: int = 1024
    num_samples: int = 4096
    num_repeats: int = 7
    batch_size: int = 64
    num_cores: int = 2


Batches = Generator[Any, None, None]
Contender = Callable[[], Batches]
SLOW = {"plain pytorch", "webdataset"}


def contenders(images: Path, shards: Path, options: Options) -> dict[str, Contender]:
    """By name: what opens an endless iterator of batches."""
    encoded = [path.read_bytes() for path in sorted(images.glob("*.jpg"))]
    size, cores = options.batch_size, options.num_cores
    return {
        LIMIT: lambda: dali_loader(encoded, size, cores, None),
        "ours opencv": lambda: _ours(config_of(shards, "opencv", options)),
        "ours opencv workers": lambda: _ours(config_of(shards, "opencv", options, num_workers=cores)),
        "ours dali": lambda: _ours(config_of(shards, "dali", options)),
        "plain pytorch": lambda: plain_loader(images, size, cores),
        "webdataset": lambda: webdataset_loader(shards, size, cores),
        "spdl decode + resize": lambda: spdl_loader(encoded, size, cores, CANVAS_PX),
        "dali decode + resize": lambda: dali_loader(encoded, size, cores, CANVAS_PX),
    }


def _ours(config: PipelineConfig) -> Batches:
    with build_pipeline(config, seed=0) as pipeline:
        yield from pipeline


def config_of(shards: Path, backend: str, options: Options, *, num_workers: int = 0) -> PipelineConfig:
    """`num_workers`: processes; 0 for threads of this one."""
    return PipelineConfig.model_validate(
        {
            "images": shards,
            "tasks": TASKS,
            "canvas_px": CANVAS_PX,
            "batch_size": options.batch_size,
            "backend": backend,
            "num_threads": options.num_cores,
            "num_workers": num_workers,
        }
    )


def measure(images: Path, shards: Path, options: Options) -> dict[str, Any]:
    """All results. Raises DataError if the contenders do not make the same."""
    agreement = check_agreement(shards, {name: config_of(shards, name, options) for name in ("opencv", "dali")})
    check_same_bits(*(config_of(shards, "opencv", options, num_workers=count) for count in (0, options.num_cores)))
    with ExitStack() as stack:
        opened, missing = _open(contenders(images, shards, options), stack)
        rates: dict[str, list[float]] = {name: [] for name in opened}
        for repeat in range(options.num_repeats):
            for name, batches in opened.items():
                rates[name].append(_samples_per_s(batches, name, options))
                print(f"repeat {repeat + 1}: {name}: {rates[name][-1]:,.0f} samples/s", flush=True)
    return {
        "image_bytes": statistics.mean(path.stat().st_size for path in images.glob("*.jpg")),
        "agreement": agreement,
        "samples_per_s": {name: _summary(values) for name, values in rates.items()},
        "ratios": [_ratio(rates, *target) for target in TARGETS if {target[0], target[1]} <= set(rates)],
        "not_measured": missing,
    }


def _open(found: dict[str, Contender], stack: ExitStack) -> tuple[dict[str, Iterator[Any]], dict[str, str]]:
    """Those that give a first batch, and why the others do not."""
    opened: dict[str, Iterator[Any]] = {}
    missing: dict[str, str] = {}
    for name, contender in found.items():
        try:
            batches = stack.enter_context(closing(contender()))
            next(batches)
            opened[name] = batches
        except (ImportError, RuntimeError) as error:
            missing[name] = " ".join(str(error).split())[:300]
            print(f"not measured: {name}: {missing[name]}", flush=True)
    return opened, missing


def _samples_per_s(batches: Iterator[Any], name: str, options: Options) -> float:
    time.sleep(SETTLE_S)
    for _ in range(WARM_UP_BATCHES):
        next(batches)
    num_batches = max(options.num_samples // (4 if name in SLOW else 1) // options.batch_size, 1)
    start_s = time.perf_counter()
    for _ in range(num_batches):
        next(batches)
    return num_batches * options.batch_size / (time.perf_counter() - start_s)


def _summary(values: list[float]) -> dict[str, Any]:
    summary = summarize(values)
    interval = [summary.ci95_low, summary.ci95_high] if summary.has_interval else None
    return {"median": statistics.median(values), "mean_ci95": interval, "repeats": values}


def _ratio(rates: dict[str, list[float]], name: str, base: str, least: float, goal: float) -> dict[str, Any]:
    """Repeat by repeat, so that what slows both down cancels."""
    summary = _summary([one / other for one, other in zip(rates[name], rates[base], strict=True)])
    return {
        "what": f"{name} / {base}",
        "least": least,
        "goal": goal,
        "is_reached": summary["median"] >= least,
    } | summary


def main() -> None:
    defaults = Options()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of photos; left out, the few of scikit-image and -learn")
    parser.add_argument("--out", type=Path, default=Path("images.json"))
    parser.add_argument("--images", type=int, default=defaults.num_images)
    parser.add_argument("--samples", type=int, default=defaults.num_samples, help="per contender and repeat")
    parser.add_argument("--repeats", type=int, default=defaults.num_repeats)
    parser.add_argument("--batch-size", type=int, default=defaults.batch_size)
    parser.add_argument("--cores", type=int, default=defaults.num_cores)
    given = parser.parse_args()
    options = Options(
        num_images=given.images,
        num_samples=given.samples,
        num_repeats=given.repeats,
        batch_size=given.batch_size,
        num_cores=given.cores,
    )
    restart_with_ffmpeg()
    _use_cores(options.num_cores)
    start_s, date = time.monotonic(), now_utc()
    with tempfile.TemporaryDirectory() as folder:
        images, shards = Path(folder) / "images", Path(folder) / "shards"
        write_jpegs(images, given.photos, options.num_images)
        _build(images, shards)
        results = measure(images, shards, options)
    for row in results["ratios"]:
        print(f"{row['what']}: {row['median']:.3f} (least {row['least']}, goal {row['goal']})")
    record = Record(
        kind=KIND,
        key=date,
        label="three image tasks from one decode",
        date=date,
        seconds=time.monotonic() - start_s,
        environment=environment(),
        config=asdict(options) | {"photos": given.photos.name if given.photos else "packaged", "tasks": TASKS},
        inputs={name: _version(name) for name in VERSIONS},
        results=results,
    )
    write_json(given.out, asdict(record))


def _use_cores(count: int) -> None:
    """This process and its workers on `count` cores, and torch's own operations on one thread each, as in a worker."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    torch.set_num_threads(1)


def _build(images: Path, shards: Path) -> None:
    from pipelines.shards.build import BuildConfig, build_shards

    build_shards(BuildConfig(sources=[images], out=shards))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
