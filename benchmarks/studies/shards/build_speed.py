"""How fast shards are built: small images, fourfold against serial webdataset loops and tar; memory; a huge plan.

    python -m benchmarks.studies.shards.build_speed --out record.json

Contenders take turns, each run in a fresh process, page cache warm. What they packed is compared first. The record
holds every run; see records/RULES.md before committing one. About 10 minutes and 25 GB of disk in $TMPDIR.
"""

import argparse
import hashlib
import json
import shutil
import statistics
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.results.record import Record, environment, now_utc, write_json
from benchmarks.results.statistics import summarize
from benchmarks.studies.shards.build_contenders import SAMPLES_PER_SHARD, Timing, run_contender
from benchmarks.studies.shards.build_kill import write_small_images
from pipelines.base.errors import DataError

__all__ = ["Options", "main", "measure", "packed_images"]

KIND = "shards_build"
TIMED = ("header", "decode", "shard_writer", "shard_writer_decode", "tar")
# (what, compared with what, least ratio of files per second).
TARGETS = (("header", "shard_writer", 3.0), ("header", "tar", 0.3), ("decode", "shard_writer_decode", 1.7))
MAX_MEMORY_RATIO = 1.2
MAX_SIMULATION_S = 120.0
VERSIONS = ("webdataset", "pyarrow", "xxhash", "pillow", "av")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """num_few_images: those of the other measurement of memory. num_simulated: samples that are planned only."""

    num_images: int = 60_000
    num_few_images: int = 6_000
    num_repeats: int = 5
    num_simulated: int = 100_000_000
    side_px: int = 96


def measure(options: Options, folder: Path) -> dict[str, Any]:
    """All results. `folder` is empty at first, and in the end holds the images only."""
    few, many = folder / "few", folder / "many"
    write_small_images(few, options.num_few_images, side_px=options.side_px)
    write_small_images(many, options.num_images, side_px=options.side_px)
    _check_equal(many, folder)
    runs: dict[str, list[Timing]] = {name: [] for name in TIMED}
    for repeat in range(options.num_repeats):
        for name in TIMED:
            runs[name].append(_run(name, many, folder))
            print(f"repeat {repeat + 1}: {name} {options.num_images / runs[name][-1].seconds:,.0f} files/s", flush=True)
    simulated = _run("simulate", str(options.num_simulated), folder)
    speeds = {name: _speed(options.num_images, timings) for name, timings in runs.items()}
    return {
        "image_bytes": sum(path.stat().st_size for path in many.rglob("*.jpg")),
        "speeds": speeds,
        "ratios": {f"{one} / {other}": _ratio(runs, one, other, least) for one, other, least in TARGETS},
        "memory": {name: _memory(_run(name, few, folder), runs[name]) for name in ("header", "decode")},
        "simulated": asdict(simulated) | {"is_reached": simulated.seconds < MAX_SIMULATION_S},
    }


def _run(name: str, source: Path | str, folder: Path) -> Timing:
    out = folder / "out"
    try:
        return run_contender(name, source, out)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _check_equal(images: Path, folder: Path) -> None:
    """Every contender packs every image, byte for byte; also warms the page cache. Raises DataError."""
    want = Counter(hashlib.sha256(path.read_bytes()).digest() for path in images.rglob("*.jpg"))
    for name in TIMED:
        run_contender(name, images, folder / "out")
        found = packed_images(folder / "out")
        shutil.rmtree(folder / "out")
        if found != want:
            raise DataError(f"{name}: packed {found.total()} images, not the {want.total()} that were given.")


def packed_images(folder: Path) -> Counter[bytes]:
    """How often each content (its sha256) is there as a .jpg in the tars of a folder."""
    found: Counter[bytes] = Counter()
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith(".jpg") else None
                if file is not None:
                    found[hashlib.sha256(file.read()).digest()] += 1
    return found


def _speed(num_images: int, timings: Sequence[Timing]) -> dict[str, Any]:
    rates = [num_images / timing.seconds for timing in timings]
    spread = summarize(rates)
    return {
        "files_per_s": rates,
        "median_files_per_s": statistics.median(rates),
        "ci95_low": spread.ci95_low if spread.has_interval else None,
        "ci95_high": spread.ci95_high if spread.has_interval else None,
    }


def _ratio(runs: dict[str, list[Timing]], one: str, other: str, least: float) -> dict[str, Any]:
    """Of the medians; and pair by pair, each run with the other's of the same round."""
    pairs = [b.seconds / a.seconds for a, b in zip(runs[one], runs[other], strict=True)]
    medians = [statistics.median(timing.seconds for timing in runs[name]) for name in (other, one)]
    ratio = medians[0] / medians[1]
    return {"of_medians": ratio, "pairs": pairs, "least": least, "is_reached": ratio >= least}


def _memory(few: Timing, many: Sequence[Timing]) -> dict[str, Any]:
    """Peak of the main process and of the largest worker, for few and many images."""
    result: dict[str, Any] = {}
    for name in ("peak_mib", "worker_peak_mib"):
        at_few, at_many = getattr(few, name), statistics.median(getattr(timing, name) for timing in many)
        # Few enough images are packed without worker processes.
        result[name] = {"few": at_few, "many": at_many, "ratio": at_many / at_few if at_few else None}
    return result | {"is_reached": all((one["ratio"] or 0) <= MAX_MEMORY_RATIO for one in result.values())}


def record_of(options: Options, results: dict[str, Any], seconds: float) -> Record:
    config = asdict(options) | {"samples_per_shard": SAMPLES_PER_SHARD}
    versions = {name: version(name) for name in VERSIONS}
    content = json.dumps([KIND, config, versions], sort_keys=True)
    return Record(
        kind=KIND,
        key=hashlib.sha256(content.encode()).hexdigest()[:16],
        label=f"{options.num_images} small images into shards",
        date=now_utc(),
        seconds=seconds,
        environment=environment(),
        config=config,
        inputs=versions,
        results=results,
    )


def main() -> None:
    defaults = Options()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file for the record")
    parser.add_argument("--images", type=int, default=defaults.num_images)
    parser.add_argument("--few-images", type=int, default=defaults.num_few_images)
    parser.add_argument("--repeats", type=int, default=defaults.num_repeats)
    parser.add_argument("--simulated", type=int, default=defaults.num_simulated)
    given = parser.parse_args()
    options = Options(
        num_images=given.images,
        num_few_images=given.few_images,
        num_repeats=given.repeats,
        num_simulated=given.simulated,
    )
    start_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fourfold-benchmark-") as folder:
        results = measure(options, Path(folder))
    record = record_of(options, results, time.monotonic() - start_s)
    write_json(given.out, asdict(record))
    print(json.dumps({name: results[name] for name in ("ratios", "memory", "simulated")}, indent=1))
    if record.environment.is_dirty:
        print("this checkout has changes that are not committed: a look, not a record")


if __name__ == "__main__":
    main()
