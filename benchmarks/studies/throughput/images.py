"""Throughput of the three image tasks from one decode, beside the limit and beside common loaders.

    python -m benchmarks.studies.throughput.images --photos FOLDER --out images.json

500 x 375 JPEGs of quality 90, canvas 256, patches 96, the paper's geometry. First the outputs of the pipeline with both
backends and of the plain way are compared, and nothing is timed if they differ. Then all contenders take turns in one
process on the same cores, each open all the time and idle while another runs.
"""

import statistics
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from benchmarks.harness.child_main import use_cores
from benchmarks.harness.spread import ratio_spread, spread_of
from benchmarks.harness.study import Study, say
from benchmarks.harness.temporary import temporary_folder
from benchmarks.harness.turns import turns
from benchmarks.loaders.contenders.dali import dali_loader
from benchmarks.loaders.contenders.spdl import restart_with_ffmpeg, spdl_loader
from benchmarks.studies.throughput.image_agreement import check_agreement, check_same_bits
from benchmarks.studies.throughput.made_shards import write_jpegs
from benchmarks.studies.throughput.plain_pytorch import CANVAS_PX, PAIRS, plain_loader, webdataset_loader
from pipelines.build import PipelineConfig, build_pipeline

__all__ = ["STUDY", "ImagesOptions", "config_of", "measure_contenders", "write_data"]

LIMIT = "dali decode"
TASKS: dict[str, dict[str, Any]] = {"relative_position": PAIRS, "colorization": {}, "exemplar": {}}
PACKAGES = ("nvidia-dali-cuda130", "nvidia-dali-cuda120", "webdataset", "spdl", "spdl-io", "pillow", "scikit-image")
SLOW = {"plain pytorch", "webdataset"}
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

Batches = Generator[Any, None, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesOptions:
    """Photos, and amounts to measure."""

    photos: Annotated[Path | None, "folder of photos; left out, the few of scikit-image and -learn"] = None
    num_images: Annotated[int, "JPEGs made of the photos"] = 1024
    num_samples: Annotated[int, "of each contender and repeat; the plain ways, ten times slower, make a quarter"] = 4096
    num_repeats: Annotated[int, "of each contender; fewer than 6 give no interval"] = 7
    batch_size: Annotated[int, "samples of a batch"] = 64
    num_cores: Annotated[int, "cores, and threads or workers of each contender"] = 2


def measure(options: ImagesOptions) -> dict[str, Any]:
    # Before anything else, since it may start this program again.
    restart_with_ffmpeg()
    use_cores(options.num_cores)
    with temporary_folder() as folder:
        write_data(folder, options)
        return measure_contenders(folder / "images", folder / "shards", options)


def write_data(folder: Path, options: ImagesOptions) -> None:
    """Write JPEGs in `folder`/images, and shards of them in `folder`/shards."""
    from pipelines.shards.build import BuildConfig, build_shards

    write_jpegs(folder / "images", options.photos, options.num_images)
    build_shards(BuildConfig(sources=[folder / "images"], out=folder / "shards"))


def measure_contenders(images: Path, shards: Path, options: ImagesOptions) -> dict[str, Any]:
    """Return all results. Raises DataError if the contenders do not make the same."""
    # 1. Equal first: what does not make the same is not timed.
    agreement = check_agreement(shards, {name: config_of(shards, name, options) for name in ("opencv", "dali")})
    check_same_bits(*(config_of(shards, "opencv", options, num_workers=count) for count in (0, options.num_cores)))
    # 2. Open all the time and timed in turns: each keeps its workers and caches, and all see the same machine.
    with ExitStack() as stack:
        opened, missing = _open(contenders(images, shards, options), stack)
        rates: dict[str, list[float]] = {name: [] for name in opened}
        for repeat, name in turns(opened, options.num_repeats):
            rates[name].append(_samples_per_s(opened[name], name, options))
            say(f"repeat {repeat + 1}: {name}: {rates[name][-1]:,.0f} samples/s")
    return {
        "image_bytes": statistics.mean(path.stat().st_size for path in images.glob("*.jpg")),
        "agreement": agreement,
        "samples_per_s": {name: asdict(spread_of(values)) for name, values in rates.items()},
        "ratios": [_ratio(rates, *target) for target in TARGETS if {target[0], target[1]} <= set(rates)],
        "not_measured": missing,
    }


def contenders(images: Path, shards: Path, options: ImagesOptions) -> dict[str, Callable[[], Batches]]:
    """Return by name what opens an endless iterator of batches."""
    encoded = [path.read_bytes() for path in sorted(images.glob("*.jpg"))]
    size, cores = options.batch_size, options.num_cores
    return {
        LIMIT: partial(dali_loader, encoded, size, cores, None),
        "ours opencv": partial(_ours, config_of(shards, "opencv", options)),
        "ours opencv workers": partial(_ours, config_of(shards, "opencv", options, num_workers=cores)),
        "ours dali": partial(_ours, config_of(shards, "dali", options)),
        "plain pytorch": partial(plain_loader, images, size, cores),
        "webdataset": partial(webdataset_loader, shards, size, cores),
        "spdl decode + resize": partial(spdl_loader, encoded, size, cores, CANVAS_PX),
        "dali decode + resize": partial(dali_loader, encoded, size, cores, CANVAS_PX),
    }


def _ours(config: PipelineConfig) -> Batches:
    with build_pipeline(config, seed=0) as pipeline:
        yield from pipeline


def config_of(shards: Path, backend: str, options: ImagesOptions, *, num_workers: int = 0) -> PipelineConfig:
    """Return the pipeline's config. `num_workers`: processes; 0 for threads of this one."""
    sizes = {"canvas_px": CANVAS_PX, "batch_size": options.batch_size}
    made_by = {"backend": backend, "num_threads": options.num_cores, "num_workers": num_workers}
    return PipelineConfig.model_validate({"images": shards, "tasks": TASKS, **sizes, **made_by})


def _open(found: dict[str, Callable[[], Batches]], stack: ExitStack) -> tuple[dict[str, Batches], dict[str, str]]:
    """Return those that give a first batch, and why the others do not."""
    opened: dict[str, Batches] = {}
    missing: dict[str, str] = {}
    for name, contender in found.items():
        try:
            batches = stack.enter_context(closing(contender()))
            # A generator's imports fail at its first batch, not when it is made.
            next(batches)
            opened[name] = batches
        except (ImportError, RuntimeError) as error:
            missing[name] = " ".join(str(error).split())[:300]
            say(f"not measured: {name}: {missing[name]}")
    return opened, missing


def _samples_per_s(batches: Batches, name: str, options: ImagesOptions) -> float:
    time.sleep(SETTLE_S)
    num_batches = max(options.num_samples // (4 if name in SLOW else 1) // options.batch_size, 1)
    for _ in islice(batches, WARM_UP_BATCHES):
        pass
    start_s = time.perf_counter()
    for _ in islice(batches, num_batches):
        pass
    return num_batches * options.batch_size / (time.perf_counter() - start_s)


def _ratio(rates: dict[str, list[float]], name: str, base: str, least: float, goal: float) -> dict[str, Any]:
    found = ratio_spread(rates[name], rates[base])
    about = {"what": f"{name} / {base}", "least": least, "goal": goal, "is_reached": found.median >= least}
    return about | asdict(found)


def shown(results: dict[str, Any]) -> Iterator[str]:
    for row in results["ratios"]:
        yield f"{row['what']}: {row['median']:.3f} (least {row['least']}, goal {row['goal']})"


STUDY = Study(
    module="benchmarks.studies.throughput.images",
    kind="throughput_images",
    label="three image tasks from one decode",
    description=__doc__,
    options=ImagesOptions,
    measure=measure,
    lines=shown,
    constants={"tasks": TASKS},
    packages=PACKAGES,
)

if __name__ == "__main__":
    STUDY.main()
