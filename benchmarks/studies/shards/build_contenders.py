"""What `build_speed.py` times, each in a process of its own: fourfold, serial webdataset loops, tar; and a
simulated plan of very many samples.

    python -m benchmarks.studies.shards.build_contenders NAME SOURCE OUT      prints one line of JSON

Time runs from the first look at the sources to the last file closed; imports of the contender's own packages are not
in it, worker processes are.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import pyarrow as pa
import xxhash

from pipelines.base.progress import quiet_progress
from pipelines.shards.format.columns import number_column
from pipelines.shards.format.manifest import SAMPLE_SCHEMA, ManifestWriter
from pipelines.shards.format.storage import storage_of
from pipelines.shards.format.table import Shard
from pipelines.shards.making.build_config import BuildConfig
from pipelines.shards.making.shard_plan import SORT_SCHEMA, Planner, ShardPlan

__all__ = ["CONTENDERS", "Timing", "run_contender", "simulate"]

SAMPLES_PER_SHARD = 1000
SIMULATED_BATCH_ROWS = 100_000
PEAK_EVERY_S = 0.05
DIGITS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of one run, and the peak memory of its main process and of its largest worker process (0: none)."""

    seconds: float
    peak_mib: float
    worker_peak_mib: float


def run_contender(name: str, source: Path | str, out: Path) -> Timing:
    """One run in a fresh process; `out` must not exist. Raises CalledProcessError if it fails."""
    command = [sys.executable, "-m", "benchmarks.studies.shards.build_contenders", name, str(source), str(out)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=Path(__file__).resolve().parents[3])
    return Timing(**json.loads(done.stdout))


def build(source: str, out: Path, check: Literal["header", "decode"]) -> Callable[[], None]:
    from pipelines.shards.build import build_shards

    config = BuildConfig(sources=[Path(source)], out=out, check=check, samples_per_shard=SAMPLES_PER_SHARD)

    def run() -> None:
        with quiet_progress():
            build_shards(config)

    return run


def shard_writer(source: str, out: Path, *, with_decode: bool) -> Callable[[], None]:
    """The loop that most people write; `with_decode` adds what a careful one would check."""
    import cv2
    import webdataset

    def run() -> None:
        out.mkdir(parents=True)
        pattern = str(out / "train-%06d.tar")
        with webdataset.ShardWriter(pattern, maxcount=SAMPLES_PER_SHARD, verbose=0) as writer:
            for path, label in _files(source):
                content = path.read_bytes()
                facts: dict[str, Any] = {"source": str(path)}
                if with_decode:
                    pixels = np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))
                    facts |= {"height": pixels.shape[0], "width": pixels.shape[1]}
                    facts["sha256"] = hashlib.sha256(content).hexdigest()
                writer.write(
                    {"__key__": f"{path.parent.name}/{path.stem}", "jpg": content, "cls": label, "json": facts}
                )

    return run


def tar(source: str, out: Path) -> Callable[[], None]:
    def run() -> None:
        out.mkdir(parents=True)
        subprocess.run(["tar", "cf", str(out / "all.tar"), "-C", source, "."], check=True)

    return run


CONTENDERS: dict[str, Callable[[str, Path], Callable[[], None]]] = {
    "header": lambda source, out: build(source, out, "header"),
    "decode": lambda source, out: build(source, out, "decode"),
    "shard_writer": lambda source, out: shard_writer(source, out, with_decode=False),
    "shard_writer_decode": lambda source, out: shard_writer(source, out, with_decode=True),
    "tar": tar,
    "simulate": lambda num_samples, out: lambda: simulate(int(num_samples), out),
}


def _files(source: str) -> Iterator[tuple[Path, int]]:
    for number, folder in enumerate(sorted(Path(source).iterdir())):
        for path in sorted(folder.iterdir()):
            yield path, number


def simulate(num_samples: int, out: Path) -> None:
    """ShardPlan that many images, which are not there, and write a manifest as if they had been packed."""
    storage = storage_of(out)
    storage.make()
    rules = BuildConfig(sources=[out], out=out, samples_per_shard=SAMPLES_PER_SHARD).rules()
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
    """Images class/0000000000.jpg, class/0000000001.jpg, ... of about 5 kB."""
    numbers = np.arange(start, end)
    names = _first_names()[: len(numbers)].copy()
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
    """One batch's names in letters; the next batches' differ in the first digits only."""
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
    """Each row of letters as a string."""
    count, length = letters.shape
    offsets = np.arange(count + 1, dtype=np.int32) * length
    return pa.Array.from_buffers(
        pa.string(), count, [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(letters))]
    )


def _peak_mib(process: int) -> float:
    """Peak resident memory. Not `getrusage`: that of a process begins with the size of the one that started it."""
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


def main() -> None:
    name, source, out = sys.argv[1:]
    run = CONTENDERS[name](source, Path(out))
    worker_peaks = [0.0]
    threading.Thread(target=_watch_workers, args=[worker_peaks], daemon=True).start()
    os.sync()  # what others have written must not be waited for in here
    start_s = time.perf_counter()
    run()
    seconds = time.perf_counter() - start_s
    print(json.dumps({"seconds": seconds, "peak_mib": _peak_mib(os.getpid()), "worker_peak_mib": max(worker_peaks)}))


if __name__ == "__main__":
    main()
