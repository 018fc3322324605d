"""Compare loaders and write a record.

    python -m benchmarks.profile.loaders SHARDS... --out record.json
    python -m benchmarks.profile.loaders --photos FOLDER --out record.json

With --photos, the loaders are compared on the photos as they are and on JPEGs of 500 x 375 at quality 90 made of them.
"""

import argparse
import dataclasses
import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.profile.loaders import CompareOptions, compare_loaders, loader_rows
from benchmarks.profile.loaders.contenders import CONTENDERS
from benchmarks.record import Record, environment, now_utc, write_json
from benchmarks.throughput.photos import write_jpegs
from pipelines.errors import FourfoldError
from pipelines.machine import num_cores
from pipelines.progress import quiet_progress
from pipelines.shards.build import BuildConfig, build_shards

KIND = "loaders"


def main() -> None:
    given = _arguments()
    start_s, date = time.monotonic(), now_utc()
    with tempfile.TemporaryDirectory(prefix="fourfold-loaders-", dir=given.folder) as folder:
        try:
            sets = {path.name: path for path in given.shards} | _from_photos(given.photos, Path(folder), given.samples)
            options = {name: _options(given, path) for name, path in sets.items()}
            results = {name: _compared(name, one) for name, one in options.items()}
        except FourfoldError as error:
            raise SystemExit(str(error)) from error
    config = {"datasets": list(sets), **dataclasses.asdict(next(iter(options.values())))}
    config = {name: value for name, value in config.items() if name not in ("shards", "folder")}
    _write(given.out, date, time.monotonic() - start_s, config, results)


def _arguments() -> argparse.Namespace:
    defaults = CompareOptions(shards=Path())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="*", type=Path, help="folders of image shards")
    parser.add_argument("--photos", type=Path, help="a folder of photos")
    parser.add_argument("--out", type=Path, required=True, help="file for the record")
    parser.add_argument("--make", choices=("canvas", "colorization"), default=defaults.make)
    parser.add_argument("--canvas-px", type=int, default=defaults.canvas_px)
    parser.add_argument("--batch-size", type=int, default=defaults.batch_size)
    parser.add_argument("--cores", type=int, default=num_cores())
    parser.add_argument("--samples", type=int, default=defaults.num_samples, help="per pass, at most")
    parser.add_argument("--warm", type=int, default=defaults.warm_repeats, help="repeats")
    parser.add_argument("--cold", type=int, default=defaults.cold_repeats, help="repeats")
    parser.add_argument("--loader", action="append", choices=list(CONTENDERS), help="only this one; may be repeated")
    parser.add_argument("--folder", type=Path, help="where data goes for the time being; on the disk to be measured")
    given = parser.parse_args()
    if not given.shards and given.photos is None:
        parser.error("nothing to read: give folders of shards, or --photos FOLDER")
    return given


def _options(given: argparse.Namespace, shards: Path) -> CompareOptions:
    return CompareOptions(
        shards=shards,
        make=given.make,
        canvas_px=given.canvas_px,
        batch_size=given.batch_size,
        num_cores=given.cores,
        num_samples=given.samples,
        warm_repeats=given.warm,
        cold_repeats=given.cold,
        names=tuple(given.loader or CONTENDERS),
        folder=given.folder,
    )


def _from_photos(photos: Path | None, folder: Path, count: int) -> dict[str, Path]:
    if photos is None:
        return {}
    write_jpegs(folder / "made", photos, count)
    sets = {photos.name: photos, "500x375-q90": folder / "made"}
    for name, images in sets.items():
        with quiet_progress():
            build_shards(BuildConfig(sources=[images], out=folder / "shards" / name, labels="off", check="header"))
    return {name: folder / "shards" / name for name in sets}


def _compared(name: str, options: CompareOptions) -> dict[str, Any]:
    results = compare_loaders(options, lambda line: print(f"{name}: {line}", flush=True))
    for row in loader_rows(results):
        rate, ratio = row["samples_per_s"], row["ratio_to_limit"]
        numbers = "" if rate is None else f"{rate:8,.0f} samples/s {'' if ratio is None else f'{ratio:6.2f}'}"
        print(f"{name:12} {row['cache']:5} {row['loader']:34} {numbers:26} {row['note']}")
    return results


def _write(out: Path, date: str, seconds: float, config: dict[str, Any], results: dict[str, Any]) -> None:
    versions: dict[str, str] = {}
    for one in results.values():
        versions |= one["versions"]
    content = json.dumps([KIND, config, versions], sort_keys=True)
    record = Record(
        kind=KIND,
        key=hashlib.sha256(content.encode()).hexdigest()[:16],
        label="loaders compared",
        date=date,
        seconds=seconds,
        environment=environment(),
        config=config,
        inputs=versions,
        results=results,
    )
    write_json(out, dataclasses.asdict(record))
    if record.environment.is_dirty:
        print("this checkout has changes that are not committed: a look, not a record")


if __name__ == "__main__":
    main()
