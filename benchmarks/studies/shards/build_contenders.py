"""Contenders of `build_speed.py`, each in a fresh process: fourfold, serial webdataset loops, tar, a huge plan.

Time runs from the first look at the sources to the last file closed; imports of the contender's own packages are not
in it, worker processes are.
"""

import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import pyarrow as pa
import xxhash

from benchmarks.harness.child import Child
from benchmarks.harness.temporary import short_parent, temporary_folder
from pipelines.base.progress import quiet_progress
from pipelines.shards.format.columns import number_column
from pipelines.shards.format.manifest import SAMPLE_SCHEMA, ManifestWriter
from pipelines.shards.format.storage import storage_of
from pipelines.shards.format.table import Shard
from pipelines.shards.making.build_config import BuildConfig
from pipelines.shards.making.shard_plan import SORT_SCHEMA, Planner, ShardPlan

__all__ = ["CONTENDERS", "BuildCost", "Run", "run_contender", "simulate"]

SAMPLES_PER_SHARD = 1000
SIMULATED_BATCH_ROWS = 100_000
PEAK_EVERY_S = 0.05
DIGITS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildCost:
    """Seconds of one run, and the peak memory of its main process and of its largest worker process (0: none)."""

    seconds: float
    peak_mib: float
    worker_peak_mib: float


def run_contender(name: str, source: Path | str, out: Path) -> BuildCost:
    """Run once in a fresh process; `out` must not exist. Raises ChildError if it fails."""
    given = {"name": name, "source": str(source), "out": str(out)}
    with (
        temporary_folder(short_parent()) as folder,
        Child("benchmarks.studies.shards.build_contenders:Run", given, folder=folder / "run") as child,
    ):
        return BuildCost(**child.ask("run"))


class Run:
    """One contender in its own process, with its packages imported."""

    def __init__(self, name: str, source: str, out: str) -> None:
        packages, contender = CONTENDERS[name]
        for package in packages:
            import_module(package)
        self._call = partial(contender, source, Path(out))

    def run(self) -> dict[str, Any]:
        """Return the fields of a BuildCost."""
        worker_peaks = [0.0]
        threading.Thread(target=_watch_workers, args=[worker_peaks], daemon=True).start()
        os.sync()  # what others have written must not be waited for in here
        start_s = time.perf_counter()
        self._call()
        seconds = time.perf_counter() - start_s
        return {"seconds": seconds, "peak_mib": _peak_mib(os.getpid()), "worker_peak_mib": max(worker_peaks)}


def build(source: str, out: Path, *, check: Literal["header", "decode"]) -> None:
    from pipelines.shards.build import build_shards

    with quiet_progress():
        config = BuildConfig(sources=[Path(source)], out=out, check=check, samples_per_shard=SAMPLES_PER_SHARD)
        build_shards(config)


def shard_writer(source: str, out: Path, *, with_decode: bool) -> None:
    """Write shards by the loop that most people use; `with_decode` adds a check of every image."""
    import cv2
    import webdataset

    out.mkdir(parents=True)
    # One process, one file after the other, as the examples of webdataset do.
    folders = enumerate(sorted(Path(source).iterdir()))
    files = ((path, label) for label, folder in folders for path in sorted(folder.iterdir()))
    with webdataset.ShardWriter(str(out / "train-%06d.tar"), maxcount=SAMPLES_PER_SHARD, verbose=0) as writer:
        for path, label in files:
            content, facts = path.read_bytes(), dict[str, Any](source=str(path))
            if with_decode:
                pixels = np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))
                digest = hashlib.sha256(content).hexdigest()
                facts |= {"height": pixels.shape[0], "width": pixels.shape[1], "sha256": digest}
            key = f"{path.parent.name}/{path.stem}"
            writer.write({"__key__": key, "jpg": content, "cls": label, "json": facts})


def tar(source: str, out: Path) -> None:
    out.mkdir(parents=True)
    subprocess.run(["tar", "cf", str(out / "all.tar"), "-C", source, "."], check=True)


# By name: packages to import before the clock starts, and what runs then.
CONTENDERS: dict[str, tuple[tuple[str, ...], Callable[[str, Path], None]]] = {
    "header": (("pipelines.shards.build",), partial(build, check="header")),
    "decode": (("pipelines.shards.build",), partial(build, check="decode")),
    "shard_writer": (("cv2", "webdataset"), partial(shard_writer, with_decode=False)),
    "shard_writer_decode": (("cv2", "webdataset"), partial(shard_writer, with_decode=True)),
    "tar": ((), tar),
    "simulate": ((), lambda num_samples, out: simulate(int(num_samples), out)),
}


def simulate(num_samples: int, out: Path) -> None:
    """Plan that many images, which are not there, and write a manifest as if they had been packed."""
    storage = storage_of(out)
    storage.make()
    rules = BuildConfig(sources=[out], out=out, samples_per_shard=SAMPLES_PER_SHARD).rules()
    # Nothing is probed: there are no videos, and the images do not exist.
    with Planner(rules, out, lambda _: ()) as planner:
        group, place = planner.group("image", "train"), planner.places.number("/data/photos/x", "x")
        for start in range(0, num_samples, SIMULATED_BATCH_ROWS):
            planner.add_rows(_simulated_rows(start, min(num_samples, start + SIMULATED_BATCH_ROWS), group, place))
        plan = planner.finish()
    with ManifestWriter(storage, plan.labels) as manifest:
        for index in range(plan.num_shards):
            manifest.add(*_simulated_shard(plan, index))
    plan.close()


def _simulated_rows(start: int, end: int, group: int, place: int) -> pa.RecordBatch:
    """Return rows of images class/0000000000.jpg, class/0000000001.jpg, ... of about 5 kB."""
    numbers = np.arange(start, end)
    names = _first_names()[: len(numbers)].copy()
    # Digits are added letter by letter, which is much faster than formatting names. `start` is a multiple of a
    # batch's rows, so that no sum of two digits carries.
    names[:, 6:-4] += np.frombuffer(b"%010d" % start, np.uint8) - ord("0")
    keys = np.ascontiguousarray(names[:, :-4]).view(f"S{6 + DIGITS}").ravel().tolist()
    values: dict[str, Any] = {
        "place": place,
        "size": 4000 + numbers % 2000,
        "modified_ns": 10**18 + numbers,
        "source": _texts(names),
        # Left out, as for all items whose key is the source without its suffix.
        "key": _texts(names[:, :0]),
        "label": -1,
        "end_s": -1.0,
        "group": group,
        "hash": np.fromiter(map(xxhash.xxh3_64_intdigest, keys), np.uint64, len(keys)),
        "num_samples": 1,
        "sample_bytes": 6000,
    }
    columns = [_column(values.get(field.name, 0), field.type, len(numbers)) for field in SORT_SCHEMA]
    return pa.record_batch(columns, schema=SORT_SCHEMA)


@cache
def _first_names() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return one batch's names in letters; those of later batches differ in the first digits only."""
    names = b"".join(b"class/%010d.jpg" % number for number in range(SIMULATED_BATCH_ROWS))
    return np.frombuffer(names, np.uint8).reshape(SIMULATED_BATCH_ROWS, -1)


def _simulated_shard(plan: ShardPlan, index: int) -> tuple[Shard, pa.RecordBatch]:
    shard = plan.shard(index)
    count = shard.rows.num_rows
    values: dict[str, Any] = {"offset": 512, "width": 96, "height": 96, "label": -1, "num_frames": 1}
    values |= {"key": shard.rows.column("source"), "size": shard.rows.column("size")}
    columns = [_column(values.get(field.name, 0), field.type, count) for field in SAMPLE_SCHEMA]
    entry = Shard(
        name=shard.name, kind="image", split="train", num_samples=count, shard_bytes=6000 * count, sha256="0" * 64
    )
    return entry, pa.record_batch(columns, schema=SAMPLE_SCHEMA)


def _column(value: Any, kind: pa.DataType, count: int) -> pa.Array:
    if isinstance(value, pa.Array):
        return value
    return number_column(value if isinstance(value, np.ndarray) else np.full(count, value), kind)


def _texts(letters: np.ndarray[Any, np.dtype[np.uint8]]) -> pa.Array:
    """Return each row of letters as a string."""
    count, length = letters.shape
    offsets = np.arange(count + 1, dtype=np.int32) * length
    return pa.Array.from_buffers(
        pa.string(), count, [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(letters))]
    )


def _peak_mib(process: int) -> float:
    """Return the peak resident memory. `getrusage` would begin with the size of the process that started this one."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # it has just ended
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def _watch_workers(peaks: list[float]) -> None:
    own = psutil.Process()
    while True:
        peaks[0] = max(peaks[0], *(_peak_mib(child.pid) for child in own.children()), 0.0)
        time.sleep(PEAK_EVERY_S)
