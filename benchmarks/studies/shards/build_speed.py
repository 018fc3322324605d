"""Measure how fast shards are built: small images, fourfold against webdataset loops and tar; memory; a huge plan.

    python -m benchmarks.studies.shards.build_speed --out record.json

Contenders take turns, each run in a fresh process, page cache warm. What they packed is compared first. About 12
minutes and 25 GB of disk in $TMPDIR.
"""

import hashlib
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from benchmarks.harness.spread import ratio_spread, spread_of
from benchmarks.harness.study import Study, say
from benchmarks.harness.temporary import temporary_folder
from benchmarks.harness.turns import turns
from benchmarks.studies.shards.build_contenders import SAMPLES_PER_SHARD, BuildCost, run_contender
from benchmarks.studies.shards.build_kill import write_small_images
from pipelines.base.errors import DataError

__all__ = ["STUDY", "BuildSpeedOptions", "measure_builds", "packed_images"]

TIMED = ("header", "decode", "shard_writer", "shard_writer_decode", "tar")
# (what, compared with what, least ratio of files per second).
TARGETS = (("header", "shard_writer", 3.0), ("header", "tar", 0.3), ("decode", "shard_writer_decode", 1.7))
MAX_MEMORY_RATIO = 1.2
MAX_SIMULATION_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSpeedOptions:
    """Amounts to build."""

    num_images: Annotated[int, "small images"] = 60_000
    num_few_images: Annotated[int, "of the other measurement of memory"] = 6_000
    num_repeats: Annotated[int, "of each contender; fewer than 6 give no interval"] = 6
    num_simulated: Annotated[int, "samples that are planned only"] = 100_000_000
    side_px: Annotated[int, "of an image"] = 96


def measure(options: BuildSpeedOptions) -> dict[str, Any]:
    with temporary_folder() as folder:
        return measure_builds(options, folder)


def measure_builds(options: BuildSpeedOptions, folder: Path) -> dict[str, Any]:
    """Return all results. `folder` is empty at first, and in the end holds the images only."""
    few, many = folder / "few", folder / "many"
    write_small_images(few, options.num_few_images, side_px=options.side_px)
    write_small_images(many, options.num_images, side_px=options.side_px)
    # Equal first. This also reads every file once, so that no contender pays for a cold disk.
    _check_equal(many, folder)
    costs: dict[str, list[BuildCost]] = {name: [] for name in TIMED}
    for repeat, name in turns(TIMED, options.num_repeats):
        costs[name].append(_run(name, many, folder))
        say(f"repeat {repeat + 1}: {name} {options.num_images / costs[name][-1].seconds:,.0f} files/s")
    simulated = _run("simulate", str(options.num_simulated), folder)
    rates = {name: [options.num_images / one.seconds for one in found] for name, found in costs.items()}
    return {
        "image_bytes": sum(path.stat().st_size for path in many.rglob("*.jpg")),
        "speeds": {name: _speed(values) for name, values in rates.items()},
        "ratios": {f"{one} / {other}": _ratio(rates[one], rates[other], least) for one, other, least in TARGETS},
        "memory": {name: _memory(_run(name, few, folder), costs[name]) for name in ("header", "decode")},
        "simulated": asdict(simulated) | {"is_reached": simulated.seconds < MAX_SIMULATION_S},
    }


def _run(name: str, source: Path | str, folder: Path) -> BuildCost:
    try:
        return run_contender(name, source, folder / "out")
    finally:
        shutil.rmtree(folder / "out", ignore_errors=True)


def _check_equal(images: Path, folder: Path) -> None:
    """Check that every contender packs every image, byte for byte; also warms the page cache. Raises DataError."""
    want = Counter(hashlib.sha256(path.read_bytes()).digest() for path in images.rglob("*.jpg"))
    for name in TIMED:
        run_contender(name, images, folder / "out")
        found = packed_images(folder / "out")
        shutil.rmtree(folder / "out")
        if found != want:
            raise DataError(f"{name}: packed {found.total()} images, not the {want.total()} that were given.")


def packed_images(folder: Path) -> Counter[bytes]:
    """Return how often each content (its sha256) is there as a .jpg in the tars of a folder."""
    found: Counter[bytes] = Counter()
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith(".jpg") else None
                if file is not None:
                    found[hashlib.sha256(file.read()).digest()] += 1
    return found


def _speed(files_per_s: Sequence[float]) -> dict[str, Any]:
    found = spread_of(files_per_s)
    interval = {"ci95_low": found.ci95_low, "ci95_high": found.ci95_high}
    return {"files_per_s": found.repeats, "median_files_per_s": found.median, **interval}


def _ratio(rates: Sequence[float], base: Sequence[float], least: float) -> dict[str, Any]:
    """Return the ratio of the medians; and pair by pair, each run with the other's of the same round."""
    ratio = spread_of(rates).median / spread_of(base).median
    pairs = ratio_spread(rates, base).repeats
    return {"of_medians": ratio, "pairs": pairs, "least": least, "is_reached": ratio >= least}


def _memory(few: BuildCost, many: Sequence[BuildCost]) -> dict[str, Any]:
    """Return the peak of the main process and of the largest worker, for few and many images."""
    result: dict[str, Any] = {}
    for name in ("peak_mib", "worker_peak_mib"):
        at_few, at_many = getattr(few, name), spread_of([getattr(one, name) for one in many]).median
        # Few enough images are packed without worker processes.
        result[name] = {"few": at_few, "many": at_many, "ratio": at_many / at_few if at_few else None}
    return result | {"is_reached": all((one["ratio"] or 0) <= MAX_MEMORY_RATIO for one in result.values())}


def shown(results: dict[str, Any]) -> Iterator[str]:
    return (f"{name}: {results[name]}" for name in ("ratios", "memory", "simulated"))


STUDY = Study(
    module="benchmarks.studies.shards.build_speed",
    kind="shards_build",
    label="small images into shards",
    description=__doc__,
    options=BuildSpeedOptions,
    measure=measure,
    lines=shown,
    constants={"samples_per_shard": SAMPLES_PER_SHARD},
    packages=("webdataset", "pyarrow", "xxhash", "pillow", "av"),
)

if __name__ == "__main__":
    STUDY.main()
