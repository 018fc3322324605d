"""Throughput of the three image tasks from one decode, beside DALI's bare decoding of the same bytes.

    python -m benchmarks.studies.throughput.images --photos FOLDER --out images.json

500 x 375 JPEGs of quality 90, canvas 256, patches 96, the paper's geometry. First the batches of both backends, and of
threads and worker processes, are compared, and nothing is timed if they differ. Then all contenders take turns in one
process on the same cores, each open all the time and idle while another runs. Other loaders: compare_loaders.py.
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

import torch

from benchmarks.harness.child_main import use_cores
from benchmarks.harness.spread import ratio_spread, spread_of
from benchmarks.harness.study import Study, say
from benchmarks.harness.temporary import temporary_folder
from benchmarks.harness.turns import turns
from benchmarks.loaders.contenders.dali import dali_loader
from benchmarks.studies.throughput.made_shards import write_jpegs
from pipelines.base.errors import DataError
from pipelines.build import PipelineConfig, Step, build_pipeline
from pipelines.shards.build import BuildConfig, build_shards

__all__ = ["STUDY", "ImagesOptions", "check_backends", "check_same_bits", "config_of", "measure_contenders"]

LIMIT = "dali decode"
TASKS: dict[str, dict[str, Any]] = {
    # One pair an image, colors dropped: as the committed record measured it.
    "relative_position": {"form": "pairs", "color": "drop"},
    "colorization": {},
    "exemplar": {},
}
CANVAS_PX = 256
TOLERANCES = {"relative_position": 0.5, "colorization": 0.5, "exemplar": 1.5}
"""Largest mean difference of a task's inputs between backends, in levels of 1/255. Decoders, resizes and warps round to
8 bits each in their own way, and exemplar's powers magnify a level in the dark."""
WARM_UP_BATCHES = 6
"""More than any contender holds ready, so that what was prepared while others ran is not counted."""
SETTLE_S = 1.0
"""In which the contender before, no longer asked, fills its queue."""
# (what, compared with what, least ratio of samples per second).
TARGETS = (
    ("ours opencv workers", LIMIT, 0.45),
    ("ours opencv", LIMIT, 0.45),
    ("ours dali", LIMIT, 0.3),
    ("ours opencv workers", "ours opencv", 1.0),
)

Batches = Generator[Any, None, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesOptions:
    """Photos, and amounts to measure."""

    photos: Annotated[Path | None, "folder of photos; left out, the few of scikit-image and -learn"] = None
    num_images: Annotated[int, "JPEGs made of the photos"] = 1024
    num_samples: Annotated[int, "of each contender and repeat"] = 4096
    num_repeats: Annotated[int, "of each contender; fewer than 6 give no interval"] = 7
    batch_size: Annotated[int, "samples of a batch"] = 64
    num_cores: Annotated[int, "cores, and threads or workers of each contender"] = 2


def measure(options: ImagesOptions) -> dict[str, Any]:
    # Before anything else: threads that exist already would keep all cores.
    use_cores(options.num_cores)
    with temporary_folder() as folder:
        write_data(folder, options)
        return measure_contenders(folder / "images", folder / "shards", options)


def write_data(folder: Path, options: ImagesOptions) -> None:
    """Write JPEGs in `folder`/images, and shards of them in `folder`/shards."""
    write_jpegs(folder / "images", options.photos, options.num_images)
    build_shards(BuildConfig(sources=[folder / "images"], out=folder / "shards"))


def measure_contenders(images: Path, shards: Path, options: ImagesOptions) -> dict[str, Any]:
    """Return all results. Raises DataError if the contenders do not make the same."""
    # 1. Equal first: what does not make the same is not timed.
    check_same_bits(*(config_of(shards, "opencv", options, num_workers=count) for count in (0, options.num_cores)))
    differences = check_backends(*(config_of(shards, name, options) for name in ("opencv", "dali")))
    # 2. Open all the time and timed in turns: each keeps its workers and caches, and all see the same machine.
    with ExitStack() as stack:
        opened = {
            name: stack.enter_context(closing(contender()))
            for name, contender in contenders(images, shards, options).items()
        }
        rates: dict[str, list[float]] = {name: [] for name in opened}
        for repeat, name in turns(opened, options.num_repeats):
            rates[name].append(_samples_per_s(opened[name], options))
            say(f"repeat {repeat + 1}: {name}: {rates[name][-1]:,.0f} samples/s")
    return {
        "image_bytes": statistics.mean(path.stat().st_size for path in images.glob("*.jpg")),
        "mean_differences": differences,
        "samples_per_s": {name: asdict(spread_of(values)) for name, values in rates.items()},
        "ratios": [_ratio(rates, *target) for target in TARGETS],
    }


def contenders(images: Path, shards: Path, options: ImagesOptions) -> dict[str, Callable[[], Batches]]:
    """Return by name what opens an endless iterator of batches."""
    encoded = [path.read_bytes() for path in sorted(images.glob("*.jpg"))]
    size, cores = options.batch_size, options.num_cores
    return {
        LIMIT: partial(dali_loader, encoded, size, cores),
        "ours opencv": partial(_ours, config_of(shards, "opencv", options)),
        "ours opencv workers": partial(_ours, config_of(shards, "opencv", options, num_workers=cores)),
        "ours dali": partial(_ours, config_of(shards, "dali", options)),
    }


def _ours(config: PipelineConfig) -> Batches:
    with build_pipeline(config, seed=0) as pipeline:
        yield from pipeline


def config_of(shards: Path, backend: str, options: ImagesOptions, *, num_workers: int = 0) -> PipelineConfig:
    """Return the pipeline's config. `num_workers`: processes; 0 for threads of this one."""
    sizes = {"canvas_px": CANVAS_PX, "batch_size": options.batch_size}
    made_by = {"backend": backend, "num_threads": options.num_cores, "num_workers": num_workers}
    return PipelineConfig.model_validate({"images": shards, "tasks": TASKS, **sizes, **made_by})


def check_backends(one: PipelineConfig, other: PipelineConfig) -> dict[str, float]:
    """Return the mean difference of each task's first inputs, in levels. Raises DataError beyond a tolerance."""
    # First steps of one seed: both have the same crops and geometry.
    first, second = _first_step(one).batches, _first_step(other).batches
    found = {name: 255 * float((first[name].inputs - second[name].inputs).abs().double().mean()) for name in first}
    for name, apart in found.items():
        if not apart <= TOLERANCES[name]:
            raise DataError(
                f"{name}: inputs of backends {one.backend} and {other.backend} differ by {apart:.3g} levels in the "
                f"mean, at most {TOLERANCES[name]} is allowed. What does not make the same is not timed."
            )
    return found


def check_same_bits(one: PipelineConfig, other: PipelineConfig) -> None:
    """Check that the first steps of the two are equal in every tensor. Raises DataError."""
    first, second = _first_step(one).batches, _first_step(other).batches
    for name, batch in first.items():
        # To the bit: both run the same code, and a tolerance would hide a wrong order of samples.
        pairs = [(batch.inputs, second[name].inputs), (batch.weight, second[name].weight)]
        pairs += [(tensor, second[name].target[key]) for key, tensor in batch.target.items()]
        if not all(torch.equal(*pair) for pair in pairs):
            raise DataError(f"{name}: threads and worker processes make different batches, so they are not timed.")


def _first_step(config: PipelineConfig) -> Step:
    with build_pipeline(config, seed=0) as pipeline:
        return next(pipeline)


def _samples_per_s(batches: Batches, options: ImagesOptions) -> float:
    # In this order: the one before stops working, steps held ready are used up, then the clock starts.
    time.sleep(SETTLE_S)
    num_batches = max(options.num_samples // options.batch_size, 1)
    for _ in islice(batches, WARM_UP_BATCHES):
        pass
    start_s = time.perf_counter()
    for _ in islice(batches, num_batches):
        pass
    return num_batches * options.batch_size / (time.perf_counter() - start_s)


def _ratio(rates: dict[str, list[float]], name: str, base: str, least: float) -> dict[str, Any]:
    found = ratio_spread(rates[name], rates[base])
    return {"what": f"{name} / {base}", "least": least, "is_reached": found.median >= least} | asdict(found)


def shown(results: dict[str, Any]) -> Iterator[str]:
    for row in results["ratios"]:
        yield f"{row['what']}: {row['median']:.3f} (least {row['least']})"


STUDY = Study(
    module="benchmarks.studies.throughput.images",
    kind="throughput_images",
    label="three image tasks from one decode",
    description=__doc__,
    options=ImagesOptions,
    measure=measure,
    lines=shown,
    constants={"tasks": TASKS, "tolerances": TOLERANCES},
    packages=("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
)

if __name__ == "__main__":
    STUDY.main()
