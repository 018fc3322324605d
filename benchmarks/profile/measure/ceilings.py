"""The limits of this machine that no pipeline can beat: reading these shards, copying memory, decoding this folder's
images and clips and nothing else, optical flow, copying to the device, multiplying matrices on it.

Measured once for a machine and a set of shards, and kept in the cache folder. A limit that cannot be measured here is
None, shown as "not measured".
"""

import hashlib
import io
import json
import os
import platform
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch

from benchmarks.harness.page_cache import MAX_RESIDENT_RATIO, drop
from benchmarks.harness.turns import Job, time_in_turns
from benchmarks.profile.measure.consumers import wait_for
from benchmarks.results.record import environment, write_json
from pipelines.base.errors import DataError
from pipelines.base.machine import num_cores
from pipelines.build import PipelineConfig, build_pipeline
from pipelines.run.sample_source import SampleSource
from pipelines.targets.motion.dense_flow import DenseFlow, DisFlow, FarnebackFlow

__all__ = ["Ceilings", "DiskSpeed", "ceilings", "fingerprint_of", "measure_ceilings", "read_speed"]

FORMAT_VERSION = 2
NUM_SAMPLES, NUM_OF_ONE_CORE = 64, 16
"""Decoded in a turn: by all cores, and by one, which would take too long for all."""
NUM_REPEATS = 3
MATRIX_SIZE = {"cpu": 1024, "cuda": 8192}
COPY_BYTES = 64 << 20
MAX_BYTES = 96 << 20
MAX_RANDOM_READS = 512
CHUNK_BYTES = 1 << 20

Span = tuple[Path, int, int]
"""A file, an offset and a number of bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSpeed:
    """Reading speed in bytes per second: warm from memory, cold from the disk. Cold is None where files stayed in
    memory although the system was asked to drop them; `note` says so. What a disk or the host of a virtual machine
    keeps is not known."""

    sequential_warm_bytes_per_s: float
    sequential_cold_bytes_per_s: float | None
    random_warm_bytes_per_s: float
    random_cold_bytes_per_s: float | None
    random_cold_reads_per_s: float | None
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """Limits per second. decode_*: whole images of this folder by OpenCV, without crop and resize; whole clips by PyAV.
    flow_pairs: frame pairs of 160 x 120, as masks need them, on one core. None: there is nothing to measure."""

    read: DiskSpeed | None
    memory_copy_bytes_per_s: float
    decode_images_per_s_core: float | None
    decode_images_per_s: float | None
    decode_clips_per_s_core: float | None
    decode_clips_per_s: float | None
    flow_pairs_per_s: dict[str, float]
    to_device_bytes_per_s: float | None
    to_device_pinned_bytes_per_s: float | None
    matrix_flop_per_s: float
    device: str


def ceilings(config: PipelineConfig, device: torch.device, folder: Path | None = None) -> tuple[Ceilings, bool]:
    """Return the limits, and whether they come from the cache. `folder`: of the cache."""
    folder = folder or Path(os.environ.get("FOURFOLD_CACHE") or Path.home() / ".cache" / "fourfold")
    path = folder / f"ceilings-{fingerprint_of(config, device)}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        read = DiskSpeed(**content["read"]) if content["read"] else None
        return Ceilings(**(content | {"read": read})), True
    except (OSError, ValueError, KeyError, TypeError):
        # No file yet, or one that another version wrote: the limits are measured again, which takes some seconds.
        found = measure_ceilings(config, device)
        with suppress(DataError):  # where the cache cannot be written, the next profile takes some seconds more
            write_json(path, asdict(found))
        return found, False


def fingerprint_of(config: PipelineConfig, device: torch.device) -> str:
    """Return a hash of the machine (processor, cores, kernel, GPU, packages that decode) and of the shards' content."""
    place = environment()
    with build_pipeline(config, seed=0, device=device) as pipeline:
        tables = [source.source.table for source in pipeline.maker.sources.values()]
    shards = [[shard.sha256 for shard in table.shards] for table in tables]
    versions = {name: place.versions.get(name) for name in ("torch", "opencv-python-headless")}
    # Whatever changes a limit: another kernel reads otherwise, another OpenCV decodes otherwise.
    parts = [FORMAT_VERSION, place.cpu_name, num_cores(), platform.release(), place.gpu_name, versions, av.__version__]
    return hashlib.sha256(json.dumps([*parts, str(device), shards]).encode()).hexdigest()[:16]


def measure_ceilings(config: PipelineConfig, device: torch.device) -> Ceilings:
    """Measure all limits. Takes some seconds."""
    # 1. The first samples of the plan; those of a remote folder that are not here yet are not measured.
    with build_pipeline(config, seed=0) as pipeline:
        spans = {kind: _spans(source.source) for kind, source in pipeline.maker.sources.items()}
    every = [span for found in spans.values() for span in found]
    paths = list(dict.fromkeys(path for path, _, _ in every))
    is_local = all(path.exists() for path in paths)
    # 2. All limits in turns, of one core by its CPU seconds, as costs are, of all by the wall. The best counts: what
    # others take of the machine is no limit.
    core_jobs = {"memory_copy_bytes_per_s": _copy_job()}
    jobs = {"matrix_flop_per_s": _matrix_job(device), **_device_jobs(device)}
    for kind, found in spans.items() if is_local else ():
        contents, decode = [_content(span) for span in found[:NUM_SAMPLES]], DECODERS[kind]
        if contents:
            few, unit = contents[:NUM_OF_ONE_CORE], f"{kind}s"
            run, run_few = partial(_all, decode, contents, num_cores()), partial(_all, decode, few, 1)
            jobs[f"decode_{kind}s_per_s"] = Job(unit=unit, num_items=len(contents), run=run)
            core_jobs[f"decode_{kind}s_per_s_core"] = Job(unit=unit, num_items=len(few), run=run_few)
            core_jobs |= _flow_jobs(contents[0]) if kind == "clip" else {}
    # OpenCV would start threads inside every call: the limit of one core would be that of several.
    cv2.setNumThreads(1)
    timed = time_in_turns(jobs, NUM_REPEATS) | time_in_turns(core_jobs, NUM_REPEATS, clock=time.process_time)
    best = {name: max(one.per_s) for name, one in timed.items()}
    # 3. What there is no job for is None.
    flow = {name.removeprefix("flow "): best.pop(name) for name in list(best) if name.startswith("flow ")}
    names = ("decode_images_per_s", "decode_clips_per_s", "to_device_bytes_per_s", "to_device_pinned_bytes_per_s")
    missing: dict[str, Any] = dict.fromkeys([*names, "decode_images_per_s_core", "decode_clips_per_s_core"])
    read = read_speed(paths, every) if is_local else None
    return Ceilings(read=read, flow_pairs_per_s=flow, device=str(device), **(missing | best))


def _spans(source: SampleSource) -> list[Span]:
    """Return where the first samples of the plan lie."""
    table, paths, plan = source.table, source.reader.paths, source.plan
    # In the order of the plan: it is how the pipeline would read them.
    rows = np.concatenate([plan.picks(batch).rows for batch in range(1 + MAX_RANDOM_READS // plan.local_batch_size)])
    return [
        (paths[int(table.shard_index[row])], int(table.offset[row]), int(table.size[row]))
        for row in dict.fromkeys(rows.tolist())
    ]


def _content(span: Span) -> bytes:
    path, offset, size = span
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _all(work: Callable[[bytes], object], items: Sequence[bytes], num_threads: int) -> None:
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(work, items))


def _decode_image(content: bytes) -> object:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def _decode_clip(content: bytes) -> int:
    with av.open(io.BytesIO(content), mode="r") as container:
        stream = container.streams.video[0]
        # Every core has a clip already. Threads inside the decoder would make the limit of one core that of several.
        stream.thread_type = "NONE"
        return sum(1 for _ in container.decode(stream))


DECODERS: dict[str, Callable[[bytes], object]] = {"image": _decode_image, "clip": _decode_clip}


def _copy_job() -> Job:
    """Copy memory with one thread; read and written bytes are counted once."""
    # Ones, because pages that were never written are one page of zeros, which stays in the processor's cache.
    source = np.ones(COPY_BYTES, np.uint8)
    return Job(unit="bytes", num_items=COPY_BYTES, run=partial(np.copyto, np.empty_like(source), source))


def _flow_jobs(clip: bytes) -> dict[str, Job]:
    with av.open(io.BytesIO(clip), mode="r") as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)][:4]
    # At the size that masks are made at, whatever the size of the clips.
    small = [cv2.resize(frame, (160, 120), interpolation=cv2.INTER_AREA) for frame in frames]
    gray_THW = np.stack(small).astype(np.uint8)
    engines: dict[str, DenseFlow] = {"dis": DisFlow(), "farneback": FarnebackFlow()}
    pairs = len(gray_THW) - 1
    return {
        f"flow {name}": Job(unit="pairs", num_items=pairs, run=partial(one.clip_flow, gray_THW))
        for name, one in engines.items()
    }


def _device_jobs(device: torch.device) -> dict[str, Job]:
    """Copy from ordinary and from page-locked memory; {} where the device is the CPU."""
    if device.type != "cuda":
        return {}

    def copy(tensor: torch.Tensor) -> None:
        tensor.to(device, non_blocking=True)
        wait_for(device)

    pageable = torch.ones(COPY_BYTES, dtype=torch.uint8)
    return {
        "to_device_bytes_per_s": Job(unit="bytes", num_items=COPY_BYTES, run=partial(copy, pageable)),
        "to_device_pinned_bytes_per_s": Job(
            unit="bytes", num_items=COPY_BYTES, run=partial(copy, pageable.pin_memory())
        ),
    }


def _matrix_job(device: torch.device) -> Job:
    """Multiply square matrices: bf16 on a GPU, fp32 with torch's threads on a CPU."""
    # Large enough to fill the device, small enough for milliseconds on a CPU.
    size = MATRIX_SIZE["cuda" if device.type == "cuda" else "cpu"]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    matrix = torch.randn(size, size, device=device, dtype=dtype)

    def multiply() -> None:
        torch.mm(matrix, matrix)
        wait_for(device)

    return Job(unit="FLOP", num_items=2 * size**3, run=multiply)


def read_speed(paths: Sequence[Path], samples: Sequence[Span]) -> DiskSpeed:
    """Measure reading. `paths`: read from start to end, up to MAX_BYTES. `samples`: read in random order."""
    # Always the same samples, so that a second measurement reads the same places.
    chosen = random.Random(0).sample(list(samples), min(len(samples), MAX_RANDOM_READS))
    orders = {"sequential": _beginnings(paths), "random": chosen}
    num_bytes = {name: sum(size for _, _, size in spans) for name, spans in orders.items()}
    resident: dict[str, float] = {}

    def dropped(name: str) -> None:
        resident[name] = drop({path for path, _, _ in orders[name]})

    # 1. Cold, once and without warm-up, which would make it warm. Random after sequential, so files are dropped twice.
    jobs = {
        name: Job(unit="bytes", num_items=num_bytes[name], run=partial(_read, spans)) for name, spans in orders.items()
    }
    cold_jobs = {name: replace(job, prepare=partial(dropped, name)) for name, job in jobs.items()}
    timed = time_in_turns(cold_jobs, 1, num_warm_up=0)
    cold = {name: timed[name].per_s[0] if resident[name] <= MAX_RESIDENT_RATIO else None for name in orders}
    # 2. Warm, after a round that is not counted.
    warm = {name: max(one.per_s) for name, one in time_in_turns(jobs, NUM_REPEATS).items()}
    stayed = ", ".join(f"{ratio:.0%} of the bytes read ({name})" for name, ratio in resident.items())
    return DiskSpeed(
        sequential_cold_bytes_per_s=cold["sequential"],
        random_cold_bytes_per_s=cold["random"],
        random_cold_reads_per_s=cold["random"] and len(chosen) * cold["random"] / num_bytes["random"],
        sequential_warm_bytes_per_s=warm["sequential"],
        random_warm_bytes_per_s=warm["random"],
        note="cold: what the storage itself or a host keeps in memory is not known"
        if None not in cold.values()
        else f"reading is not measured cold: after dropping them, {stayed} were still in memory",
    )


def _beginnings(paths: Sequence[Path]) -> list[Span]:
    # Limited, since a large folder would take minutes and evict everything else from memory.
    left, spans = MAX_BYTES, []
    for path in paths:
        size = min(path.stat().st_size, left)
        if size <= 0:
            break
        spans.append((path, 0, size))
        left -= size
    return spans


def _read(spans: Sequence[Span]) -> None:
    # One buffer for all reads, and none of Python's own: page faults of fresh memory and a second copy are not
    # reading.
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with ExitStack() as stack:
        files = {path: stack.enter_context(path.open("rb", buffering=0)) for path in {path for path, _, _ in spans}}
        for path, offset, size in spans:
            files[path].seek(offset)
            while size > 0 and (got := files[path].readinto(buffer[: min(size, CHUNK_BYTES)])):
                size -= got
