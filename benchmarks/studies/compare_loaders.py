"""Compare loaders and write a record.

python -m benchmarks.loaders SHARDS... --out record.json
python -m benchmarks.loaders --photos FOLDER --out record.json      the photos as they are
python -m benchmarks.loaders --made-from FOLDER --out record.json   JPEGs of 500 x 375 made of the photos
"""

import argparse
import dataclasses
import hashlib
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.loaders import CompareOptions, compare_loaders, loader_rows
from benchmarks.loaders.registry import CONTENDERS
from benchmarks.loaders.scratch import temporary_folder
from benchmarks.results.record import Record, environment, now_utc, write_json
from benchmarks.studies.throughput.photos import write_jpegs
from pipelines.base.errors import FourfoldError, UsageError
from pipelines.base.interrupt import sigterm_as_interrupt
from pipelines.base.machine import num_cores
from pipelines.base.progress import quiet_progress
from pipelines.shards.build import BuildConfig, build_shards

KIND = "loaders"
MADE = "500x375-q90"


def main() -> None:
    given = _arguments()
    try:
        with sigterm_as_interrupt():
            _check_out(given.out)
            write_json(given.out, dataclasses.asdict(_record(given)))
    except FourfoldError as error:
        print(f"loaders: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    except KeyboardInterrupt:
        print("loaders: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    if environment().is_dirty:
        print("this checkout has changes that are not committed: a look, not a record")


def _check_out(out: Path) -> None:
    """Before minutes of measuring, not after them. Raises UsageError."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: {out.parent} cannot be made ({error.strerror}).") from error
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise UsageError(f"--out {out}: a folder, or in one that cannot be written to. Give the name of a file.")


def _record(given: argparse.Namespace) -> Record:
    start_s, date, place = time.monotonic(), now_utc(), environment()  # what runs, not what is there in the end
    with temporary_folder(given.folder) as folder:
        options = {name: _options(given, path) for name, path in _datasets(given, folder).items()}
        results = {name: _compared(name, one) for name, one in options.items()}
    config = dataclasses.asdict(next(iter(options.values())))
    config |= {"shards": list(options), "folder": str(given.folder or "the system's folder for temporary files")}
    config |= {"command": shlex.join(["python", "-m", "benchmarks.loaders", *sys.argv[1:]])}
    versions: dict[str, str] = {}
    for one in results.values():
        versions |= one["versions"]
    content = json.dumps([KIND, config, versions], sort_keys=True)
    return Record(
        kind=KIND,
        key=hashlib.sha256(content.encode()).hexdigest()[:16],
        label="loaders compared",
        date=date,
        seconds=time.monotonic() - start_s,
        environment=place,
        config=config,
        inputs=versions,
        results=results,
    )


def _arguments() -> argparse.Namespace:
    defaults = CompareOptions(shards=Path())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="*", type=Path, help="folders of image shards")
    parser.add_argument("--photos", type=Path, help="a folder of photos")
    parser.add_argument("--made-from", type=Path, help="a folder of photos to make JPEGs of 500 x 375, quality 90, of")
    parser.add_argument("--out", type=Path, required=True, help="file for the record")
    parser.add_argument("--make", choices=("canvas", "colorization"), default=defaults.make)
    parser.add_argument("--canvas-px", type=int, default=defaults.canvas_px)
    parser.add_argument("--batch-size", type=int, default=defaults.batch_size)
    parser.add_argument("--cores", type=int, default=num_cores())
    parser.add_argument("--samples", type=int, default=defaults.num_samples, help="per pass, at most")
    parser.add_argument("--warm", type=int, default=defaults.warm_repeats, help="repeats")
    parser.add_argument("--cold", type=int, default=defaults.cold_repeats, help="repeats")
    parser.add_argument("--least-s", type=float, default=defaults.least_s, help="seconds of a repeat")
    parser.add_argument("--loader", action="append", choices=list(CONTENDERS), help="only this one; may be repeated")
    parser.add_argument("--folder", type=Path, help="where data goes for the time being; on the disk to be measured")
    given = parser.parse_args()
    if not given.shards and given.photos is None and given.made_from is None:
        parser.error("nothing to read: give folders of shards, --photos FOLDER or --made-from FOLDER")
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
        least_s=given.least_s,
        names=tuple(given.loader or CONTENDERS),
        folder=given.folder,
    )


def _datasets(given: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Folders of shards by name; those of photos are made in `folder`."""
    shards = {path.name: path for path in given.shards}
    images = [given.photos] if given.photos else []
    if given.made_from is not None:
        write_jpegs(folder / MADE, given.made_from, given.samples)
        images.append(folder / MADE)
    for one in images:
        shards[one.name] = folder / "shards" / one.name
        with quiet_progress():
            build_shards(BuildConfig(sources=[one], out=shards[one.name], labels="off", check="header"))
    return shards


def _compared(name: str, options: CompareOptions) -> dict[str, Any]:
    results = compare_loaders(options, lambda line: print(f"{name}: {line}", flush=True))
    for row in loader_rows(results):
        rate, ratio = row["samples_per_s"], row["ratio_to_limit"]
        numbers = "" if rate is None else f"{rate:8,.0f} samples/s {'' if ratio is None else f'{ratio:6.2f}'}"
        print(f"{name:12} {row['cache']:5} {row['loader']:34} {numbers:26} {row['note']}")
    return results


if __name__ == "__main__":
    main()
